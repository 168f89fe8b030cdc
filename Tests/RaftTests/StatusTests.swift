import Raft
import Testing
import WeirCore

@Suite struct StatusTests {
  @Test func aLeaderKnowsItsMembers() throws {
    var cluster = try TestCluster(voters: [1, 2, 3], learners: [4])
    try cluster.elect(1)
    try cluster.propose("x", at: 1)
    try cluster.settle()
    let status = cluster.node(1).raw.status
    #expect(
      status.basic
        == BasicStatus(
          id: 1, hardState: HardState(term: 1, vote: 1, commit: 2), softState: SoftState(leader: 1, role: .leader),
          applied: 2))
    #expect(status.configuration.description == "voters=(1 2 3) learners=(4)")
    #expect(status.progress.map(\.id) == [1, 2, 3, 4])
    #expect(status.progress.map(\.match) == [2, 2, 2, 2])
    #expect(status.progress.map(\.isLearner) == [false, false, false, true])
    var seen: [NodeID] = []
    cluster.node(1).raw.withProgress { seen.append($0.id) }
    #expect(seen == [1, 2, 3, 4])
  }

  @Test func aFollowerKnowsOnlyItself() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    let status = cluster.node(2).raw.status
    #expect(status.progress.isEmpty)
    #expect(status.role == .follower && status.leader == 1 && status.vote == 1 && status.term == 1)
    #expect(status.commit == 1 && status.applied == 1 && status.id == 2)
    #expect(status.configuration.voters == [1, 2, 3])
  }

  @Test func aTransferUnderWayIsSeen() throws {
    var cluster = try TestCluster(voters: [1, 2])
    try cluster.elect(1)
    cluster.passes = { _ in false }
    cluster.node(1).raw.transferLeadership(to: 2)
    #expect(cluster.node(1).raw.status.leadTransferee == 2)
    #expect(cluster.node(1).raw.basicStatus == cluster.node(1).raw.status.basic)
  }

  @Test func inWordsItIsTheJSONOfEtcdsRaft() throws {
    var cluster = try TestCluster(voters: [1, 2])
    #expect(
      cluster.node(1).raw.status.description
        == #"{"id":"1","term":0,"vote":"0","commit":0,"lead":"0","raftState":"StateFollower","applied":0,"#
        + #""progress":{},"leadtransferee":"0"}"#)
    try cluster.elect(1)
    #expect(
      cluster.node(1).raw.status.description
        == #"{"id":"1","term":1,"vote":"1","commit":1,"lead":"1","raftState":"StateLeader","applied":1,"#
        + #""progress":{"1":{"match":1,"next":2,"state":"StateReplicate"},"#
        + #""2":{"match":1,"next":2,"state":"StateReplicate"}},"leadtransferee":"0"}"#)
  }
}
