/// When a node writes its next snapshot: once its log has grown by so many bytes, or entries, since the last one began.
///
/// The members of a cluster fill their logs with the same entries at the same time, so with the same thresholds all of
/// them would write at once, with a quorum busy and, where they share one, a disk with it. So they take turns: a node's
/// first stretch is shorter, by its place among the members, and those that follow are whole, which keeps the members an
/// equal part of a stretch apart from then on. Deterministic where others draw lots (hashicorp/raft waits for one to two
/// times its interval): lots still collide.
struct SnapshotSchedule {
  private let afterBytes: Int
  private let afterEntries: Int
  private var bytes: Int
  private var entries: Int
  private var isFirst: Bool

  /// - Parameters:
  ///   - bytes: what the log holds already behind the newest snapshot, and as `entries` of it.
  ///   - isFirst: no snapshot of this node's own is where the counting begins.
  init(afterBytes: Int, afterEntries: Int, bytes: Int = 0, entries: Int = 0, isFirst: Bool = true) {
    self.afterBytes = max(afterBytes, 1)
    self.afterEntries = max(afterEntries, 1)
    self.bytes = bytes
    self.entries = entries
    self.isFirst = isFirst
  }

  /// Entries were stored.
  mutating func stored(bytes: Int, entries: Int) {
    self.bytes += bytes
    self.entries += entries
  }

  /// A snapshot begins.
  /// - Parameter inTurn: it was due. One that was asked for, or that another member sent, comes at any time, possibly at
  ///   the same one everywhere: then this node looks for its place anew.
  mutating func begin(inTurn: Bool) {
    bytes = 0
    entries = 0
    isFirst = !inTurn
  }

  /// Whether it is time for the member at position `rank` of `members` members.
  func isDue(rank: Int, members: Int) -> Bool {
    precondition(rank >= 0 && rank < members, "a place among the members")
    guard isFirst else { return bytes > afterBytes || entries > afterEntries }
    // Divided first: a threshold may be the largest number there is.
    return bytes > afterBytes / members * (rank + 1) || entries > afterEntries / members * (rank + 1)
  }
}
