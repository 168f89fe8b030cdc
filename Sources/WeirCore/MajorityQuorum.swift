// Cost of one acknowledgement with n voters: one store, then the middle one of n words in one or two cache lines by minima
// and maxima alone: 4 of them for 3 voters, 10 for 5, 20 for 7, 34 for 9. No branch depends on the indexes, which nobody
// predicts: one branch guessed wrong costs more than all of it. Inlined into the caller: the call would cost as much as
// the work.
//
// Measured with random acknowledgements (2-core EPYC 9005): 3.0 ns for 3 voters, 4.7 for 5, 7.1 for 7, 9.5 for 9; sorted()
// 57 to 68. On a 2-core EPYC 9004: 3.3, 5.8, 8.2 and 9.5, of which 0.5 are for reading the acknowledgement itself
// (`bench hot-paths --parts acknowledgements`). Instructions: 36, 54, 79 and 105, the loop around it included.

/// The commit index of one majority, kept up to date acknowledgement by acknowledgement.
///
/// Voters are slots 0 ..< `voterCount`; `JointQuorum` maps ids to slots. The rule (Raft dissertation, section 3.6.2): the
/// commit index is the greatest one that a majority has reached. Of an odd number of voters that is the middle one; of an
/// even number it is the middle one when a voter that never acknowledges anything is added.
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
    require(voterCount >= 0, "a quorum has no negative number of voters")
    self.voterCount = voterCount
    committed = voterCount == 0 ? .max : 0
    few = InlineArray(repeating: 0)
    if voterCount == 1 { few[1] = .max }
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
  @inline(__always)
  public mutating func acknowledge(slot: Int, index: LogIndex) -> LogIndex? {
    precondition(slot >= 0 && slot < voterCount, "slot outside of the quorum")
    if voterCount > Self.inlineVoters { return acknowledgeAmongMany(slot: slot, index: index) }
    few[slot] = max(few[slot], index)
    // Never less than before, since no index here is: what it was is not needed to know what it is.
    let before = committed
    committed = middleOfFew()
    return committed > before ? committed : nil
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

  private mutating func store(_ index: LogIndex, in slot: Int) {
    if voterCount <= Self.inlineVoters { few[slot] = index } else { many[slot] = index }
  }

  /// The middle one of the voters' indexes; of an even number, with a 0 added. Slots without a voter hold 0, but for one
  /// of a single voter, who is so the middle one of three.
  @inlinable
  @inline(__always)
  func middleOfFew() -> LogIndex {
    if voterCount <= 3 { return Median.of(few[0], few[1], few[2]) }
    if voterCount <= 5 { return Median.of(few[0], few[1], few[2], few[3], few[4]) }
    if voterCount <= 7 { return Median.of(few[0], few[1], few[2], few[3], few[4], few[5], few[6]) }
    return Median.of(few[0], few[1], few[2], few[3], few[4], few[5], few[6], few[7], few[8])
  }

  /// An acknowledgement among more voters than are held inside of the value.
  ///
  /// Less than a majority has ever gone past the commit index, else it would be further. So the acknowledgement that
  /// completes a majority beyond it makes those beyond it *exactly* a majority, and the least of them is the new
  /// commit index. Finding that takes one pass and no order.
  @usableFromInline
  @inline(never)
  mutating func acknowledgeAmongMany(slot: Int, index: LogIndex) -> LogIndex? {
    let known = many[slot]
    if index <= known { return nil }
    many[slot] = index
    // A voter that was beyond the commit index already does not complete a majority by going further.
    if index <= committed || known > committed { return nil }
    var count = 0
    var least = LogIndex.max
    for index in many where index > committed {
      count += 1
      least = min(least, index)
    }
    if count < majority { return nil }
    committed = least
    return least
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
