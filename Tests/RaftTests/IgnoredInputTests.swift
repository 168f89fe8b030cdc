import Raft
import Testing
import WeirCore

/// What is no error and still has no effect: it is ignored with the line that etcd's raft writes, and nothing changes.
@Suite struct IgnoredInputTests {
  private struct Scene {
    var cluster: TestCluster
    let lines = RecordedLines()

    init(
      voters: [NodeID] = [1, 2, 3], learners: [NodeID] = [], leader: NodeID? = 1,
      configure: (inout RaftConfiguration) -> Void = { _ in }
    ) throws {
      cluster = try TestCluster(voters: voters, learners: learners, logger: lines, configure: configure)
      if let leader { try cluster.elect(leader) }
      lines.lines = []
    }

    /// What a node holds, as far as input could change it.
    func state(_ id: NodeID) -> String {
      let node = cluster.node(id)
      return "\(node.raw.status) \(node.raw.lastIndex) \(node.raw.lastTerm) \(node.raw.membership) \(node.raw.hasReady)"
    }

    /// Checks that `body` changes nothing at a node, and gives back what the node said.
    mutating func ignores(_ id: NodeID, _ body: (TestNode) throws -> Void) rethrows -> [String] {
      let before = state(id)
      lines.lines = []
      try body(cluster.node(id))
      #expect(state(id) == before)
      return lines.lines
    }
  }

  // MARK: Strangers

  @Test func whatTheApplicationSaysOfAStranger() throws {
    var scene = try Scene()
    let line = ["debug 1 no progress available for 9"]
    #expect(scene.ignores(1) { $0.raw.reportUnreachable(9) } == line)
    #expect(scene.ignores(1) { $0.raw.reportSnapshot(9, succeeded: false) } == line)
    #expect(scene.ignores(1) { $0.raw.transferLeadership(to: 9) } == line)
  }

  @Test func aFollowerHasNothingToReport() throws {
    var scene = try Scene()
    #expect(scene.ignores(2) { $0.raw.reportUnreachable(3) } == [])
    #expect(scene.ignores(2) { $0.raw.reportSnapshot(3, succeeded: true) } == [])
  }

  // MARK: Old terms

  @Test(arguments: [MessageType.append, .heartbeat, .snapshot, .vote, .timeoutNow, .readIndexResponse])
  func anOldTerm(_ type: MessageType) throws {
    var scene = try Scene(leader: nil)
    try scene.cluster.node(3).raw.step(Message(type: .heartbeat, to: 3, from: 2, term: 7))
    _ = try scene.cluster.drain(scene.cluster.node(3))
    let said = try scene.ignores(3) { try $0.raw.step(Message(type: type, to: 3, from: 1, term: 4)) }
    #expect(said == ["info 3 [term: 7] ignored a \(type.etcdName) message with lower term from 1 [term: 4]"])
  }

  @Test(arguments: [MessageType.append, .heartbeat])
  func anOldLeaderIsToldOfTheTermWhereNobodyListensToCampaigns(_ type: MessageType) throws {
    var scene = try Scene(leader: nil) { $0.checkQuorum = true }
    try scene.cluster.node(3).raw.step(Message(type: .heartbeat, to: 3, from: 2, term: 7))
    _ = try scene.cluster.drain(scene.cluster.node(3))
    try scene.cluster.node(3).raw.step(Message(type: type, to: 3, from: 1, term: 4))
    let answers = try scene.cluster.drain(scene.cluster.node(3))
    #expect(answers.map(\.type) == [.appendResponse] && answers[0].to == 1 && answers[0].term == 7)
  }

  @Test func anOldPreVoteIsAnswered() throws {
    var scene = try Scene(leader: nil)
    try scene.cluster.node(3).raw.step(Message(type: .heartbeat, to: 3, from: 2, term: 7))
    _ = try scene.cluster.drain(scene.cluster.node(3))
    try scene.cluster.node(3).raw.step(Message(type: .preVote, to: 3, from: 1, term: 4))
    let answers = try scene.cluster.drain(scene.cluster.node(3))
    #expect(answers.map(\.type) == [.preVoteResponse] && answers[0].reject && answers[0].term == 7)
  }

  @Test func storageThatSpeaksOfAnOlderTerm() throws {
    var scene = try Scene(voters: [1, 2], leader: nil) { $0.asynchronousStorageWrites = true }
    let node = scene.cluster.node(1)
    try node.raw.step(Message(type: .heartbeat, to: 1, from: 2, term: 3))
    var done = Message(type: .storageAppendResponse, to: 1, from: .appendThread, term: 2)
    (done.index, done.logTerm) = (5, 2)
    let said = try scene.ignores(1) { try $0.raw.step(done) }
    #expect(
      said == [
        "info 1 [term: 3] ignored entry appends from a MsgStorageAppendResp message with lower term [term: 2]"
      ])
    // Of the present term, but of an entry that is not there.
    (done.term, done.logTerm) = (3, 3)
    #expect(
      try scene.ignores(1) { try $0.raw.step(done) } == ["info entry at index 5 missing from unstable log; ignoring"])
  }

  // MARK: Snapshots

  private func snapshot(_ index: LogIndex, voters: [NodeID] = [1, 2, 3], to: NodeID = 2) -> Message {
    var message = Message(type: .snapshot, to: to, from: 1, term: 1)
    let metadata = SnapshotMetadata(index: index, term: 1, configuration: ConfigurationState(voters: voters))
    message.attachment = MessageAttachment(snapshot: Snapshot(metadata: metadata))
    return message
  }

  @Test func aSnapshotOlderThanTheLog() throws {
    var scene = try Scene()
    for _ in 0..<4 { try scene.cluster.propose("x", at: 1) }
    try scene.cluster.settle()
    scene.lines.lines = []
    try scene.cluster.node(2).raw.step(snapshot(3))
    #expect(scene.lines.lines == ["info 2 [commit: 5] ignored snapshot [index: 3, term: 1]"])
    #expect(scene.cluster.node(2).raw.lastIndex == 5 && scene.cluster.node(2).raw.firstIndex == 1)
    // The leader learns where the log ends instead.
    #expect(try scene.cluster.drain(scene.cluster.node(2)).map(\.index) == [5])
  }

  @Test func aSnapshotWithoutThisNode() throws {
    let scene = try Scene()
    try scene.cluster.node(2).raw.step(snapshot(30, voters: [1, 3]))
    #expect(
      scene.lines.lines.first
        == "warning 2 attempted to restore snapshot but it is not in the ConfState Voters:[1 3] VotersOutgoing:[] "
        + "Learners:[] LearnersNext:[] AutoLeave:false; should never happen")
    #expect(scene.cluster.node(2).raw.lastIndex == 1 && scene.cluster.node(2).raw.membership.voters == [1, 2, 3])
  }

  @Test func aSnapshotOfWhatTheLogHoldsMovesTheCommitIndexOnly() throws {
    var scene = try Scene()
    scene.cluster.passes = { $0.type != .appendResponse }
    for _ in 0..<4 { try scene.cluster.propose("x", at: 1) }
    try scene.cluster.settle()
    #expect(scene.cluster.node(2).raw.commit == 1 && scene.cluster.node(2).raw.lastIndex >= 2)
    let last = scene.cluster.node(2).raw.lastIndex
    try scene.cluster.node(2).raw.step(snapshot(last))
    #expect(scene.cluster.node(2).raw.commit == last && scene.cluster.node(2).raw.firstIndex == 1)
  }

  @Test func aLeaderTakesNoSnapshotOfItsOwnTerm() throws {
    var scene = try Scene()
    var message = snapshot(30, to: 1)
    message.from = 2
    #expect(try scene.ignores(1) { try $0.raw.step(message) } == [])
  }

  // MARK: Campaigns and transfers

  @Test func whoCannotLeadDoesNotCampaign() throws {
    var scene = try Scene(voters: [1, 2], learners: [3])
    let unpromotable = ["warning 3 is unpromotable and can not campaign"]
    #expect(try scene.ignores(3) { try $0.raw.campaign() } == unpromotable)
    var told = try scene.ignores(3) { try $0.raw.step(Message(type: .timeoutNow, to: 3, from: 1, term: 1)) }
    #expect(told.popLast() == unpromotable[0])
    #expect(
      scene.ignores(1) { $0.raw.transferLeadership(to: 3) } == ["debug 1 is learner. Ignored transferring leadership"])
    #expect(try scene.ignores(1) { try $0.raw.campaign() } == ["debug 1 ignoring MsgHup because already leader"])
    #expect(
      scene.ignores(1) { $0.raw.transferLeadership(to: 1) }
        == ["debug 1 is already leader. Ignored transferring leadership to self"])
  }

  @Test func aTransferIsAskedForOnce() throws {
    var scene = try Scene()
    scene.cluster.node(1).raw.transferLeadership(to: 2)
    #expect(
      scene.ignores(1) { $0.raw.transferLeadership(to: 2) } == [
        "info 1 [term 1] transfer leadership to 2 is in progress, ignores request to same node 2"
      ])
  }

  @Test func withoutALeaderNothingIsPassedOn() throws {
    var scene = try Scene(leader: nil)
    #expect(
      scene.ignores(1) { $0.raw.transferLeadership(to: 2) } == [
        "info 1 no leader at term 0; dropping leader transfer msg"
      ])
    #expect(throws: RaftError.proposalDropped(.noLeader)) { try scene.cluster.propose("x", at: 1) }
  }

  // MARK: Changes of membership

  @Test func aChangeThatIsNoneIsNotProposed() throws {
    var scene = try Scene()
    var builder = EntryBatchBuilder(capacity: 256)
    builder.append(kind: .normal, payload: [1])
    builder.append(kind: .configurationChangeV2, payload: [9, 9, 9, 9])
    let batch = builder.finish()
    _ = scene.ignores(1) { node in
      #expect(throws: RaftError.proposalDropped(.invalidPayload)) { try node.raw.propose(batch) }
    }
    // Neither from another node.
    var forwarded = Message(type: .propose, to: 1, from: 2)
    forwarded.entries = batch
    _ = scene.ignores(1) { node in
      #expect(throws: RaftError.proposalDropped(.invalidPayload)) { try node.raw.step(forwarded) }
    }
  }

  @Test func aSecondChangeBecomesAnEmptyEntry() throws {
    let scene = try Scene()
    try scene.cluster.node(1).raw.propose(ConfigurationChange(MemberChange(.addVoter, 4)))
    scene.lines.lines = []
    try scene.cluster.node(1).raw.propose(ConfigurationChange(MemberChange(.addVoter, 5)))
    #expect(
      scene.lines.lines == [
        "info 1 ignoring conf change transition:ConfChangeTransitionAuto changes:{type:ConfChangeAddNode node_id:5} "
          + "at config voters=(1 2 3): possible unapplied conf change at index 2 (applied to 1)"
      ])
    let last = scene.cluster.node(1).raw.lastIndex
    #expect(
      RaftDescription.entries(scene.cluster.node(1).raw.entries(from: last, through: last)) == "1/3 EntryNormal \"\"\n")
  }

  @Test func changesThatCannotFollowAJointConfiguration() throws {
    let scene = try Scene()
    let node = scene.cluster.node(1)
    try node.raw.applyConfigurationChange(
      ConfigurationChangeV2(transition: .jointExplicit, changes: [MemberChange(.addVoter, 4)]))
    let joint = "voters=(1 2 3 4)&&(1 2 3)"
    #expect(node.raw.membership.description == joint)
    #expect(throws: RaftError.invalidMembership("can't apply simple config change in joint config")) {
      try node.raw.applyConfigurationChange(ConfigurationChange(MemberChange(.addVoter, 5)))
    }
    #expect(throws: RaftError.invalidMembership("config is already joint")) {
      try node.raw.applyConfigurationChange(
        ConfigurationChangeV2(transition: .jointImplicit, changes: [MemberChange(.remove, 3)]))
    }
    #expect(node.raw.membership.description == joint)
    try node.raw.applyConfigurationChange(ConfigurationChangeV2())
    #expect(node.raw.membership.description == "voters=(1 2 3 4)")
  }

  @Test func logEntriesThatAreStillNeededAreNotDropped() throws {
    let scene = try Scene(voters: [1])
    let node = scene.cluster.node(1)
    try scene.cluster.propose("x", at: 1)
    node.raw.compact(through: 99)
    #expect(node.raw.firstIndex <= node.raw.applied + 1 && node.raw.lastIndex == 2)
    #expect(node.raw.term(at: 2) == 1)
  }

  // MARK: Broken invariants

  @Test func theProcessStopsWhereTheDriverBreaksTheContractAndSaysWhy() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let cluster = try TestCluster(voters: [1])
      try cluster.node(1).raw.campaign()
      var ready = Ready()
      cluster.node(1).raw.ready(into: &ready)
      cluster.node(1).raw.ready(into: &ready)
    }
    let said = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(said.contains("Raft invariant broken: two accepted Ready structs without call to Advance"))
  }

  @Test func advanceBelongsToSynchronousStorage() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let cluster = try TestCluster(voters: [1]) { $0.asynchronousStorageWrites = true }
      cluster.node(1).raw.advance(Ready())
    }
    let said = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(said.contains("Advance must not be called when using AsyncStorageWrites"))
  }
}
