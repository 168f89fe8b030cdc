import WeirCore

/// Reads a log without changing anything, for people and for tests: what `weir wal dump` and `weir wal verify` are.
public enum LogInspector {
  /// Reads the log in a directory from its first segment to its end.
  /// - Parameter observer: is told of everything that is read, in order, up to the first thing that does not hold.
  /// - Returns: what was found; `cut` says if there is a torn tail.
  public static func inspect(
    fileSystem: any FileSystem = RealFileSystem(), directory: String, observer: ((LogEvent) -> Void)? = nil
  ) throws(StorageError) -> RecoveryReport {
    let replay = LogReplay(fileSystem: fileSystem, directory: directory, owner: nil, observer: observer)
    try replay.run()
    return replay.report
  }
}

extension LogEvent: CustomStringConvertible {
  /// One line, as a person can read it.
  public var description: String {
    switch self {
    case .mark(let mark):
      "sync mark: durable up to log offset \(mark.syncedOffset), entry \(mark.lastIndex), batch at "
        + "\(mark.batchOffset), owner \(mark.owner)"
    case .segment(let path, let header):
      "segment \(header.number) \(path): log offset \(header.startOffset), \(header.capacityBytes) bytes, blocks of "
        + "\(header.blockBytes), owner \(header.owner), after entry \(header.lastIndex), \(text(header.hardState)), "
        + "anchor \(header.anchorIndex) of term \(header.anchorTerm)\(header.isRecycled ? ", recycled" : "")"
    case .batch(_, let offset, let header):
      "  batch at \(offset): \(header.entryCount) entries, \(header.frameBytes) bytes, synced \(header.syncedOffset), "
        + "\(text(header.hardState)), anchor \(header.anchorIndex) of term \(header.anchorTerm)"
        + (header.resetsLog ? ", empties the log" : "")
    case .entry(let offset, let header):
      "    entry \(header.index) at \(offset): term \(header.term), \(header.kind), \(header.payloadBytes) bytes"
    }
  }

  private func text(_ state: HardState) -> String { "term \(state.term), vote \(state.vote), commit \(state.commit)" }
}
