import WeirCore

/// What a tracer is told: the events of etcd/raft's TLA+ trace validation, with the state after them at hand.
public enum TraceEvent: Sendable, Hashable {
  case initState
  case becomeFollower
  case becomePreCandidate
  case becomeCandidate
  case becomeLeader
  /// Own entries were appended.
  case replicate(count: Int)
  /// The leader's commit index moved.
  case commit
  /// A configuration change was proposed to the log, or refused and replaced by an empty entry.
  case changeConfiguration(refused: Bool)
  case applyConfigurationChange
  case ready
  case send(MessageType, to: NodeID)
  case receive(MessageType, from: NodeID)
}

/// Receives the protocol's events in order, for checking them against a model.
public protocol RaftTracer: AnyObject {
  /// - Parameters:
  ///   - hardState: after the event.
  ///   - lastIndex: after the event.
  func trace(_ event: TraceEvent, id: NodeID, role: Role, hardState: HardState, lastIndex: LogIndex)
}

extension RawNode {
  @inline(__always)
  func trace(_ event: TraceEvent) {
    if tracer != nil { emit(event) }
  }

  @inline(never)
  private func emit(_ event: TraceEvent) {
    tracer?.trace(event, id: id, role: role, hardState: hardState, lastIndex: log.lastIndex)
  }
}
