import WeirCore

/// How much of the applied log stays in memory: marks along it, from which the place to cut is read off.
struct LogRetention {
  private struct Mark {
    var index: LogIndex
    /// Bytes applied up to and including `index`, since the node started.
    var bytes: Int
  }

  private let maximumBytes: Int
  private let trailingBytes: Int
  private let markDistanceBytes: Int
  private var marks: [Mark] = []
  private var appliedBytes = 0
  private var releasedBytes = 0

  /// - Parameters:
  ///   - maximumBytes: what may be held before something is let go.
  ///   - trailingBytes: what is kept then, for followers that lag a little.
  init(maximumBytes: Int, trailingBytes: Int) {
    self.maximumBytes = max(maximumBytes, 1 << 16)
    self.trailingBytes = min(trailingBytes, self.maximumBytes / 2)
    markDistanceBytes = max(self.maximumBytes / 32, 4096)
  }

  /// Notes that entries of `bytes` up to `index` were applied.
  mutating func applied(through index: LogIndex, bytes: Int) {
    appliedBytes += bytes
    if appliedBytes - (marks.last?.bytes ?? releasedBytes) >= markDistanceBytes {
      marks.append(Mark(index: index, bytes: appliedBytes))
    }
  }

  /// Up to where the log can be let go now; nil if it is not worth it yet.
  mutating func compaction(appliedIndex: LogIndex) -> LogIndex? {
    guard appliedBytes - releasedBytes > maximumBytes else { return nil }
    let limit = appliedBytes - trailingBytes
    guard let position = marks.lastIndex(where: { $0.bytes <= limit && $0.index <= appliedIndex }) else { return nil }
    let mark = marks[position]
    marks.removeFirst(position + 1)
    releasedBytes = mark.bytes
    return mark.index
  }

  /// Everything before was replaced by a snapshot.
  mutating func reset() {
    marks.removeAll()
    releasedBytes = appliedBytes
  }
}
