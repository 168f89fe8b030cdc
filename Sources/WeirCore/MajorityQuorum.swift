// Cost of one acknowledgement with n voters: two stores, n loads, then minima and maxima alone: 3 of them for 3 voters, 9
// for 5, 19 for 7, 31 for 9. No branch depends on the indexes, which nobody predicts: one branch guessed wrong costs more
// than all of it. Inlined into the caller: the call would cost as much as the work.
//
// Measured with random acknowledgements (`bench hot-paths quorum`, 2-core EPYC 9004): 2.0 to 2.2 ns for 3
// voters, 2.7 for 5, 4.0 for 7, 5.6 for 9, of which 0.5 are for reading the acknowledgement itself (`--parts
// acknowledgements`); sorted() 67 to 78. Taking the middle one of all n indexes anew took 3.4, 5.9, 8.4 and 9.7 in the same
// runs: it has one more comparison, and loads neighbours two at a time, of which one was written just before alone.
// Instructions, the loop around it included: 39, 50, 74 and 129.

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

  /// What up to nine voters have, each twice, a round of voters apart: so the others follow wherever one is, and which of
  /// them it is nobody has to find out. A round is an odd number, at least three: where there are fewer voters, a place
  /// without one holds 0.
  @usableFromInline var few: InlineArray<18, LogIndex>
  @usableFromInline var many: [LogIndex]

  /// Nobody has acknowledged anything yet.
  public init(voterCount: Int) {
    require(voterCount >= 0, "a quorum has no negative number of voters")
    self.voterCount = voterCount
    committed = voterCount == 0 ? .max : 0
    few = InlineArray(repeating: 0)
    // A single voter is the middle one of three this way.
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
  ///
  /// The commit index goes to what this voter and enough of the others have, if that is further. What a majority without
  /// this voter has is counted already, since it had it before.
  /// - Returns: the new commit index if that moved it.
  @inlinable
  @inline(__always)
  public mutating func acknowledge(slot: Int, index: LogIndex) -> LogIndex? {
    precondition(slot >= 0 && slot < voterCount, "slot outside of the quorum")
    if voterCount > Self.inlineVoters { return acknowledgeAmongMany(slot: slot, index: index) }
    // Each way has its distance as a number and reads the others by itself. With the distance in a variable, and the others'
    // middle taken by a function that only reads, the compiler (6.3) moves all of `few` to the stack and back: 13 ns for 3
    // voters, 36 for 9.
    let reached = max(few[slot], index)
    if voterCount <= 3 {
      return settle(slot, reached, others: max(few[slot &+ 1], few[slot &+ 2]), copy: slot &+ 3)
    }
    if voterCount <= 5 {
      let others = UpperMedian.of(few[slot &+ 1], few[slot &+ 2], few[slot &+ 3], few[slot &+ 4])
      return settle(slot, reached, others: others, copy: slot &+ 5)
    }
    if voterCount <= 7 {
      let others = UpperMedian.of(
        few[slot &+ 1], few[slot &+ 2], few[slot &+ 3], few[slot &+ 4], few[slot &+ 5], few[slot &+ 6])
      return settle(slot, reached, others: others, copy: slot &+ 7)
    }
    let others = UpperMedian.of(
      few[slot &+ 1], few[slot &+ 2], few[slot &+ 3], few[slot &+ 4], few[slot &+ 5], few[slot &+ 6],
      few[slot &+ 7], few[slot &+ 8])
    return settle(slot, reached, others: others, copy: slot &+ 9)
  }

  /// Notes what the voter in `slot` has, in both places, and goes to what it and enough of the others have.
  @inlinable
  @inline(__always)
  mutating func settle(_ slot: Int, _ reached: LogIndex, others: LogIndex, copy: Int) -> LogIndex? {
    few[slot] = reached
    few[copy] = reached
    let before = committed
    committed = max(before, min(reached, others))
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
    guard voterCount <= Self.inlineVoters else { return many[slot] = index }
    few[slot] = index
    few[slot + max(voterCount | 1, 3)] = index
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
