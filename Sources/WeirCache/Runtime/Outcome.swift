import WeirCore

/// How a proposal ended, in a byte.
@frozen
public enum Outcome: UInt8, Sendable, CaseIterable {
  /// Applied; the key was not there before.
  case appliedFresh = 0
  /// Applied; the key was there before.
  case appliedExisting = 1
  /// Committed, but no command that the state machine knows: it changed nothing.
  case refused = 2
  /// This node is not the leader: the proposal never entered a log.
  case notLeader = 3
  /// The leadership ended while the proposal was under way: it may be applied or not, now or later.
  case leadershipLost = 4
  /// Too much is under way already: the proposal never entered a log.
  case overloaded = 5
  /// The node is stopping; a proposal that was under way may be applied or not.
  case shutdown = 6
  /// There is no space for the log to go on: the proposal never entered it.
  case outOfSpace = 7
  /// Committed; its condition was not met, so it changed nothing.
  case conditionUnmet = 8
  /// Committed; what it should increment is no number, so it changed nothing.
  case notANumber = 9
  /// Committed; the sum would be no 64-bit number, so it changed nothing.
  case overflow = 10
  /// Applied; it has a number as its result, which comes beside this.
  case appliedNumber = 11

  /// Whether the proposal went through the log, and had what effect it can have.
  @inlinable public var isApplied: Bool { rawValue <= 2 || rawValue >= 8 }
  /// Whether the proposal is known to have had no effect, now and for ever.
  @inlinable public var hadNoEffect: Bool { self == .notLeader || self == .overloaded || self == .outOfSpace }
}

/// A proposal's token and outcome in one word: what travels back to who proposed it.
@frozen
public struct LaneCompletion: Sendable {
  @usableFromInline let word: UInt64

  @inlinable
  public init(token: UInt32, outcome: Outcome) { word = UInt64(token) | UInt64(outcome.rawValue) << 32 }

  @inlinable
  init(word: UInt64) { self.word = word }

  @inlinable public var token: UInt32 { UInt32(truncatingIfNeeded: word) }
  @inlinable public var outcome: Outcome { Outcome(rawValue: UInt8(truncatingIfNeeded: word >> 32)) ?? .leadershipLost }
}
