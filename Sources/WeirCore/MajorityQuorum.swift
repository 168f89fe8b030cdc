// Cost of one acknowledgement with n voters: one store, then one pass over n words in one or two cache lines without a
// data-dependent branch (count and minimum), no sorting, no allocation. Inlined into the caller: the call would cost as
// much as the work.

/// The commit index of one majority, kept up to date acknowledgement by acknowledgement.
///
/// Voters are slots 0 ..< `voterCount`; `JointQuorum` maps ids to slots. The rule: less than a quorum has ever gone past
/// the commit index (else the commit index would be further), so the acknowledgement that completes a quorum beyond it
/// makes the number of voters beyond it *exactly* a quorum, and the new commit index is the least of theirs. Finding
/// that takes one pass and no order.
@frozen
public struct MajorityQuorum: Sendable {
  /// Up to so many voters are held inside of the value itself.
  @inlinable public static var inlineVoters: Int { 9 }

  public let voterCount: Int
  /// The highest index that a majority has reached; `LogIndex.max` if nobody votes.
  @inlinable public var committedIndex: LogIndex { committed }

  @usableFromInline var committed: LogIndex

  @usableFromInline var few: InlineArray<9, LogIndex>
  @usableFromInline var many: [LogIndex]

  /// Nobody has acknowledged anything yet.
  public init(voterCount: Int) {
    precondition(voterCount >= 0, "a quorum has no negative number of voters")
    self.voterCount = voterCount
    committed = voterCount == 0 ? .max : 0
    few = InlineArray(repeating: 0)
    many = voterCount > Self.inlineVoters ? [LogIndex](repeating: 0, count: voterCount) : []
  }

  /// How many voters are a majority.
  @inlinable public var majority: Int { voterCount / 2 + 1 }

  /// What the voter in `slot` has acknowledged; 0 if nothing.
  @inlinable
  public subscript(slot: Int) -> LogIndex {
    precondition(slot >= 0 && slot < voterCount, "slot outside of the quorum")
    return voterCount <= Self.inlineVoters ? few[slot] : many[slot]
  }

  /// The voter in `slot` has everything up to `index`; less than it had before changes nothing.
  /// - Returns: the new commit index if that moved it.
  @inlinable
  public mutating func acknowledge(slot: Int, index: LogIndex) -> LogIndex? {
    precondition(slot >= 0 && slot < voterCount, "slot outside of the quorum")
    let known = self[slot]
    if index <= known { return nil }
    store(index, in: slot)
    // A voter that was beyond the commit index already does not complete a quorum by going further.
    if index <= committed || known > committed { return nil }
    let beyond = beyondCommit()
    if beyond.count < majority { return nil }
    committed = beyond.least
    return committed
  }

  /// Sets what the voter in `slot` has, down as well as up, as when a leader starts its term; the commit index
  /// follows.
  public mutating func set(slot: Int, index: LogIndex) {
    precondition(slot >= 0 && slot < voterCount, "slot outside of the quorum")
    store(index, in: slot)
    committed = recomputed()
  }

  /// Everybody is back at 0.
  public mutating func reset() {
    for slot in 0..<voterCount { store(0, in: slot) }
    committed = voterCount == 0 ? .max : 0
  }

  @inlinable
  @inline(__always)
  mutating func store(_ index: LogIndex, in slot: Int) {
    if voterCount <= Self.inlineVoters { few[slot] = index } else { many[slot] = index }
  }

  /// How many voters are beyond the commit index, and the least index among them.
  @inlinable
  @inline(__always)
  func beyondCommit() -> (count: Int, least: LogIndex) {
    var count = 0
    var least = LogIndex.max
    if voterCount <= Self.inlineVoters {
      for slot in 0..<voterCount {
        let index = few[slot]
        let isBeyond = index > committed
        count &+= isBeyond ? 1 : 0
        least = min(least, isBeyond ? index : .max)
      }
    } else {
      for index in many {
        let isBeyond = index > committed
        count &+= isBeyond ? 1 : 0
        least = min(least, isBeyond ? index : .max)
      }
    }
    return (count, least)
  }

  /// From nothing: the greatest index that at least a majority has reached, by counting for each candidate.
  private func recomputed() -> LogIndex {
    var best: LogIndex = voterCount == 0 ? .max : 0
    for candidateSlot in 0..<voterCount {
      let candidate = self[candidateSlot]
      guard candidate > best else { continue }
      var reached = 0
      for slot in 0..<voterCount where self[slot] >= candidate { reached += 1 }
      if reached >= majority { best = candidate }
    }
    return best
  }
}
