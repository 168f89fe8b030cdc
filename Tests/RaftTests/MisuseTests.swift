@_spi(Testing) import Raft
import Testing
import WeirCore

/// Wrong use and broken input are refused by a typed error or ignored, and leave the state as it was.
@Suite struct MisuseTests {
  private func batch(_ terms: [Term], first: LogIndex, firstTerm: Term = 0) -> EntryBatch {
    var log = LogBuffer(anchorIndex: first - 1, anchorTerm: firstTerm)
    for term in terms { log.append(term: term, payload: [1].span.bytes) }
    return log.batch(from: first, through: first + UInt64(terms.count) - 1)
  }

  private func isMalformed(_ body: () throws -> Void) -> Bool {
    do {
      try body()
      return false
    } catch RaftError.malformedMessage {
      return true
    } catch {
      return false
    }
  }

  @Test func localMessagesFromTheNetworkAreRefused() throws {
    let cluster = try TestCluster(voters: [1, 2, 3])
    for type in MessageType.allCases where type.isLocal {
      #expect(throws: RaftError.stepLocalMessage) { try cluster.node(1).raw.step(Message(type: type, to: 1, from: 2)) }
    }
    #expect(cluster.node(1).raw.role == .follower)
    #expect(RaftError.stepLocalMessage.description == "raft: cannot step raft local message")
  }

  @Test func responsesOfStrangersAreRefused() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    for type in MessageType.allCases where type.isResponse && !type.isLocal {
      #expect(throws: RaftError.stepPeerNotFound) {
        try cluster.node(1).raw.step(Message(type: type, to: 1, from: 9, term: 99))
      }
    }
    #expect(cluster.node(1).raw.role == .leader)
    #expect(cluster.node(1).raw.term == 1)
    #expect(RaftError.stepPeerNotFound.description == "raft: cannot step as peer not found")
  }

  @Test func impossibleNumbersAreRefused() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    let follower = cluster.node(2)
    let before = follower.raw.hardState
    #expect(isMalformed { try follower.raw.step(Message(type: .append, to: 2, from: 1, term: .max)) })
    #expect(isMalformed { try follower.raw.step(Message(type: .append, to: 2, from: 1)) }, "an append without a term")
    for field: WritableKeyPath<Message, UInt64> in [\.index, \.logTerm, \.commit, \.rejectHint] {
      var message = Message(type: .heartbeat, to: 2, from: 1, term: 1)
      message[keyPath: field] = .max
      #expect(isMalformed { try follower.raw.step(message) })
    }
    #expect(follower.raw.hardState == before)
  }

  @Test func aHeartbeatBeyondTheLogIsRefused() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    var heartbeat = Message(type: .heartbeat, to: 2, from: 1, term: 1)
    heartbeat.commit = 50
    #expect(isMalformed { try cluster.node(2).raw.step(heartbeat) })
    #expect(cluster.node(2).raw.commit == 1)
  }

  @Test func anAcknowledgementBeyondTheLogIsRefused() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    var answer = Message(type: .appendResponse, to: 1, from: 2, term: 1)
    answer.index = 50
    #expect(isMalformed { try cluster.node(1).raw.step(answer) })
    #expect(cluster.node(1).raw.progress[1].match == 1)
  }

  @Test func entriesThatCannotFollowAreRefused() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    let follower = cluster.node(2)
    var gap = Message(type: .append, to: 2, from: 1, term: 1)
    (gap.index, gap.logTerm) = (1, 1)
    gap.entries = batch([1, 1], first: 3, firstTerm: 1)
    #expect(isMalformed { try follower.raw.step(gap) }, "a hole between the previous entry and the first")
    var future = gap
    future.entries = batch([5], first: 2, firstTerm: 1)
    #expect(isMalformed { try follower.raw.step(future) }, "a term above the leader's")
    var falling = Message(type: .append, to: 2, from: 1, term: 9)
    (falling.index, falling.logTerm) = (1, 8)
    falling.entries = batch([3], first: 2)
    #expect(isMalformed { try follower.raw.step(falling) }, "a term below the previous entry's")
    #expect(follower.raw.lastIndex == 1)
  }

  @Test func committedEntriesAreNotReplaced() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    for text in ["a", "b"] {
      try cluster.propose(text, at: 1)
      try cluster.settle()
    }
    let follower = cluster.node(2)
    #expect(follower.raw.commit == 3)
    var conflicting = Message(type: .append, to: 2, from: 3, term: 7)
    conflicting.entries = batch([1, 1, 7], first: 1)
    // Older than what is committed: answered with the commit index.
    try follower.raw.step(conflicting)
    #expect(follower.raw.lastTerm == 1)
    #expect(follower.raw.lastIndex == 3)
  }

  @Test func anOldSnapshotIsIgnored() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.elect(1)
    for _ in 0..<5 { try cluster.propose("x", at: 1) }
    try cluster.settle()
    let follower = cluster.node(2)
    var message = Message(type: .snapshot, to: 2, from: 1, term: 1)
    message.attachment = MessageAttachment(
      snapshot: Snapshot(
        metadata: SnapshotMetadata(index: 2, term: 1, configuration: ConfigurationState(voters: [1, 2, 3]))))
    try follower.raw.step(message)
    #expect(follower.raw.lastIndex == 6)
    let answers = try cluster.drain(follower)
    #expect(answers.map(\.index) == [6])
  }

  @Test func aSnapshotWithAnImpossibleMembershipIsRefused() throws {
    let cluster = try TestCluster(voters: [1, 2, 3])
    let impossible = [
      ConfigurationState(voters: [1, 2], learners: [2]),
      ConfigurationState(voters: [1, 2], autoLeave: true),
      ConfigurationState(voters: [2], learnersNext: [1]),
      ConfigurationState(voters: [2, 2]),
    ]
    for members in impossible {
      var message = Message(type: .snapshot, to: 2, from: 1, term: 1)
      message.attachment = MessageAttachment(
        snapshot: Snapshot(metadata: SnapshotMetadata(index: 9, term: 1, configuration: members)))
      #expect(throws: RaftError.self) { try cluster.node(2).raw.step(message) }
      #expect(cluster.node(2).raw.lastIndex == 0)
      #expect(cluster.node(2).raw.membership.voters == [1, 2, 3])
    }
  }

  @Test func changesThatCannotFollowAreRefused() throws {
    let cluster = try TestCluster(voters: [1, 2, 3])
    let node = cluster.node(1)
    #expect(throws: RaftError.invalidMembership("can't leave a non-joint config")) {
      try node.raw.applyConfigurationChange(ConfigurationChangeV2())
    }
    let all = [MemberChange(.remove, 1), MemberChange(.remove, 2), MemberChange(.remove, 3)]
    #expect(throws: RaftError.invalidMembership("removed all voters")) {
      try node.raw.applyConfigurationChange(ConfigurationChangeV2(changes: all))
    }
    #expect(node.raw.membership.description == "voters=(1 2 3)")
  }

  @Test func settingsThatCannotWorkAreRefused() throws {
    func isRefused(_ configure: (inout RaftConfiguration) -> Void) -> Bool {
      var configuration = RaftConfiguration(id: 1)
      configure(&configuration)
      do throws(RaftError) {
        try configuration.validate()
        return false
      } catch { return true }
    }
    #expect(!isRefused { _ in })
    #expect(isRefused { $0 = RaftConfiguration(id: 0) })
    #expect(isRefused { $0 = RaftConfiguration(id: .max) })
    #expect(isRefused { $0.heartbeatTicks = 0 })
    #expect(isRefused { $0.electionTicks = 1 })
    #expect(isRefused { $0.maximumInflightMessages = 0 })
    #expect(isRefused { $0.maximumInflightBytes = 1 })
    #expect(isRefused { $0.maximumUncommittedBytes = -1 })
    #expect(isRefused { $0.readMode = .leaseBased })
  }

  @Test func storageThatContradictsItselfIsRefused() throws {
    #expect(throws: RaftError.self) {
      _ = try RawNode(
        configuration: RaftConfiguration(id: 1), log: LogBuffer(), hardState: HardState(term: 1, commit: 5))
    }
    #expect(throws: RaftError.self) {
      _ = try RawNode(configuration: RaftConfiguration(id: 1), log: LogBuffer(), applied: 3)
    }
  }

  @Test func proposalsAreRefusedWithAReason() throws {
    var cluster = try TestCluster(voters: [1, 2, 3]) {
      $0.disableProposalForwarding = true
      $0.maximumUncommittedBytes = 64
    }
    #expect(throws: RaftError.proposalDropped(.noLeader)) { try cluster.propose("x", at: 1) }
    try cluster.elect(1)
    #expect(throws: RaftError.proposalDropped(.forwardingDisabled(leader: 1))) { try cluster.propose("x", at: 2) }
    #expect(throws: RaftError.proposalDropped(.invalidPayload)) { try cluster.node(1).raw.propose(EntryBatch()) }
    cluster.passes = { _ in false }
    try cluster.node(1).raw.propose(payload: [UInt8](repeating: 0, count: 64).span.bytes)
    #expect(throws: RaftError.proposalDropped(.uncommittedLimit)) { try cluster.propose("x", at: 1) }
    cluster.node(1).raw.transferLeadership(to: 2)
    #expect(throws: RaftError.proposalDropped(.transferInProgress(to: 2))) { try cluster.propose("x", at: 1) }
  }

  /// What comes from elsewhere can be anything that has the shape of a message; nothing of it may stop the process.
  @Test func randomMessagesNeverTrap() throws {
    for seed in UInt64(1)...300 {
      var random = SplitMix64(seed: seed)
      var cluster = try TestCluster(voters: [1, 2, 3], learners: [4]) {
        $0.preVote = seed % 2 == 0
        $0.checkQuorum = seed % 3 == 0
      }
      if seed % 2 == 1 { try cluster.elect(1) }
      let node = cluster.node(1)
      for _ in 0..<200 {
        var message = Message(
          type: MessageType.allCases.randomElement(using: &random) ?? .append, to: 1,
          from: UInt64.random(in: 0...5, using: &random), term: small(&random))
        (message.index, message.logTerm, message.commit) = (small(&random), small(&random), small(&random))
        (message.rejectHint, message.context) = (small(&random), small(&random))
        message.reject = Bool.random(using: &random)
        message.isLeadershipTransfer = Bool.random(using: &random)
        if Bool.random(using: &random) {
          let terms = (0..<Int.random(in: 1...4, using: &random)).map { _ in Term.random(in: 1...9, using: &random) }
          message.entries = batch(terms.sorted(), first: UInt64.random(in: 1...9, using: &random))
        }
        if message.type == .snapshot {
          let members = ConfigurationState(voters: [1, UInt64.random(in: 0...5, using: &random)])
          message.attachment = MessageAttachment(
            snapshot: Snapshot(
              metadata: SnapshotMetadata(index: small(&random), term: small(&random), configuration: members)))
        }
        try? node.raw.step(message)
        if Int.random(in: 0..<4, using: &random) == 0 { _ = try cluster.drain(node) }
        if Int.random(in: 0..<8, using: &random) == 0 { node.raw.tick() }
      }
    }
  }

  private func small(_ random: inout SplitMix64) -> UInt64 {
    UInt64.random(in: 0..<40, using: &random) == 0 ? random.next() : UInt64.random(in: 0...12, using: &random)
  }
}
