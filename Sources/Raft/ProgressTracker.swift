import WeirCore

/// What the votes so far decide.
public enum VoteResult: Sendable, Hashable {
  case pending
  case lost
  case won
}

/// The members, in their roles, with what is known of each: one contiguous array, ascending by id.
///
/// Ascending order is part of the contract: broadcasts go out in it, so the same events give the same messages.
public struct ProgressTracker: Sendable {
  public private(set) var configuration: MembershipConfiguration
  public internal(set) var progress: [Progress]
  /// The messages under way to each member, in the order of `progress`.
  var rings: [InflightRing]
  private var voterSlots: [Int] = []
  private var outgoingSlots: [Int] = []

  public init(configuration: MembershipConfiguration = .init(), progress: [Progress] = []) {
    self.init(configuration: configuration, progress: progress, continuing: nil)
  }

  /// - Parameter previous: what was in force; the messages under way to members that stay are known from there.
  init(configuration: MembershipConfiguration, progress: [Progress], continuing previous: ProgressTracker?) {
    self.configuration = configuration
    self.progress = progress
    rings = progress.map { member in
      previous.flatMap { tracker in tracker.slot(of: member.id).map { tracker.rings[$0] } } ?? InflightRing()
    }
    voterSlots = configuration.voters.compactMap { slot(of: $0) }
    outgoingSlots = configuration.votersOutgoing.compactMap { slot(of: $0) }
    invariant(
      voterSlots.count == configuration.voters.count && outgoingSlots.count == configuration.votersOutgoing.count,
      "each voter has a progress")
  }

  /// Where the member's progress is, or nil for a stranger.
  @inline(__always)
  public func slot(of id: NodeID) -> Int? {
    for position in progress.indices where progress[position].id == id { return position }
    return nil
  }

  @inline(__always)
  mutating func sentEntries(slot: Int, count: Int, bytes: Int, commit: LogIndex) {
    progress[slot].sentEntries(count: count, bytes: bytes, commit: commit, ring: &rings[slot])
  }

  /// Takes an acknowledgement. Returns whether it was news.
  @inline(__always)
  mutating func acknowledged(slot: Int, through index: LogIndex) -> Bool {
    progress[slot].acknowledged(through: index, ring: &rings[slot])
  }

  /// Whether there is one voter and no joint configuration: then it decides alone.
  public var isSingleton: Bool { voterSlots.count == 1 && outgoingSlots.isEmpty }

  // MARK: Quorums

  /// The highest value that a quorum has reached, by each member's `value`: the commit index by `match`, a confirmed
  /// read round by its position. `UInt64.max` without voters: an empty half decides nothing.
  @inline(__always)
  func quorumValue(_ value: (_ slot: Int) -> UInt64) -> UInt64 {
    let incoming = majorityValue(voterSlots, value)
    if outgoingSlots.isEmpty { return incoming }
    return min(incoming, majorityValue(outgoingSlots, value))
  }

  /// The newest read round that a quorum has answered.
  var confirmedRound: UInt64 { quorumValue { progress[$0].confirmedReadPosition } }

  /// The commit index that the acknowledgements allow (not looking at terms).
  public var committedIndex: LogIndex { quorumValue { progress[$0].match } }

  @inline(__always)
  private func majorityValue(_ slots: [Int], _ value: (_ slot: Int) -> UInt64) -> UInt64 {
    let count = slots.count
    if count == 3 {
      let a = value(slots[0])
      let b = value(slots[1])
      let c = value(slots[2])
      return max(min(a, b), min(max(a, b), c))
    }
    guard count > 0 else { return .max }
    guard count <= 9 else { return slots.map { value($0) }.sorted()[(count - 1) / 2] }
    var sorted: [9 of UInt64] = .init(repeating: 0)
    for position in 0..<count {
      let item = value(slots[position])
      var hole = position
      while hole > 0, sorted[hole - 1] > item {
        sorted[hole] = sorted[hole - 1]
        hole -= 1
      }
      sorted[hole] = item
    }
    // Ascending: a majority (count / 2 + 1) holds this value or a higher one.
    return sorted[(count - 1) / 2]
  }

  /// Whether a quorum was heard from since the last check.
  public var isQuorumActive: Bool {
    voteResult { $0.isLearner ? .none : $0.isRecentlyActive ? .granted : .rejected } == .won
  }

  // MARK: Votes

  mutating func resetVotes() {
    for position in progress.indices { progress[position].vote = .none }
  }

  /// Notes a vote; only a member's first answer counts.
  mutating func recordVote(from id: NodeID, granted: Bool) {
    guard let slot = slot(of: id), progress[slot].vote == .none else { return }
    progress[slot].vote = granted ? .granted : .rejected
  }

  /// How many voters said yes and no, and what that decides.
  func tallyVotes() -> (granted: Int, rejected: Int, result: VoteResult) {
    var granted = 0
    var rejected = 0
    for member in progress where !member.isLearner {
      switch member.vote {
      case .none: break
      case .granted: granted += 1
      case .rejected: rejected += 1
      }
    }
    return (granted, rejected, voteResult { $0.vote })
  }

  private func voteResult(_ vote: (borrowing Progress) -> Progress.Vote) -> VoteResult {
    let incoming = majorityVote(voterSlots, vote)
    let outgoing = majorityVote(outgoingSlots, vote)
    if incoming == outgoing { return incoming }
    if incoming == .lost || outgoing == .lost { return .lost }
    return .pending
  }

  private func majorityVote(_ slots: [Int], _ vote: (borrowing Progress) -> Progress.Vote) -> VoteResult {
    // An empty half agrees with everything, so that a configuration outside of a joint one is a special case of it.
    guard !slots.isEmpty else { return .won }
    var granted = 0
    var missing = 0
    for slot in slots {
      switch vote(progress[slot]) {
      case .granted: granted += 1
      case .none: missing += 1
      case .rejected: break
      }
    }
    let quorum = slots.count / 2 + 1
    if granted >= quorum { return .won }
    return granted + missing >= quorum ? .pending : .lost
  }
}
