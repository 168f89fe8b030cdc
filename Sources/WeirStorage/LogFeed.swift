import WeirCore

/// Takes the committed entries of a log while it is being read, so that they need not be in memory all at once: a log of
/// half a gigabyte is applied piece by piece, and only its end is held, for followers that are a little behind.
///
/// Used by the thread that opens the log, once.
public final class LogFeed {
  /// Calls with committed entries in order and without a gap, from the first behind the snapshot on.
  public typealias Taker = (EntryBatch) -> Void

  private let snapshot: SnapshotMetadata
  private let retainedBytes: Int
  private let take: Taker
  /// Whether the log agrees with the snapshot, once it has come that far.
  private var agrees: Bool?

  /// The last entry that was taken; the snapshot's before the first.
  public private(set) var takenIndex: LogIndex
  /// The term of that entry.
  public private(set) var takenTerm: Term

  /// - Parameters:
  ///   - snapshot: where the entries are to begin behind.
  ///   - retainedBytes: how much of what was taken stays in the log that is handed out, at least as far as there is so much.
  public init(behind snapshot: SnapshotMetadata, retainedBytes: Int, _ take: @escaping Taker) {
    self.snapshot = snapshot
    self.retainedBytes = retainedBytes
    self.take = take
    takenIndex = snapshot.index
    takenTerm = snapshot.term
  }

  /// Bytes by which more than what is to be retained is held before some of it is let go: a few segments' worth.
  private static var stepBytes: Int { 4 << 20 }

  /// A batch was read, which said that the entries up to `commit` are committed: none of them is ever replaced.
  func advance(_ log: inout LogBuffer, commit: LogIndex) {
    let committed = min(commit, log.lastIndex)
    if agrees == nil, committed >= snapshot.index, log.anchorIndex <= snapshot.index {
      // If they do not agree, the snapshot came from a leader after all of this, and the log begins anew behind it.
      agrees = log.term(at: snapshot.index) == snapshot.term
    }
    if agrees == true, committed > takenIndex {
      if log.firstIndex <= takenIndex + 1 {
        take(log.batch(from: takenIndex + 1, through: committed))
        takenIndex = committed
        takenTerm = log.term(at: committed) ?? takenTerm
      } else {
        // The log began anew behind another snapshot, which this one does not reach: opening it is refused.
        agrees = false
      }
    }
    if agrees != false, log.liveBytes > retainedBytes + Self.stepBytes {
      // What the snapshot covers is not needed here; that it is on the disk is for the snapshot before.
      release(&log, through: agrees == true ? takenIndex : min(committed, snapshot.index))
    }
  }

  /// Lets the longest beginning go that ends at `limit` or before, and leaves `retainedBytes`.
  private func release(_ log: inout LogBuffer, through limit: LogIndex) {
    var low = log.anchorIndex
    var high = limit
    while low < high {
      let middle = low + (high - low + 1) / 2
      let isEnough = log.frameBytes(from: middle + 1, through: log.lastIndex) >= retainedBytes
      if isEnough { low = middle } else { high = middle - 1 }
    }
    log.releasePrefix(through: low)
  }

  /// Whether `index` was taken: then the log cannot come to hold another entry there.
  func hasTaken(_ index: LogIndex) -> Bool { agrees == true && index > snapshot.index && index <= takenIndex }

  /// Whether the log was found to hold the snapshot's last entry.
  var isJoined: Bool { agrees == true }
}
