import Raft
import WeirCore

extension HotPaths {
  static let raftCore: [HotPath] = [
    HotPath(
      name: "raft-commit-64x128B", suite: .raftCore,
      operation: "one of 64 entries proposed, replicated to two followers by call, committed and applied by all",
      payloadBytes: Shape.payloadBytes, isAllocationFree: false, reference: nil,
      makeWorkload: { RaftCluster(batch: 64) }
    ),
    HotPath(
      name: "raft-commit-1x128B", suite: .raftCore,
      operation: "one entry proposed alone, replicated to two followers by call, committed and applied by all",
      payloadBytes: Shape.payloadBytes, isAllocationFree: false, reference: nil, makeWorkload: { RaftCluster(batch: 1) }
    ),
  ]
}

/// Three cores in one process that hand each other their messages by function call: no sockets, no disk, no clock.
private final class RaftCluster: Workload {
  private final class Member {
    var node: RawNode
    var ready = Ready()

    init?(id: NodeID, voters: [NodeID]) {
      var configuration = RaftConfiguration(id: id)
      configuration.randomSeed = 1
      do {
        node = try RawNode(
          configuration: configuration, log: LogBuffer(), configurationState: ConfigurationState(voters: voters))
      } catch {
        return nil
      }
    }
  }

  let operationsPerStep: Int
  private var members: [Member]
  private var inbox: [Message] = []
  private var outbox: [Message] = []
  private let proposals: EntryBatch

  init(batch: Int) {
    operationsPerStep = batch
    proposals = Shape.proposals(batch)
    members = [1, 2, 3].compactMap { Member(id: $0, voters: [1, 2, 3]) }
    precondition(members.count == 3, "three members start from nothing")
    try? members[0].node.campaign()
    settle()
    precondition(members[0].node.role == .leader, "who campaigns alone is elected")
  }

  func step() {
    do { try members[0].node.propose(proposals) } catch { preconditionFailure("a leader takes proposals: \(error)") }
    settle()
    let leader = members[0]
    precondition(leader.node.applied == leader.node.lastIndex, "what was proposed is applied")
    if leader.node.lastIndex - leader.node.firstIndex > 1 << 14 {
      for member in members { member.node.compact(through: member.node.applied - 1) }
    }
  }

  /// Handles everything that is ready and delivers every message, until nobody has anything to say.
  private func settle() {
    var isBusy = true
    while isBusy {
      isBusy = false
      for member in members where member.node.hasReady {
        isBusy = true
        member.node.ready(into: &member.ready)
        outbox.append(contentsOf: member.ready.messages)
        member.node.advance(member.ready)
      }
      swap(&inbox, &outbox)
      for message in inbox {
        isBusy = true
        try? members[Int(message.to) - 1].node.step(message)
      }
      inbox.removeAll(keepingCapacity: true)
    }
  }
}
