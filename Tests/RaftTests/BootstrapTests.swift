import Raft
import Testing
import WeirCore

/// A new cluster from nothing, and the same nodes again from what they stored.
@Suite struct BootstrapTests {
  private func emptyNode(_ id: NodeID) throws -> TestNode {
    var configuration = RaftConfiguration(id: id)
    configuration.randomSeed = id
    return TestNode(try RawNode(configuration: configuration, log: LogBuffer()))
  }

  @Test func theLogBeginsWithOneCommittedChangePerVoter() throws {
    let node = try emptyNode(2)
    try node.raw.bootstrap(voters: [1, 2, 3])
    #expect(node.raw.lastIndex == 3 && node.raw.commit == 3 && node.raw.applied == 0 && node.raw.term == 1)
    #expect(node.raw.membership.description == "voters=(1 2 3)")
    node.raw.ready(into: &node.ready)
    #expect(
      RaftDescription.ready(node.ready) == """
        Ready MustSync=true:
        HardState Term:1 Commit:3
        Entries:
        1/1 EntryConfChange v1
        1/2 EntryConfChange v2
        1/3 EntryConfChange v3
        CommittedEntries:
        1/1 EntryConfChange v1
        1/2 EntryConfChange v2
        1/3 EntryConfChange v3

        """)
  }

  @Test func bootstrappedNodesElectALeaderAndCommit() throws {
    var cluster = try TestCluster(voters: [1, 2, 3], bootstraps: true)
    try cluster.settle()
    #expect(cluster.nodes.allSatisfy { $0.raw.applied == 3 && $0.raw.membership.voters == [1, 2, 3] })
    try cluster.elect(3)
    try cluster.propose("first", at: 3)
    try cluster.settle()
    #expect(cluster.nodes.allSatisfy { $0.appliedPayloads == [[], Array("first".utf8)] })
    #expect(cluster.node(1).raw.commit == 5 && cluster.node(3).raw.term == 2)
  }

  @Test func onlyAnEmptyNodeWithDistinctVotersCanBegin() throws {
    let node = try emptyNode(1)
    for voters: [NodeID] in [[], [1, 1], [1, 0], [1, .appendThread]] {
      #expect(throws: RaftError.self) { try node.raw.bootstrap(voters: voters) }
      #expect(node.raw.lastIndex == 0 && node.raw.term == 0)
    }
    try node.raw.bootstrap(voters: [1])
    #expect(throws: RaftError.inconsistentStorage("can't bootstrap a nonempty Storage")) {
      try node.raw.bootstrap(voters: [1])
    }
  }

  /// What was stored, and nothing else, is what a node starts again from.
  @Test func aNodeStartsAgainFromWhatItStored() throws {
    var cluster = try TestCluster(voters: [1, 2, 3], bootstraps: true)
    try cluster.settle()
    try cluster.elect(1)
    for text in ["a", "b", "c"] { try cluster.propose(text, at: 1) }
    try cluster.settle()
    let before = cluster.node(2)
    let stored = before.raw.entries(from: 1, through: before.raw.lastIndex)
    var log = LogBuffer()
    stored.forEach { header, payload in _ = log.append(term: header.term, kind: header.kind, payload: payload) }
    let applied: LogIndex = 5
    let again = TestNode(
      try RawNode(
        configuration: before.raw.configuration, log: log, hardState: before.raw.hardState,
        configurationState: ConfigurationState(voters: [1, 2, 3]), applied: applied))
    #expect(again.raw.hardState == before.raw.hardState)
    #expect(again.raw.role == .follower && again.raw.leader == .none)
    #expect(again.raw.lastIndex == before.raw.lastIndex && again.raw.lastTerm == before.raw.lastTerm)
    // Committed and not yet applied: handed out again, from there on, and not stored again.
    again.raw.ready(into: &again.ready)
    #expect(again.ready.entries.isEmpty && again.ready.hardState.isEmpty)
    #expect(again.ready.committedEntries.firstIndex == applied + 1)
    #expect(again.ready.committedEntries.lastIndex == before.raw.commit)
    again.raw.advance(again.ready)
    // It has voted in this term, and remembers.
    var request = Message(type: .vote, to: 2, from: 3, term: before.raw.term)
    (request.index, request.logTerm) = (99, before.raw.term)
    try again.raw.step(request)
    again.raw.ready(into: &again.ready)
    #expect(again.ready.messages.map(\.reject) == [true])
  }
}
