/// A rule that must hold after every event, or at the end of a run.
public enum Invariant: String, Sendable, Hashable, CaseIterable {
  /// At most one leader in a term (Raft paper, figure 3).
  case electionSafety = "election safety"
  /// A leader never overwrites or deletes entries of its own log (figure 3).
  case leaderAppendOnly = "leader append-only"
  /// Two logs with an entry of the same index and term are equal up to it (figure 3).
  case logMatching = "log matching"
  /// A committed entry is in the logs of the leaders of all later terms (figure 3).
  case leaderCompleteness = "leader completeness"
  /// No two nodes apply different entries at one index (figure 3), none is skipped or applied twice.
  case stateMachineSafety = "state machine safety"
  /// A node's commit index never goes back, and never beyond its log.
  case commitMonotonic = "commit monotonic"
  /// A node's term never goes back, restarts included.
  case termMonotonic = "term monotonic"
  /// A node votes once in a term, restarts included.
  case oneVotePerTerm = "one vote per term"
  /// A vote or an acknowledgement leaves only when what it promises is durable.
  case durableBeforeSend = "durable before send"
  /// What a leader commits is durable on a quorum of its configuration.
  case committedIsDurable = "committed is durable"
  /// With asynchronous storage, a node applies only what is durable on its own disk.
  case appliedIsDurable = "applied is durable"
  /// Consecutive configurations have intersecting quorums, and all nodes agree on them.
  case configurationSafety = "configuration safety"
  /// What was made durable is there after a restart, and nothing else that contradicts it.
  case recovery = "recovery"
  /// The history of the clients' operations is linearizable.
  case linearizability = "linearizability"
  /// Once faults stop, a leader is elected, replicas become equal and operations succeed.
  case liveness = "liveness"
  /// The core refused its input as broken although its peers are not.
  case coreError = "core error"
}

/// What was broken, when, by whom.
public struct Violation: Error, Sendable, Hashable, CustomStringConvertible {
  public var invariant: Invariant
  public var detail: String
  /// Virtual time in nanoseconds.
  public var timeNanoseconds: UInt64

  public init(_ invariant: Invariant, _ detail: String, timeNanoseconds: UInt64 = 0) {
    self.invariant = invariant
    self.detail = detail
    self.timeNanoseconds = timeNanoseconds
  }

  public var description: String {
    "\(invariant.rawValue) broken at \(milliseconds(timeNanoseconds)): \(detail)"
  }
}

/// A time in milliseconds with three digits, as traces print it.
func milliseconds(_ nanoseconds: UInt64) -> String {
  let micro = nanoseconds / 1000
  let fraction = String(micro % 1000)
  return "\(micro / 1000).\(String(repeating: "0", count: 3 - fraction.count))\(fraction) ms"
}
