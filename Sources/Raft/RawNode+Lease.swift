import WeirCore

/// What a leader's lease and a voter's promise rest on.
///
/// A voter that hears from a leader promises not to vote, and not to campaign, for an election timeout by its own clock.
/// A heartbeat round that a quorum answered was received by a quorum after it was sent, so no other leader can be elected
/// within an election timeout of its *sending*: any electing quorum has a member that promised. Counting from when the
/// answers came would be wrong: they may have been under way for long, and the promise began before they left.
struct LeaseState {
  /// When each of the last rounds was sent, by round modulo the count; empty unless leases are in use.
  private var sentNanoseconds: [UInt64] = []
  /// The newest round a quorum answered was sent then; nil without one.
  var startNanoseconds: UInt64?
  /// The target of a transfer was told to campaign: it will be elected in spite of the promises, whenever the message
  /// arrives. Nothing that happens in this term makes a lease right again.
  var isVoidForTerm = false
  /// This voter's promise to the leader holds until then.
  var promisedUntilNanoseconds: UInt64 = 0
  /// The promise that a restart made forget is counted from the first event whose time is known.
  var isRestartPromiseDue = false

  private static let rounds: UInt64 = 1024

  mutating func begin() {
    end()
    isVoidForTerm = false
  }

  mutating func end() { startNanoseconds = nil }

  mutating func sent(round: UInt64, at now: UInt64) {
    if sentNanoseconds.isEmpty { sentNanoseconds = Array(repeating: 0, count: Int(Self.rounds)) }
    sentNanoseconds[Int(round % Self.rounds)] = now
  }

  /// When `round` was sent, nil if it is too long ago to be known, or the time was not known then.
  func sendTime(of round: UInt64, last: UInt64) -> UInt64? {
    guard !sentNanoseconds.isEmpty, round > 0, round <= last, last - round < Self.rounds else { return nil }
    let time = sentNanoseconds[Int(round % Self.rounds)]
    return time == 0 ? nil : time
  }
}

extension RawNode {
  var electionTimeoutNanoseconds: UInt64 { UInt64(configuration.electionTicks) * configuration.tickNanoseconds }

  /// When the lease ends, by this node's clock; 0 if there is none. Only a leader that has committed in its term and is
  /// not handing over has one, and only if all nodes run with `refuseVotesWithinLease`.
  public var leaseExpiryNanoseconds: UInt64 {
    guard role == .leader, hasCommittedInTerm, let start = lease.startNanoseconds else { return 0 }
    if leadTransferee != .none || lease.isVoidForTerm {
      guard hasPlantedBugs, plantedBugs.contains(.leaseKeptDuringTransfer) else { return 0 }
    }
    return start &+ configuration.leaseNanoseconds
  }

  /// Whether a read that begins now may be answered from what is committed here, without asking anybody.
  public func holdsLease(at nowNanoseconds: UInt64) -> Bool {
    nowNanoseconds != 0 && nowNanoseconds < leaseExpiryNanoseconds
  }

  /// A quorum answered heartbeat round `round`, by the configuration now in force.
  mutating func extendLease(round: UInt64) {
    guard configuration.refuseVotesWithinLease else { return }
    if hasPlantedBugs && plantedBugs.contains(.leaseFromAnswer) {
      lease.startNanoseconds = nowNanoseconds
    } else if let time = lease.sendTime(of: round, last: reads.lastRound) {
      lease.startNanoseconds = time
    }
  }

  /// Notes that a leader was heard from.
  mutating func promiseLeader() {
    guard configuration.refuseVotesWithinLease, nowNanoseconds != 0 else { return }
    lease.promisedUntilNanoseconds = max(
      lease.promisedUntilNanoseconds, nowNanoseconds &+ electionTimeoutNanoseconds)
  }

  /// How long this node may still not vote, nil if it may.
  var remainingPromise: UInt64? {
    mutating get {
      guard configuration.refuseVotesWithinLease else { return nil }
      startRestartPromise()
      if lease.isRestartPromiseDue { return electionTimeoutNanoseconds }
      guard nowNanoseconds < lease.promisedUntilNanoseconds else { return nil }
      return lease.promisedUntilNanoseconds - nowNanoseconds
    }
  }

  /// What was promised before a restart is not known: behave as if it had been promised just now.
  mutating func startRestartPromise() {
    guard lease.isRestartPromiseDue, nowNanoseconds != 0 else { return }
    lease.isRestartPromiseDue = false
    if hasPlantedBugs && plantedBugs.contains(.promiseForgottenAtRestart) { return }
    lease.promisedUntilNanoseconds = nowNanoseconds &+ electionTimeoutNanoseconds
  }
}
