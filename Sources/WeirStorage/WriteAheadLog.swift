import WeirCore

/// The write-ahead log, driven by one caller at a time and without threads of its own: what the simulator runs, and what
/// `GroupCommitLog` puts on a queue.
///
/// Appending stages; `commitBatch` makes everything staged durable with one write and one sync. A write or sync that fails
/// ends the log: every later call throws the same error, and nothing may be acknowledged any more.
public final class WriteAheadLog {
  public let options: LogOptions
  public private(set) var counters = LogCounters()
  /// The error that ended the log, if one did.
  public private(set) var failure: StorageError?

  let stager: LogStager
  let writer: LogWriter

  init(options: LogOptions, stager: LogStager, writer: LogWriter) {
    self.options = options
    self.stager = stager
    self.writer = writer
  }

  /// Opens the log in a directory, which is made if it is missing, and reads what it holds. A torn tail is cut; damage
  /// elsewhere is refused (`LogReplay` has the rule). What was read is made durable again before it is handed out.
  /// - Parameter snapshot: the newest snapshot that can be read (`SnapshotStore.newest`). The log continues behind it if
  ///   its entries end before it or contradict it; a log that begins behind it is refused.
  /// - Parameter feed: takes what is committed behind that snapshot, in place of holding all of it.
  public static func open(
    fileSystem: any FileSystem, directory: String, options: LogOptions = .init(), snapshot: SnapshotMetadata? = nil,
    feed: LogFeed? = nil
  ) throws(StorageError) -> (log: WriteAheadLog, recovered: RecoveredState) {
    do throws(FileError) {
      try fileSystem.createDirectory(directory)
    } catch {
      throw .fileFailure(error)
    }
    let (writer, replay) = try LogWriter.open(
      fileSystem: fileSystem, directory: directory, options: options, feed: feed)
    let log = WriteAheadLog(
      options: options, stager: LogStager(blockBytes: options.blockBytes, tail: replay.tail), writer: writer)
    var report = replay.report
    var buffer = replay.takeLog()
    let snapshotIndex = snapshot?.index ?? 0
    guard snapshotIndex >= replay.tail.anchorIndex else {
      throw .snapshotMissing(anchorIndex: replay.tail.anchorIndex, newestSnapshotIndex: snapshotIndex)
    }
    if let snapshot, feed?.isJoined != true, buffer.term(at: snapshot.index) != snapshot.term {
      // A snapshot was received, and the crash came before the log was told: its entries end before it, or contradict it.
      buffer.reset(anchorIndex: snapshot.index, anchorTerm: snapshot.term)
      log.reset(anchorIndex: snapshot.index, anchorTerm: snapshot.term)
      try log.commitBatch()
      report.anchorIndex = snapshot.index
      report.lastIndex = snapshot.index
    }
    var hardState = replay.tail.hardState
    hardState.commit = max(hardState.commit, snapshotIndex)
    return (log, RecoveredState(hardState: hardState, report: report, log: buffer))
  }

  /// Index of the last entry, what is staged included.
  public var lastIndex: LogIndex { stager.tail.lastIndex }

  /// The last entry before the first one that the log holds, what is staged included.
  public var anchorIndex: LogIndex { stager.tail.anchorIndex }

  /// Stages entries: they replace the log from their first index on.
  /// - Precondition: the first index is behind the anchor and at most one behind the last entry.
  public func append(_ entries: EntryBatch, hardState: HardState? = nil) {
    stager.append(entries, hardState: hardState)
  }

  /// Stages a commit index; it is written with the next batch, and needs none of its own.
  public func updateCommit(_ commit: LogIndex) { stager.updateCommit(commit) }

  /// Stages that the entries up to and including `index` are not needed any more: a snapshot that holds them is durable.
  /// Segments without other entries are reused once this is.
  public func compact(through index: LogIndex, term: Term) { stager.compact(through: index, term: term) }

  /// Stages that the log is empty and continues behind a snapshot that was received and is durable.
  public func reset(anchorIndex: LogIndex, anchorTerm: Term) {
    stager.reset(anchorIndex: anchorIndex, anchorTerm: anchorTerm)
  }

  /// Stages a batch that says no more than where the log stands already: how the simulator makes one more write.
  public func restateHardState() { stager.append(EntryBatch(), hardState: stager.tail.hardState) }

  /// Whether anything is staged that has to be written.
  public var hasStaged: Bool { stager.hasStaged }

  /// Writes what is staged and, under `SyncPolicy.always`, makes it durable: then it may be acknowledged.
  public func commitBatch() throws(StorageError) {
    try writeBatch()
    if options.sync == .always || writer.hasUnneededSegments { try synchronize() }
  }

  /// The first half of `commitBatch`: after it, the bytes are written but not durable.
  public func writeBatch() throws(StorageError) {
    if let failure { throw failure }
    guard stager.hasStaged else { return }
    let staging = stager.take()
    defer { stager.giveBack(staging) }
    try guarded { () throws(StorageError) in try writer.write(staging) }
    counters = writer.counters
  }

  /// The second half of `commitBatch`: makes everything written durable.
  public func synchronize() throws(StorageError) {
    try guarded { () throws(StorageError) in
      try writer.synchronize()
      try writer.removeDropped()
    }
    counters = writer.counters
  }

  /// Notes how far the log is durable in the sync mark, so that damage to the last batch is told from a torn write. Called
  /// when there is nothing else to do.
  /// - Parameter durably: with a sync of its own.
  public func writeMark(durably: Bool) throws(StorageError) {
    try guarded { () throws(StorageError) in try writer.writeMark(durably: durably) }
  }

  /// Writes and syncs what is staged, notes it durably, and takes nothing more.
  public func close() throws(StorageError) {
    try writeBatch()
    try synchronize()
    try writeMark(durably: true)
    failure = .closed
  }

  private func guarded(_ body: () throws(StorageError) -> Void) throws(StorageError) {
    if let failure { throw failure }
    do {
      try body()
    } catch {
      failure = error
      throw error
    }
  }
}
