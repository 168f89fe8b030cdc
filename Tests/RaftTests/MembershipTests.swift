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
