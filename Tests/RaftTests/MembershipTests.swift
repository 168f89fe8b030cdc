import Raft
import Testing
import WeirCore

@Suite struct MembershipTests {
  private let joint = "voters=(1 2 3)&&(1 2) autoleave"

  /// While leadership is handed over, the leader cannot leave a joint configuration; if that fails, it has to try again by
  /// itself, since no other entry may come.
  @Test func aFailedTransferDoesNotKeepTheConfigurationJoint() throws {
    var cluster = try TestCluster(voters: [1, 2])
    try cluster.elect(1)
    let leader = cluster.node(1)
    // The member that leadership should go to answers, but never campaigns.
    cluster.passes = { $0.type != .timeoutNow && $0.to != 3 }
    leader.raw.transferLeadership(to: 2)
    try cluster.settle()
    let change = ConfigurationChangeV2(transition: .jointImplicit, changes: [MemberChange(.addVoter, 3)])
    try leader.raw.applyConfigurationChange(change)
    #expect(leader.raw.membership.description == joint)
    #expect(throws: RaftError.proposalDropped(.transferInProgress(to: 2))) { try cluster.propose("x", at: 1) }
    let last = leader.raw.lastIndex
    for _ in 0..<leader.raw.configuration.electionTicks { leader.raw.tick() }
    #expect(leader.raw.leadTransferee == .none)
    #expect(leader.raw.lastIndex == last + 1)
    #expect(
      RaftDescription.entries(leader.raw.entries(from: last + 1, through: last + 1))
        == "1/\(last + 1) EntryConfChangeV2\n")
  }

  /// Without pre-votes and quorum checks a node that was cut off comes back with a higher term and campaigns, which is how
  /// the others learn of it. A learner does not campaign.
  @Test func aLearnerWithAHigherTermTellsTheLeader() throws {
    var cluster = try TestCluster(voters: [1, 2], learners: [3])
    try cluster.elect(1)
    try cluster.node(3).raw.step(Message(type: .vote, to: 3, from: 2, term: 9))
    _ = try cluster.drain(cluster.node(3))
    #expect(cluster.node(3).raw.term == 9)
    cluster.node(1).raw.tick()
    try cluster.settle()
    #expect(cluster.node(1).raw.role == .follower && cluster.node(1).raw.term == 9)
    try cluster.elect(1)
    try cluster.propose("x", at: 1)
    try cluster.settle()
    #expect(cluster.node(3).appliedPayloads.last == Array("x".utf8))
    // A voter keeps silent, as in etcd's raft: it will campaign.
    try cluster.node(2).raw.step(Message(type: .vote, to: 2, from: 1, term: 20))
    _ = try cluster.drain(cluster.node(2))
    try cluster.node(2).raw.step(Message(type: .heartbeat, to: 2, from: 1, term: 10))
    let answers = try cluster.drain(cluster.node(2))
    #expect(answers.isEmpty)
  }

  @Test func anExplicitJointConfigurationIsNotLeftByItself() throws {
    let cluster = try TestCluster(voters: [1])
    try cluster.node(1).raw.campaign()
    var settling = cluster
    try settling.settle()
    let leader = cluster.node(1)
    let change = ConfigurationChangeV2(transition: .jointExplicit, changes: [MemberChange(.addLearner, 2)])
    try leader.raw.applyConfigurationChange(change)
    let last = leader.raw.lastIndex
    for _ in 0..<50 { leader.raw.tick() }
    #expect(leader.raw.lastIndex == last)
    #expect(leader.raw.membership.description == "voters=(1)&&(1) learners=(2)")
  }
}
