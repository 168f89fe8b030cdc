import Synchronization
import WeirCore

/// The snapshots of one node: files in a directory, each written under a temporary name, synced, then renamed, so that
/// what has its name is whole.
public final class SnapshotStore: Sendable {
  /// A snapshot that has its name.
  public struct Stored: Sendable, Hashable {
    public var metadata: SnapshotMetadata
    public var path: String
    /// Size of the file in bytes: what is sent to a follower.
    public var fileBytes: Int
  }

  let fileSystem: any FileSystem
  let directory: String
  let retained: Int
  private let serial = Mutex<UInt64>(0)
  /// Files of snapshots that are not retained any more, still to be taken off the disk.
  private let discarded = Mutex<[String]>([])

  private init(fileSystem: any FileSystem, directory: String, retained: Int) {
    self.fileSystem = fileSystem
    self.directory = directory
    self.retained = retained
  }

  /// Opens the directory, which is made if it is missing; removes what was left unfinished, except a partly received
  /// snapshot, which can be continued.
  /// - Parameter retained: how many snapshots are kept when a newer one is finished; at least 1.
  public static func open(
    fileSystem: any FileSystem, directory: String, retained: Int = 2
  ) throws(StorageError) -> SnapshotStore {
    let store = SnapshotStore(fileSystem: fileSystem, directory: directory, retained: max(1, retained))
    try store.guarded { () throws(FileError) in
      try fileSystem.createDirectory(directory)
      for name in try fileSystem.list(directory) where name.hasSuffix(".tmp") {
        try fileSystem.remove(directory + "/" + name)
      }
    }
    return store
  }

  /// The snapshots, newest first. Their headers are checked, and those with a damaged one left out.
  public func list() throws(StorageError) -> [Stored] {
    let names = try guarded { () throws(FileError) in try fileSystem.list(directory) }
    var found: [Stored] = []
    for name in names where SnapshotFormat.parse(fileName: name) != nil {
      do throws(StorageError) {
        let reader = try SnapshotReader(fileSystem: fileSystem, path: directory + "/" + name)
        guard SnapshotFormat.fileName(reader.metadata) == name else { continue }
        found.append(Stored(metadata: reader.metadata, path: directory + "/" + name, fileBytes: reader.fileBytes))
      } catch {
        if case .corrupted = error { continue }
        throw error
      }
    }
    return found.sorted { ($0.metadata.index, $0.metadata.term) > ($1.metadata.index, $1.metadata.term) }
  }

  /// The newest snapshot all of whose checksums hold; damaged ones are passed over.
  public func newest() throws(StorageError) -> Stored? {
    for snapshot in try list() {
      do throws(StorageError) {
        try verify(snapshot)
        return snapshot
      } catch {
        if case .corrupted = error { continue }
        throw error
      }
    }
    return nil
  }

  /// Checks every checksum of a snapshot.
  public func verify(_ snapshot: Stored) throws(StorageError) {
    try reader(snapshot).verify()
  }

  /// Begins a snapshot. Nothing of it counts until `SnapshotWriter.finish`.
  public func create(_ metadata: SnapshotMetadata) throws(StorageError) -> SnapshotWriter {
    try SnapshotWriter(store: self, metadata: metadata, temporaryPath: makeTemporaryPath())
  }

  private func makeTemporaryPath() -> String {
    let number = serial.withLock { value in
      value += 1
      return value
    }
    return "\(directory)/snapshot-\(number).tmp"
  }

  /// The oldest snapshot that is retained: the log is needed from there on, so that a newer one may turn out to be damaged.
  public func oldest() throws(StorageError) -> Stored? { try list().prefix(retained).last }

  /// Opens a snapshot for restoring the state machine, or for sending.
  public func reader(_ snapshot: Stored) throws(StorageError) -> SnapshotReader {
    try SnapshotReader(fileSystem: fileSystem, path: snapshot.path)
  }

  /// Begins, or continues, to receive a snapshot file that the leader sends in chunks. What has arrived of another
  /// snapshot is given up: a leader sends its newest.
  public func receive(_ metadata: SnapshotMetadata, fileBytes: Int) throws(StorageError) -> SnapshotReceiver {
    let path = directory + "/" + SnapshotFormat.fileName(metadata) + ".partial"
    try guarded { () throws(FileError) in
      for name in try fileSystem.list(directory) where name.hasSuffix(".partial") && directory + "/" + name != path {
        try fileSystem.remove(directory + "/" + name)
      }
    }
    return try SnapshotReceiver(store: self, metadata: metadata, fileBytes: fileBytes, partialPath: path)
  }

  /// Gives a finished, synced file its name, and lets those go that are older than the retained ones.
  /// - Parameter keepsDiscarded: their files only lose their names, and wait for `removeDiscarded`.
  func publish(
    _ temporaryPath: String, _ metadata: SnapshotMetadata, fileBytes: Int, keepsDiscarded: Bool
  ) throws(StorageError) -> Stored {
    let path = directory + "/" + SnapshotFormat.fileName(metadata)
    try guarded { () throws(FileError) in
      try fileSystem.rename(temporaryPath, to: path)
      try fileSystem.synchronizeDirectory(directory)
    }
    for old in try list().dropFirst(retained) where old.path != path {
      try guarded { () throws(FileError) in
        guard keepsDiscarded else { return try fileSystem.remove(old.path) }
        let discardedPath = makeTemporaryPath()
        try fileSystem.rename(old.path, to: discardedPath)
        discarded.withLock { $0.append(discardedPath) }
      }
    }
    return Stored(metadata: metadata, path: path, fileBytes: fileBytes)
  }

  /// Takes the files of discarded snapshots off the disk piece by piece. At once, it keeps the disk busy for as long as it
  /// takes to give all of the space back (36 ms for 160 MB where the file system discards it on the device), which the
  /// log's writes would have to wait for.
  /// - Parameter rest: called after each piece; false ends it here, and the next opening removes what is left.
  public func removeDiscarded(_ rest: () -> Bool) throws(StorageError) {
    try guarded { () throws(FileError) in
      let paths = discarded.withLock { paths in
        defer { paths.removeAll() }
        return paths
      }
      guard !paths.isEmpty else { return }
      // A name that a power cut brings back must not be that of half a file.
      try fileSystem.synchronizeDirectory(directory)
      for path in paths {
        let file = try fileSystem.open(path, mode: .buffered)
        var size = try file.sizeBytes()
        while size > 0 {
          size = max(0, size - Self.removalBytes)
          try file.truncate(toBytes: size)
          guard rest() else { return }
        }
        try fileSystem.remove(path)
      }
    }
  }

  /// How much of a file is removed at a time, in bytes.
  private static var removalBytes: Int { 1 << 20 }

  func guarded<Value>(_ body: () throws(FileError) -> Value) throws(StorageError) -> Value {
    do throws(FileError) {
      return try body()
    } catch {
      throw StorageError(error)
    }
  }
}
