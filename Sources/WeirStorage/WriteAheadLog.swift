import WeirCore

/// The write-ahead log, driven by one caller at a time and without threads of its own: what the simulator runs, and what
/// `GroupCommitLog` puts on a queue.
///
/// Appending stages; `commitBatch` makes everything staged durable with one write and one sync.
public final class WriteAheadLog {
  public let options: LogOptions
  public private(set) var counters = LogCounters()

  init(options: LogOptions) { self.options = options }

  /// Opens the log in a directory, which is made if it is missing, and reads what it holds.
  /// - Parameter snapshot: the newest snapshot that can be read (`SnapshotStore.newest`). The log continues behind it if
  ///   its entries end before it or contradict it; a log that begins behind it is refused.
  public static func open(
    fileSystem: any FileSystem, directory: String, options: LogOptions = .init(), snapshot: SnapshotMetadata? = nil
  ) throws(StorageError) -> (log: WriteAheadLog, recovered: RecoveredState) {
    preconditionFailure("follows")
  }

  /// Stages entries: they replace the log from their first index on.
  /// - Precondition: the first index is behind the anchor and at most one behind the last entry.
  public func append(_ entries: EntryBatch, hardState: HardState? = nil) { preconditionFailure("follows") }

  /// Stages a commit index; it is written with the next batch, and needs none of its own.
  public func updateCommit(_ commit: LogIndex) { preconditionFailure("follows") }

  /// Stages that the entries up to and including `index` are not needed any more: a snapshot that holds them is durable.
  /// Segments without other entries are reused once this is.
  public func compact(through index: LogIndex, term: Term) { preconditionFailure("follows") }

  /// Stages that the log is empty and continues behind a snapshot that was received.
  public func reset(anchorIndex: LogIndex, anchorTerm: Term) { preconditionFailure("follows") }

  /// Whether anything is staged that has to be written.
  public var hasStaged: Bool { preconditionFailure("follows") }

  /// Writes what is staged and, under `SyncPolicy.always`, makes it durable: then it may be acknowledged.
  public func commitBatch() throws(StorageError) { preconditionFailure("follows") }

  /// The first half of `commitBatch`: after it, the bytes are written but not durable.
  public func writeBatch() throws(StorageError) { preconditionFailure("follows") }

  /// The second half of `commitBatch`: makes everything written durable.
  public func synchronize() throws(StorageError) { preconditionFailure("follows") }

  /// The error that ended the log, if one did.
  public var failure: StorageError? { preconditionFailure("follows") }
}
