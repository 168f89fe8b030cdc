import Testing
import WeirCore

@testable import Raft

/// The two hooks through which one looks into a node: lines for people, events for models.
@Suite struct ObserverTests {
  private final class Events: RaftTracer {
    struct Event: Equatable {
      var event: TraceEvent
      var id: NodeID
      var role: Role
      var hardState: HardState
      var lastIndex: LogIndex
    }

    private(set) var events: [Event] = []

    func trace(_ event: TraceEvent, id: NodeID, role: Role, hardState: HardState, lastIndex: LogIndex) {
      events.append(Event(event: event, id: id, role: role, hardState: hardState, lastIndex: lastIndex))
    }
  }

  // MARK: Logger

  @Test func noTextIsMadeThatNobodyReads() {
    var made = 0
    func line() -> String {
      made += 1
      return "text"
    }
    let nobody: (any RaftLogger)? = nil
    for level in RaftLogLevel.allCases { nobody.write(level, line) }
    #expect(made == 0)
    let warnings = RecordedLines(minimumLevel: .warning)
    let somebody: (any RaftLogger)? = warnings
    for level in RaftLogLevel.allCases { somebody.write(level, line) }
    #expect(made == 2)
    #expect(warnings.lines == ["warning text", "error text"])
  }

  @Test func theLinesAreThoseOfEtcdsRaft() throws {
    let lines = RecordedLines(minimumLevel: .info)
    var cluster = try TestCluster(voters: [1], logger: lines)
    try cluster.elect(1)
    #expect(
      lines.lines == [
        "info 1 switched to configuration voters=(1)",
        "info 1 became follower at term 0",
        "info newRaft 1 [peers: [1], term: 0, commit: 0, applied: 0, lastindex: 0, lastterm: 0]",
        "info 1 is starting a new election at term 0",
        "info 1 became candidate at term 1",
        "info 1 received MsgVoteResp from 1 at term 1",
        "info 1 has received 1 MsgVoteResp votes and 0 vote rejections",
        "info 1 became leader at term 1",
      ])
  }

  /// Whoever listens, and to what, the node does the same.
  @Test func listeningChangesNothing() throws {
    func messages(logger: (any RaftLogger)?, tracer: (any RaftTracer)?) throws -> [String] {
      var cluster = try TestCluster(voters: [1, 2, 3], logger: logger) { $0.preVote = true }
      for node in cluster.nodes { node.raw.tracer = tracer }
      try cluster.elect(2)
      for text in ["a", "b"] { try cluster.propose(text, at: 2) }
      cluster.node(2).raw.transferLeadership(to: 3)
      cluster.tickAll()
      try cluster.settle()
      return cluster.sent.map { RaftDescription.message($0) }
    }
    let plain = try messages(logger: nil, tracer: nil)
    #expect(plain.count > 20)
    #expect(try messages(logger: RecordedLines(minimumLevel: .debug), tracer: Events()) == plain)
  }

  // MARK: Tracer

  @Test func aTracerSeesEveryStepWithTheStateAfterIt() throws {
    var cluster = try TestCluster(voters: [1])
    let events = Events()
    cluster.node(1).raw.tracer = events
    try cluster.elect(1)
    try cluster.propose("x", at: 1)
    try cluster.settle()
    #expect(
      events.events.map(\.event) == [
        .becomeCandidate, .send(.voteResponse, to: 1), .ready,
        .replicate(count: 1), .send(.appendResponse, to: 1), .becomeLeader, .ready, .commit, .ready,
        .replicate(count: 1), .send(.appendResponse, to: 1), .ready, .commit, .ready,
      ])
    let commits = events.events.filter { $0.event == .commit }
    #expect(commits.map(\.hardState.commit) == [1, 2])
    #expect(commits.allSatisfy { $0.role == .leader && $0.id == 1 })
    let replicates = events.events.filter { $0.event == .replicate(count: 1) }
    #expect(replicates.map(\.lastIndex) == [1, 2])
  }

  @Test func aTracerSeesMessagesBothWaysAndChangesOfMembership() throws {
    var cluster = try TestCluster(voters: [1, 2])
    let events = Events()
    cluster.node(2).raw.tracer = events
    try cluster.elect(1)
    let names = events.events.map(\.event)
    #expect(names.contains(.receive(.vote, from: 1)) && names.contains(.send(.voteResponse, to: 1)))
    #expect(names.contains(.receive(.append, from: 1)) && names.contains(.send(.appendResponse, to: 1)))
    let leaderEvents = Events()
    cluster.node(1).raw.tracer = leaderEvents
    try cluster.node(1).raw.propose(ConfigurationChange(MemberChange(.addLearner, 2)))
    try cluster.node(1).raw.propose(ConfigurationChange(MemberChange(.addVoter, 3)))
    try cluster.settle()
    let changes = leaderEvents.events.map(\.event)
    #expect(changes.contains(.changeConfiguration(refused: false)))
    #expect(changes.contains(.changeConfiguration(refused: true)), "a second change while the first is not applied")
    #expect(changes.contains(.applyConfigurationChange))
    #expect(events.events.map(\.event).contains(.applyConfigurationChange))
  }
}
