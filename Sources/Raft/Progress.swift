import WeirCore

/// What the leader knows of one member's log, and how it sends to it (etcd's tracker.Progress).
public struct Progress: Sendable, BitwiseCopyable {
  /// How the leader sends.
  public enum State: UInt8, Sendable, BitwiseCopyable {
    /// One append message per heartbeat interval, until it is known where the logs agree.
    case probe
    /// Optimistically, as many messages as the window holds.
    case replicate
    /// A snapshot is under way: nothing is sent until it is known how it ended.
    case snapshot
  }

  /// What the member answered in the election under way.
  public enum Vote: UInt8, Sendable, BitwiseCopyable {
    case none
    case granted
    case rejected
  }

  public let id: NodeID
  /// The highest entry known to be in the member's log.
  public internal(set) var match: LogIndex = 0
  /// The next entry to send; always above `match`.
  public internal(set) var next: LogIndex
  /// The highest commit index under way to the member.
  public internal(set) var sentCommit: LogIndex = 0
  public internal(set) var state: State = .probe
  /// The index of the snapshot under way, in state `snapshot`.
  public internal(set) var pendingSnapshot: LogIndex = 0
  /// Whether the member was heard from since the last quorum check.
  public internal(set) var isRecentlyActive = false
  /// Whether the next append message waits for an answer to an earlier one or to a heartbeat.
  public internal(set) var isAppendFlowPaused = false
  public internal(set) var isLearner: Bool
  public internal(set) var inflights: Inflights
  var vote: Vote = .none
  /// The highest position of a read round that the member confirmed.
  var confirmedReadPosition: UInt64 = 0

  public init(id: NodeID, next: LogIndex, isLearner: Bool, inflights: Inflights) {
    self.id = id
    self.next = next
    self.isLearner = isLearner
    self.inflights = inflights
  }

  private mutating func enter(_ state: State) {
    isAppendFlowPaused = false
    pendingSnapshot = 0
    self.state = state
    inflights.reset()
  }

  mutating func becomeProbe() {
    // A snapshot that arrived may hold more than the member has acknowledged: go on behind it instead of sending again
    // what it contains.
    let snapshotIndex = state == .snapshot ? pendingSnapshot : 0
    enter(.probe)
    next = max(match, snapshotIndex) + 1
    sentCommit = min(sentCommit, next - 1)
  }

  mutating func becomeReplicate() {
    enter(.replicate)
    next = match + 1
  }

  mutating func becomeSnapshot(index: LogIndex) {
    enter(.snapshot)
    pendingSnapshot = index
    next = index + 1
    sentCommit = index
  }

  /// Notes that an append message with `count` entries of `bytes` in all, and with a commit index, is on its way.
  @inline(__always)
  mutating func sentEntries(count: Int, bytes: Int, commit: LogIndex, ring: inout InflightRing) {
    sentCommit = commit
    switch state {
    case .replicate:
      next += LogIndex(count)
      inflights.add(lastIndex: next - 1, bytes: bytes, to: &ring)
      // With a full window the message counts as a probe: the next one waits for an acknowledgement or a heartbeat
      // response. Otherwise an empty message would follow every event while the member answers nothing.
      isAppendFlowPaused = inflights.isFull
    case .probe: isAppendFlowPaused = true
    case .snapshot: invariant(false, "append messages are not sent while a snapshot is under way")
    }
  }

  /// The same for a message without entries.
  @inline(__always)
  mutating func sentNoEntries(commit: LogIndex) {
    sentCommit = commit
    // An empty probe does not pause: it may be all that carries a commit index.
    if state == .replicate { isAppendFlowPaused = inflights.isFull }
  }

  /// Whether telling the member that `index` is committed may be news to it: not if a message under way lets it commit
  /// all that was sent.
  @inline(__always)
  func canBumpCommit(to index: LogIndex) -> Bool { index > sentCommit && sentCommit < next - 1 }

  /// Takes an acknowledgement up to `index`. Returns whether it was news.
  @inline(__always)
  mutating func maybeUpdate(to index: LogIndex) -> Bool {
    guard index > match else { return false }
    match = index
    next = max(next, index + 1)
    isAppendFlowPaused = false
    return true
  }

  /// Takes an acknowledgement up to `index` from a member that is heard of by it.
  @inline(__always)
  mutating func acknowledged(through index: LogIndex, ring: inout InflightRing) -> Bool {
    isRecentlyActive = true
    guard maybeUpdate(to: index) else { return false }
    if state == .replicate { inflights.free(through: index, of: &ring) }
    return true
  }

  /// Takes a rejection of the message that followed `rejected`, with the member's hint where to try.
  /// Returns whether it was news: rejections may arrive late, or twice.
  mutating func maybeDecrease(rejected: LogIndex, hint: LogIndex) -> Bool {
    if state == .replicate {
      // What was acknowledged cannot be refused: an older answer that overtook nothing.
      guard rejected > match else { return false }
      next = match + 1
      sentCommit = min(sentCommit, next - 1)
      return true
    }
    // In probe, one message is under way, the one before `next`: an answer to any other is old.
    guard rejected == next - 1 else { return false }
    next = max(min(rejected, hint + 1), match + 1)
    sentCommit = min(sentCommit, next - 1)
    isAppendFlowPaused = false
    return true
  }

  /// Whether no append message may be sent now.
  @inline(__always)
  var isPaused: Bool { state == .snapshot || isAppendFlowPaused }
}
