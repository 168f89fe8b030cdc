import Load

/// A target of processes without the questions that a frozen child would not answer.
final class LeaderOnly: Target {
  let name = "processes"
  private let target: ProcessTarget
  private let leader: ChildNode

  init(_ target: ProcessTarget, _ leader: ChildNode) {
    self.target = target
    self.leader = leader
  }

  func makeSession(worker: Int, readMode: ReadMode) throws -> any TargetSession {
    try ProcessSession(target: target, readMode: readMode, connectionCount: 1, leader: leader)
  }

  func counters() -> TargetCounters { TargetCounters() }
  func replicaHashes(deadlineNanoseconds: UInt64) throws -> [ReplicaHash] { [] }
  func shutdown() {}
}
