import Testing
import WeirCore

@_spi(Testing) import Raft

@Suite struct ReadTests {
  private func heartbeats(_ cluster: TestCluster) -> Int { cluster.sent.filter { $0.type == .heartbeat }.count }

  @Test func aSafeReadCostsOneRoundOfTheLeader() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    cluster.sent = []
    cluster.node(1).raw.readIndex(context: 7)
    try cluster.settle()
    #expect(cluster.node(1).readStates == [ReadState(index: 1, context: 7)])
    #expect(cluster.sent.count == 4, "two heartbeats and two answers")
  }

  @Test func readsThatArriveTogetherShareARound() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    cluster.sent = []
    for context in UInt64(1)...100 { cluster.node(1).raw.readIndex(context: context) }
    try cluster.settle()
    #expect(cluster.node(1).readStates.map(\.context) == Array(1...100))
    #expect(cluster.sent.count == 4)
  }

  @Test func aFollowerReadsThroughTheLeader() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    try cluster.propose("x", at: 1)
    try cluster.settle()
    cluster.node(3).raw.readIndex(context: 5)
    try cluster.settle()
    #expect(cluster.node(3).readStates == [ReadState(index: 2, context: 5)])
    #expect(cluster.node(1).readStates.isEmpty)
  }

  /// An answer to a round that left before the read came says nothing about the time after it.
  @Test func aLateAnswerToAnEarlierRoundConfirmsNothing() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    let leader = cluster.node(1)
    leader.raw.tick()
    let early = try cluster.drain(leader)
    var late: [Message] = []
    for message in early where message.type == .heartbeat && message.to == 2 {
      try cluster.node(2).raw.step(message)
      late += try cluster.drain(cluster.node(2))
    }
    #expect(late.count == 1)
    leader.raw.readIndex(context: 1)
    _ = try cluster.drain(leader)
    for message in late { try leader.raw.step(message) }
    _ = try cluster.drain(leader)
    #expect(leader.readStates.isEmpty)
    // The same number asked for again is another read, and confirmed by its own round only.
    leader.raw.readIndex(context: 1)
    for message in late { try leader.raw.step(message) }
    _ = try cluster.drain(leader)
    #expect(leader.readStates.isEmpty)
    leader.raw.tick()
    try cluster.settle()
    #expect(leader.readStates.map(\.context) == [1, 1], "a later round confirms what earlier ones, lost, did not")
  }

  @Test func anAnswerToARoundThatWasNeverSentConfirmsNothing() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    let leader = cluster.node(1)
    var forged = Message(type: .heartbeatResponse, to: 1, from: 2, term: leader.raw.term)
    forged.context = 1_000_000
    try leader.raw.step(forged)
    leader.raw.readIndex(context: 1)
    _ = try cluster.drain(leader)
    #expect(leader.readStates.isEmpty)
  }

  /// A leader does not know what its predecessor committed until it has committed itself.
  @Test func readsWaitForTheFirstCommitOfTheTerm() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    cluster.passes = { $0.type != .append }
    try cluster.elect(1)
    let leader = cluster.node(1)
    #expect(leader.raw.role == .leader)
    leader.raw.readIndex(context: 1)
    leader.raw.tick()
    try cluster.settle()
    #expect(leader.readStates.isEmpty)
    #expect(leader.raw.pendingReadCount == 1)
    cluster.passes = { _ in true }
    leader.raw.tick()
    try cluster.settle()
    #expect(leader.readStates == [ReadState(index: 1, context: 1)])
  }

  @Test func steppingDownRefusesReadsLoudly() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    cluster.passes = { $0.from != 1 }
    cluster.node(1).raw.readIndex(context: 1)
    cluster.node(1).raw.readIndex(context: 2)
    try cluster.settle()
    #expect(cluster.node(1).readStates.isEmpty)
    cluster.passes = { _ in true }
    try cluster.elect(2)
    #expect(cluster.node(2).raw.role == .leader)
    #expect(cluster.node(1).refusedReads == [1, 2])
    #expect(cluster.node(1).readStates.isEmpty)
  }

  @Test func withoutALeaderReadsAreRefused() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    cluster.node(1).raw.readIndex(context: 4)
    try cluster.settle()
    #expect(cluster.node(1).refusedReads == [4])
  }

  @Test func tooManyWaitingReadsAreRefused() throws {
    var cluster = try TestCluster(voters: [1, 2, 3]) { $0.maximumPendingReads = 3 }
    try cluster.elect(1)
    for context in UInt64(1)...5 { cluster.node(1).raw.readIndex(context: context) }
    try cluster.settle()
    #expect(cluster.node(1).readStates.map(\.context) == [1, 2, 3])
    #expect(cluster.node(1).refusedReads == [4, 5])
  }

  @Test func aLearnersAnswerDoesNotCount() throws {
    var cluster = try TestCluster(voters: [1, 2, 3], learners: [4])
    try cluster.elect(1)
    cluster.passes = { $0.from == 4 || $0.to == 4 }
    cluster.node(1).raw.readIndex(context: 1)
    try cluster.settle()
    #expect(cluster.node(1).readStates.isEmpty)
  }

  @Test func aSingleVoterAnswersAtOnce() throws {
    var cluster = try TestCluster(voters: [1], learners: [2])
    try cluster.elect(1)
    cluster.node(1).raw.readIndex(context: 1)
    cluster.node(2).raw.readIndex(context: 2)
    try cluster.settle()
    #expect(cluster.node(1).readStates == [ReadState(index: 1, context: 1)])
    #expect(cluster.node(2).readStates == [ReadState(index: 1, context: 2)])
  }
}
