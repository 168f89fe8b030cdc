import Testing
import WeirCore

@testable import Simulation

/// Each invariant is shown to be broken by the smallest thing that breaks it, so that none can be asleep.
@Suite("Safety checker")
struct SafetyCheckerTests {
  /// Entries of the terms given, from index `first` on, behind a log with digest `chain`.
  private func entries(_ terms: [Term], after chain: UInt64, first: LogIndex, payload: UInt8) -> [StoredEntry] {
    var previous = chain
    return terms.enumerated().map { position, term in
      let bytes = [payload, UInt8(truncatingIfNeeded: term)]
      let header = EntryHeader(index: first + UInt64(position), term: term, kind: .normal, payloadBytes: bytes.count)
      previous = RegisterMachine.chain(previous, header, bytes.span.bytes)
      return StoredEntry(term: term, kind: .normal, payload: bytes, chain: previous)
    }
  }

  private func append(
    _ checker: inout SafetyChecker, _ node: Int, _ terms: [Term], first: LogIndex = 1, payload: UInt8 = 0,
    isDurable: Bool = true
  ) throws {
    let chain = checker.nodes[node].written.chain(at: first - 1) ?? 0
    var write = StableWrite()
    write.firstIndex = first
    write.entries = entries(terms, after: chain, first: first, payload: payload)
    try checker.write(write, by: node)
    if isDurable { checker.synced(write, by: node) }
  }

  private func broken(_ body: () throws -> Void) -> Invariant? {
    do { try body() } catch { return (error as? Simulation.Violation)?.invariant }
    return nil
  }

  @Test("Two leaders in one term")
  func electionSafety() throws {
    var checker = SafetyChecker(nodeCount: 2)
    try checker.observe(0, term: 3, commit: 0, lastIndex: 0, isLeader: true)
    try checker.observe(1, term: 4, commit: 0, lastIndex: 0, isLeader: true)
    #expect(checker.elections == 2)
    var other = SafetyChecker(nodeCount: 2)
    try other.observe(0, term: 3, commit: 0, lastIndex: 0, isLeader: true)
    #expect(broken { try other.observe(1, term: 3, commit: 0, lastIndex: 0, isLeader: true) } == .electionSafety)
  }

  @Test("A leader that overwrites its own entry")
  func appendOnly() throws {
    var checker = SafetyChecker(nodeCount: 1)
    try append(&checker, 0, [1, 1])
    try checker.observe(0, term: 2, commit: 0, lastIndex: 2, isLeader: true)
    try append(&checker, 0, [2], first: 3)
    #expect(broken { try append(&checker, 0, [2], first: 3, payload: 9) } == .leaderAppendOnly)
  }

  @Test("Logs that agree in term and index but not in what is there, or before it")
  func logMatching() throws {
    var checker = SafetyChecker(nodeCount: 2)
    try append(&checker, 0, [1, 1, 2])
    try append(&checker, 1, [1, 1])
    try append(&checker, 1, [2], first: 3)
    var other = SafetyChecker(nodeCount: 2)
    try append(&other, 0, [1, 1, 2])
    try append(&other, 1, [1])
    #expect(broken { try append(&other, 1, [3, 2], first: 2) } == .logMatching)
    #expect(broken { try append(&other, 1, [3], first: 9) } == .logMatching)
  }

  @Test("A leader without a committed entry")
  func completeness() throws {
    var checker = SafetyChecker(nodeCount: 3)
    try append(&checker, 0, [1, 1])
    try checker.observe(0, term: 1, commit: 2, lastIndex: 2, isLeader: true)
    try append(&checker, 1, [1])
    #expect(
      broken { try checker.observe(1, term: 2, commit: 0, lastIndex: 1, isLeader: true) } == .leaderCompleteness)
  }

  @Test("Different entries committed at one index, a commit that goes back or beyond the log, a term that goes back")
  func commits() throws {
    var checker = SafetyChecker(nodeCount: 2)
    try append(&checker, 0, [1, 1])
    try append(&checker, 1, [1, 2])
    try checker.observe(0, term: 2, commit: 2, lastIndex: 2, isLeader: false)
    #expect(broken { try checker.observe(1, term: 2, commit: 2, lastIndex: 2, isLeader: false) } == .stateMachineSafety)
    #expect(broken { try checker.observe(0, term: 2, commit: 1, lastIndex: 2, isLeader: false) } == .commitMonotonic)
    #expect(broken { try checker.observe(0, term: 2, commit: 3, lastIndex: 2, isLeader: false) } == .commitMonotonic)
    #expect(broken { try checker.observe(0, term: 1, commit: 2, lastIndex: 2, isLeader: false) } == .termMonotonic)
  }

  @Test("Votes and acknowledgements that are not durable, and a second vote")
  func durability() throws {
    var checker = SafetyChecker(nodeCount: 3)
    var vote = StableWrite()
    vote.hardState = HardState(term: 2, vote: 2, commit: 0)
    try checker.write(vote, by: 0)
    var grant = Message(type: .voteResponse, to: 2, from: 1, term: 2)
    #expect(broken { try checker.send(grant, from: 0) } == .durableBeforeSend)
    checker.synced(vote, by: 0)
    try checker.send(grant, from: 0)
    grant.to = 3
    #expect(broken { try checker.send(grant, from: 0) } == .oneVotePerTerm)

    try append(&checker, 1, [1, 1], isDurable: false)
    var acknowledgement = Message(type: .appendResponse, to: 1, from: 2, term: 2)
    acknowledgement.index = 2
    #expect(broken { try checker.send(acknowledgement, from: 1) } == .durableBeforeSend)
  }

  @Test("A commit that rests on too few durable copies")
  func durableQuorum() throws {
    var checker = SafetyChecker(nodeCount: 3)
    for node in 0..<2 { try append(&checker, node, [1], isDurable: node == 0) }
    let voters = ConfigurationState(voters: [1, 2, 3])
    #expect(
      broken { try checker.checkDurableQuorum(leader: 0, commit: 1, configuration: voters) } == .committedIsDurable)
    let alone = ConfigurationState(voters: [1])
    try checker.checkDurableQuorum(leader: 0, commit: 1, configuration: alone)
    let joint = ConfigurationState(voters: [1], votersOutgoing: [1, 2, 3])
    #expect(
      broken { try checker.checkDurableQuorum(leader: 0, commit: 1, configuration: joint) } == .committedIsDurable)
  }

  @Test("Entries skipped or applied twice, and states that differ")
  func stateMachine() throws {
    var checker = SafetyChecker(nodeCount: 2)
    try checker.applied(0, index: 1, digest: 5, after: 0)
    #expect(broken { try checker.applied(0, index: 3, digest: 6, after: 1) } == .stateMachineSafety)
    #expect(broken { try checker.applied(1, index: 1, digest: 6, after: 0) } == .stateMachineSafety)
  }

  @Test(
    "Which configurations have intersecting quorums",
    arguments: [
      ([1, 2, 3], [], [1, 2, 3, 4], [], true), ([1, 2, 3], [], [1, 2], [], true),
      ([1, 2, 3], [], [1, 2, 4], [], false),
      ([1, 2, 3], [], [4, 5], [1, 2, 3], true), ([4, 5], [1, 2, 3], [4, 5], [], true),
      ([1, 2, 3], [], [4, 5], [], false), ([1], [], [1, 2], [], true), ([1], [], [2], [], false),
    ] as [([NodeID], [NodeID], [NodeID], [NodeID], Bool)])
  func configurations(_ old: [NodeID], _ oldOut: [NodeID], _ new: [NodeID], _ newOut: [NodeID], _ isSafe: Bool) {
    #expect(
      SafetyChecker.quorumsIntersect(
        ConfigurationState(voters: old, votersOutgoing: oldOut), ConfigurationState(voters: new, votersOutgoing: newOut)
      )
        == isSafe)
  }
}
