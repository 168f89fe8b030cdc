/// The few file operations that durable storage is built from.
///
/// Everything in this module goes through this protocol, so that the same log and snapshot code runs on real files
/// (`RealFileSystem`), on a simulated disk with every fault that disks are known for (`SimulatedFileSystem`), and on
/// real files where killing the process is a power cut (`HoldUntilSyncFileSystem`).
///
/// A name is durable only after `synchronizeDirectory` of the directory it is in: creating, renaming and removing are
/// writes to the directory, and a power cut may undo them until then.
public protocol FileSystem: AnyObject, Sendable {
  /// Makes the directory and those above it, if they are missing, durably.
  func createDirectory(_ path: String) throws(FileError)

  /// The names in a directory, ascending.
  func list(_ directory: String) throws(FileError) -> [String]

  /// Makes a file that does not exist yet.
  func create(_ path: String, mode: WriteMode) throws(FileError) -> any File

  /// Opens an existing file for reading and writing.
  func open(_ path: String, mode: WriteMode) throws(FileError) -> any File

  /// Opens an existing file for reading.
  func openForReading(_ path: String) throws(FileError) -> any File

  /// Gives a file another name; a file that had that name is replaced.
  func rename(_ path: String, to newPath: String) throws(FileError)

  /// Removes a file's name. Who has the file open goes on using it.
  func remove(_ path: String) throws(FileError)

  /// Makes the names in a directory durable.
  func synchronizeDirectory(_ path: String) throws(FileError)

  /// Takes a lock that one holder at a time can have, and that goes away with the process.
  /// - Returns: what holds the lock as long as it is referenced, or nil if somebody else has it.
  func lock(_ path: String) throws(FileError) -> (any File)?
}

/// How writes to a file reach the disk.
public enum WriteMode: String, Sendable, Hashable, CaseIterable {
  /// Writes go to the operating system's cache; `synchronizeData` makes them durable.
  case buffered
  /// Each write is durable when it returns and does not pass through the cache (O_DIRECT and O_DSYNC). Offset, count
  /// and memory are multiples of 4096.
  case direct
  /// Writes do not pass through the cache (O_DIRECT); `synchronizeData` makes them durable. Aligned as direct ones. For
  /// what is written in bulk beside a log: it leaves no pages for a sync to carry, and no device cache full of them in the
  /// way of the log's own writes.
  case uncached
}

/// An open file; it is closed when the last reference goes.
public protocol File: AnyObject, Sendable {
  /// Size in bytes.
  func sizeBytes() throws(FileError) -> Int

  /// Reads at most as many bytes as `buffer` has, from `offset` on.
  /// - Returns: how many bytes were read; fewer only at the end of the file.
  func read(into buffer: inout MutableRawSpan, at offset: Int) throws(FileError) -> Int

  /// Writes all of `bytes` at `offset`. After an error, any part of them may have been written.
  func write(_ bytes: RawSpan, at offset: Int) throws(FileError)

  /// Makes what was written durable (fdatasync). An error is final: what was written before it is lost or not, and no
  /// later call can tell, as the kernel marks pages clean whose write failed (Rebello et al., ATC 2020).
  func synchronizeData() throws(FileError)

  /// Reserves space, so that writing below `byteCount` needs no more of it.
  func reserve(byteCount: Int) throws(FileError)

  /// Cuts the file, or extends it with zeros.
  func truncate(toBytes byteCount: Int) throws(FileError)
}

/// A file operation that failed.
public struct FileError: Error, Sendable, Hashable {
  public enum Operation: String, Sendable, Hashable, CaseIterable {
    case createDirectory, list, create, open, rename, remove, synchronizeDirectory, lock
    case size, read, write, synchronizeData, reserve, truncate
  }

  public var operation: Operation
  public var path: String
  /// The system's error number.
  public var code: Int32

  public init(operation: Operation, path: String, code: Int32) {
    self.operation = operation
    self.path = path
    self.code = code
  }
}
