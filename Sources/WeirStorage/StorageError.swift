import WeirCore

/// Why durable storage cannot go on, and what to do about it.
public enum StorageError: Error, Sendable, Hashable {
  /// A file operation failed. After a failed write or sync the log is at its end: nothing is acknowledged any more, and
  /// the process has to exit. It is never tried again, as a second fdatasync succeeds although the data is gone.
  case fileFailure(FileError)
  /// No space for another segment. What is in the log is safe; nothing more is taken. Make space, then restart.
  case diskFull(FileError)
  /// Bytes that were durable once have changed. The node must not start from this directory: it could help to elect a
  /// leader that lacks acknowledged entries.
  case corrupted(Corruption)
  /// The directory belongs to another node.
  case wrongOwner(path: String, expected: UInt64, found: UInt64)
  /// Another process uses the directory.
  case locked(path: String)
  /// A file was written by a version that this one does not know.
  case unknownVersion(path: String, version: UInt32)
  /// The log starts behind `anchorIndex`, and there is no snapshot that reaches it.
  case snapshotMissing(anchorIndex: LogIndex, newestSnapshotIndex: LogIndex)
  /// The log was closed, or ended by the error that came before.
  case closed

  /// Where the bytes are that changed.
  public struct Corruption: Error, Sendable, Hashable {
    public var path: String
    /// Offset in the file, in bytes.
    public var offsetBytes: Int
    /// What does not hold there.
    public var reason: String

    public init(path: String, offsetBytes: Int, reason: String) {
      self.path = path
      self.offsetBytes = offsetBytes
      self.reason = reason
    }
  }
}
