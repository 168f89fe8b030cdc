import Raft
import Testing
import WeirCore

/// Each of the 24 message types does what it is for.
@Suite struct MessageTypeTests {
  /// What a node has to say after a step.
  private func answers(_ cluster: inout TestCluster, _ id: NodeID, to message: Message) throws -> [Message] {
    try cluster.node(id).raw.step(message)
    return try cluster.drain(cluster.node(id))
  }

  private func led(
    by id: NodeID = 1, voters: [NodeID] = [1, 2, 3], configure: (inout RaftConfiguration) -> Void = { _ in }
  ) throws -> TestCluster {
    var cluster = try TestCluster(voters: voters, configure: configure)
    try cluster.elect(id)
    cluster.sent = []
    return cluster
  }

  private func entries(_ payloads: [String], term: Term, behind index: LogIndex, _ indexTerm: Term) -> EntryBatch {
    var log = LogBuffer(anchorIndex: index, anchorTerm: indexTerm)
    for payload in payloads { _ = log.append(term: term, kind: .normal, payload: Array(payload.utf8).span.bytes) }
    return log.batch(from: index + 1, through: log.lastIndex)
  }

  @Test(arguments: MessageType.allCases)
  func doesWhatItIsFor(_ type: MessageType) throws {
    switch type {
    case .hup: try hup()
    case .beat: try beat()
    case .propose: try propose()
    case .append, .appendResponse: try append()
    case .vote, .voteResponse: try vote()
    case .preVote, .preVoteResponse: try preVote()
    case .snapshot: try snapshot()
    case .heartbeat, .heartbeatResponse: try heartbeat()
    case .unreachable: try unreachable()
    case .snapshotStatus: try snapshotStatus()
    case .checkQuorum: try checkQuorum()
    case .transferLeader, .timeoutNow: try transfer()
    case .readIndex, .readIndexResponse: try readIndex()
    case .storageAppend, .storageAppendResponse, .storageApply, .storageApplyResponse: try storage()
    case .forgetLeader: try forgetLeader()
    }
  }

  private func hup() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.node(1).raw.campaign()
    #expect(cluster.node(1).raw.role == .candidate && cluster.node(1).raw.term == 1 && cluster.node(1).raw.vote == 1)
    #expect(try cluster.drain(cluster.node(1)).map(\.type) == [.vote, .vote])
    var timing = try TestCluster(voters: [1, 2, 3])
    timing.node(2).raw.randomizedElectionTimeoutTicks = 12
    for _ in 0..<11 { timing.node(2).raw.tick() }
    #expect(timing.node(2).raw.role == .follower)
    timing.node(2).raw.tick()
    #expect(timing.node(2).raw.role == .candidate)
    _ = try timing.drain(timing.node(2))
  }

  private func beat() throws {
    var cluster = try led { $0.heartbeatTicks = 2 }
    cluster.node(1).raw.tick()
    #expect(try cluster.drain(cluster.node(1)).isEmpty)
    cluster.node(1).raw.tick()
    #expect(try cluster.drain(cluster.node(1)).map(\.type) == [.heartbeat, .heartbeat])
  }

  private func propose() throws {
    var cluster = try led()
    try cluster.propose("x", at: 3)
    let forwarded = try cluster.drain(cluster.node(3))
    #expect(forwarded.map(\.type) == [.propose] && forwarded[0].to == 1 && forwarded[0].term == 0)
    let appends = try answers(&cluster, 1, to: forwarded[0])
    #expect(cluster.node(1).raw.lastIndex == 2)
    #expect(appends.filter { $0.type == .append && $0.entries.count == 1 }.map(\.to) == [2, 3])
  }

  private func append() throws {
    var cluster = try led()
    try cluster.propose("x", at: 1)
    let leader = cluster.node(1)
    let append = try #require(try cluster.drain(leader).first { $0.to == 2 })
    #expect(append.index == 1 && append.logTerm == 1 && append.commit == 1)
    let answer = try answers(&cluster, 2, to: append)
    #expect(answer.map(\.type) == [.appendResponse] && answer[0].index == 2 && !answer[0].reject)
    #expect(cluster.node(2).raw.lastIndex == 2 && cluster.node(2).raw.commit == 1)
    try leader.raw.step(answer[0])
    #expect(leader.raw.commit == 2 && leader.raw.progress[1].match == 2)
    // Behind something that is not there: refused, with a hint.
    var gap = Message(type: .append, to: 3, from: 1, term: 1)
    (gap.index, gap.logTerm) = (9, 1)
    let refusal = try answers(&cluster, 3, to: gap)
    #expect(refusal.map(\.reject) == [true] && refusal[0].index == 9 && refusal[0].rejectHint == 1)
    try leader.raw.step(refusal[0])
    #expect(leader.raw.progress[2].next > leader.raw.progress[2].match)
  }

  private func vote() throws {
    var cluster = try TestCluster(voters: [1, 2, 3])
    try cluster.node(1).raw.campaign()
    let request = try #require(try cluster.drain(cluster.node(1)).first { $0.to == 2 })
    #expect(request.type == .vote && request.term == 1)
    let grant = try answers(&cluster, 2, to: request)
    #expect(grant.map(\.type) == [.voteResponse] && !grant[0].reject && cluster.node(2).raw.vote == 1)
    // One vote a term.
    let other = Message(type: .vote, to: 2, from: 3, term: 1)
    #expect(try answers(&cluster, 2, to: other).map(\.reject) == [true])
    try cluster.node(1).raw.step(grant[0])
    #expect(cluster.node(1).raw.role == .leader)
    // Not for a shorter log.
    var full = try led()
    try full.propose("x", at: 1)
    try full.settle()
    var short = Message(type: .vote, to: 2, from: 3, term: 5)
    (short.index, short.logTerm) = (1, 1)
    #expect(try answers(&full, 2, to: short).map(\.reject) == [true])
    #expect(full.node(2).raw.term == 5 && full.node(2).raw.vote == .none)
  }

  private func preVote() throws {
    var cluster = try TestCluster(voters: [1, 2, 3]) { $0.preVote = true }
    try cluster.node(1).raw.campaign()
    let request = try #require(try cluster.drain(cluster.node(1)).first { $0.to == 2 })
    #expect(request.type == .preVote && request.term == 1)
    #expect(cluster.node(1).raw.role == .preCandidate && cluster.node(1).raw.term == 0)
    let grant = try answers(&cluster, 2, to: request)
    #expect(grant.map(\.type) == [.preVoteResponse] && grant[0].term == 1 && !grant[0].reject)
    #expect(cluster.node(2).raw.term == 0 && cluster.node(2).raw.vote == .none, "asking changes nothing")
    try cluster.node(1).raw.step(grant[0])
    #expect(cluster.node(1).raw.role == .candidate && cluster.node(1).raw.term == 1)
    _ = try cluster.drain(cluster.node(1))
  }

  private func snapshot() throws {
    let cluster = try led()
    var message = Message(type: .snapshot, to: 2, from: 1, term: 1)
    let members = ConfigurationState(voters: [1, 2, 3], learners: [4])
    message.attachment = MessageAttachment(
      snapshot: Snapshot(metadata: SnapshotMetadata(index: 20, term: 1, configuration: members), data: [7]))
    try cluster.node(2).raw.step(message)
    #expect(cluster.node(2).raw.lastIndex == 20 && cluster.node(2).raw.commit == 20)
    #expect(cluster.node(2).raw.membership.learners == [4])
    cluster.node(2).raw.ready(into: &cluster.node(2).ready)
    let ready = cluster.node(2).ready
    #expect(ready.snapshot?.data == [7] && ready.committedEntries.isEmpty)
    #expect(ready.messages.map(\.type) == [.appendResponse] && ready.messages[0].index == 20)
    cluster.node(2).raw.advance(ready)
    #expect(cluster.node(2).raw.applied == 20)
  }

  private func heartbeat() throws {
    var cluster = try led()
    cluster.node(1).raw.tick()
    let heartbeat = try #require(try cluster.drain(cluster.node(1)).first { $0.to == 3 })
    cluster.node(3).raw.tick()
    #expect(cluster.node(3).raw.electionElapsedTicks == 1)
    let answer = try answers(&cluster, 3, to: heartbeat)
    #expect(cluster.node(3).raw.electionElapsedTicks == 0)
    #expect(answer.map(\.type) == [.heartbeatResponse] && answer[0].context == heartbeat.context)
    // The answer lifts the pause of a probed member.
    cluster.node(1).raw.reportUnreachable(3)
    try cluster.propose("x", at: 1)
    _ = try cluster.drain(cluster.node(1))
    #expect(cluster.node(1).raw.progress[2].isAppendFlowPaused)
    #expect(try answers(&cluster, 1, to: answer[0]).contains { $0.type == .append && $0.to == 3 })
  }

  private func unreachable() throws {
    let cluster = try led()
    #expect(cluster.node(1).raw.progress[1].state == .replicate)
    cluster.node(1).raw.reportUnreachable(2)
    #expect(cluster.node(1).raw.progress[1].state == .probe)
    #expect(cluster.node(1).raw.progress[2].state == .replicate)
  }

  private func snapshotStatus() throws {
    for succeeded in [true, false] {
      var cluster = try led()
      let leader = cluster.node(1)
      cluster.passes = { $0.to != 3 }
      for _ in 0..<5 { try cluster.propose("x", at: 1) }
      try cluster.settle()
      let members = ConfigurationState(voters: [1, 2, 3])
      leader.raw.setAvailableSnapshot(
        Snapshot(metadata: SnapshotMetadata(index: 6, term: 1, configuration: members), data: [1]))
      leader.raw.compact(through: 6)
      leader.raw.reportUnreachable(3)
      leader.raw.tick()
      _ = try cluster.drain(leader)
      try leader.raw.step(Message(type: .heartbeatResponse, to: 1, from: 3, term: 1))
      #expect(try cluster.drain(leader).filter { $0.to == 3 }.map(\.type) == [.snapshot])
      #expect(leader.raw.progress[2].state == .snapshot && leader.raw.progress[2].pendingSnapshot == 6)
      leader.raw.reportSnapshot(3, succeeded: succeeded)
      #expect(leader.raw.progress[2].state == .probe && leader.raw.progress[2].isAppendFlowPaused)
      #expect(leader.raw.progress[2].next == (succeeded ? 7 : 2))
    }
  }

  private func checkQuorum() throws {
    let cluster = try led { $0.checkQuorum = true }
    for _ in 0..<10 { cluster.node(1).raw.tick() }
    #expect(cluster.node(1).raw.role == .leader, "heard from both in the first timeout")
    for _ in 0..<10 { cluster.node(1).raw.tick() }
    #expect(cluster.node(1).raw.role == .follower && cluster.node(1).raw.term == 1)
  }

  private func transfer() throws {
    var cluster = try led { ($0.preVote, $0.checkQuorum) = (true, true) }
    cluster.node(1).raw.transferLeadership(to: 3)
    #expect(cluster.node(1).raw.leadTransferee == 3)
    let now = try cluster.drain(cluster.node(1))
    #expect(now.map(\.type) == [.timeoutNow] && now[0].to == 3)
    let requests = try answers(&cluster, 3, to: now[0])
    #expect(requests.map(\.type) == [.vote, .vote] && requests.allSatisfy(\.isLeadershipTransfer))
    // A follower that hears from its leader grants it all the same.
    let grant = try answers(&cluster, 2, to: try #require(requests.first { $0.to == 2 }))
    #expect(grant.map(\.type) == [.voteResponse] && !grant[0].reject)
    // Asked for at a follower, it goes to the leader.
    var other = try led()
    other.node(2).raw.transferLeadership(to: 2)
    #expect(try other.drain(other.node(2)).map(\.type) == [.transferLeader])
  }

  private func readIndex() throws {
    var cluster = try led()
    cluster.node(2).raw.readIndex(context: 5)
    let request = try cluster.drain(cluster.node(2))
    #expect(request.map(\.type) == [.readIndex] && request[0].context == 5)
    let round = try answers(&cluster, 1, to: request[0])
    #expect(round.map(\.type) == [.heartbeat, .heartbeat])
    let heard = try answers(&cluster, 3, to: try #require(round.first { $0.to == 3 }))
    let answer = try answers(&cluster, 1, to: heard[0])
    #expect(answer.map(\.type) == [.readIndexResponse] && answer[0].to == 2 && answer[0].index == 1)
    _ = try answers(&cluster, 2, to: answer[0])
    #expect(cluster.node(2).readStates == [ReadState(index: 1, context: 5)])
  }

  /// With asynchronous storage, storing and applying are asked for and answered by messages to the two threads.
  private func storage() throws {
    var configuration = RaftConfiguration(id: 1)
    configuration.asynchronousStorageWrites = true
    let node = TestNode(
      try RawNode(
        configuration: configuration, log: LogBuffer(), configurationState: ConfigurationState(voters: [1])))
    try node.raw.campaign()
    node.raw.ready(into: &node.ready)
    let vote = try #require(node.ready.messages.first)
    #expect(vote.type == .storageAppend && vote.to == .appendThread && vote.term == 1 && vote.vote == 1)
    #expect(vote.responses.map(\.type) == [.voteResponse], "the own vote counts once it is stored")
    #expect(node.raw.role == .candidate)
    for response in vote.responses { try node.raw.step(response) }
    #expect(node.raw.role == .leader)
    node.raw.ready(into: &node.ready)
    let append = try #require(node.ready.messages.first)
    #expect(append.type == .storageAppend && append.entries.count == 1)
    #expect(append.responses.map(\.type) == [.appendResponse, .storageAppendResponse])
    #expect(node.raw.commit == 0, "nothing is committed before it is stored")
    for response in append.responses { try node.raw.step(response) }
    #expect(node.raw.commit == 1)
    node.raw.ready(into: &node.ready)
    let apply = try #require(node.ready.messages.last)
    #expect(apply.type == .storageApply && apply.to == .applyThread && apply.entries.lastIndex == 1)
    #expect(apply.responses.map(\.type) == [.storageApplyResponse] && node.raw.applied == 0)
    for response in apply.responses { try node.raw.step(response) }
    #expect(node.raw.applied == 1)
  }

  private func forgetLeader() throws {
    let cluster = try led()
    try cluster.node(2).raw.forgetLeader()
    #expect(cluster.node(2).raw.leader == .none && cluster.node(2).raw.term == 1)
    try cluster.node(1).raw.forgetLeader()
    #expect(cluster.node(1).raw.leader == 1 && cluster.node(1).raw.role == .leader)
  }
}
