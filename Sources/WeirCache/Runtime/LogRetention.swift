import WeirCore

/// How much of the applied log stays in memory: marks along it, from which the place to cut is read off.
///
/// It is cut often and little at a time: the segments that are let go are the next ones to be filled, and a few of
/// them fit into the log's store of spare ones. Cutting half of the log at once would free and fault in that half
/// again for each turn of the log, which costs a tenth of a write.
struct LogRetention {
  private struct Mark {
    var index: LogIndex
    /// Bytes applied up to and including `index`, since the node started.
    var bytes: Int
  }

  private let maximumBytes: Int
  private let trailingBytes: Int
  private let stepBytes: Int
  private var marks: [Mark] = []
  private var appliedBytes = 0
  private var releasedBytes = 0

  /// - Parameters:
  ///   - maximumBytes: what is held at most, however far a follower is behind.
  ///   - trailingBytes: what is held in any case.
  init(maximumBytes: Int, trailingBytes: Int) {
    self.maximumBytes = max(maximumBytes, 1 << 16)
    self.trailingBytes = min(trailingBytes, self.maximumBytes / 2)
    stepBytes = max(min(self.trailingBytes / 16, 1 << 20), 4096)
  }

  /// Notes that entries of `bytes` up to `index` were applied.
  mutating func applied(through index: LogIndex, bytes: Int) {
    appliedBytes += bytes
    if appliedBytes - (marks.last?.bytes ?? releasedBytes) >= stepBytes {
      marks.append(Mark(index: index, bytes: appliedBytes))
    }
  }

  /// Whether it is worth asking for a place to cut.
  var isDue: Bool { appliedBytes - releasedBytes > trailingBytes + stepBytes }

  /// Up to where the log can be let go now, nil if nowhere.
  /// - Parameter neededFrom: the first entry that a live follower still needs.
  mutating func cut(neededFrom: LogIndex) -> LogIndex? {
    let spared = appliedBytes - trailingBytes
    let forced = appliedBytes - maximumBytes
    guard
      let position = marks.lastIndex(where: {
        $0.bytes <= forced || ($0.bytes <= spared && $0.index < neededFrom)
      })
    else { return nil }
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
