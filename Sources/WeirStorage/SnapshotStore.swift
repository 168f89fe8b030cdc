import Synchronization
import WeirCore

/// The snapshots of one node: files in a directory, each written under a temporary name, synced, then renamed, so that
/// what has its name is whole.
public final class SnapshotStore: Sendable {
  /// A snapshot that has its name.
  public struct Stored: Sendable, Hashable {
    public var metadata: SnapshotMetadata
    public var path: String
    /// Size of the file in bytes.
    public var fileBytes: Int
  }

  let fileSystem: any FileSystem
  let directory: String
  let retained: Int
  private let serial = Mutex<UInt64>(0)
  /// The file of a snapshot that is not retained any more, for the next to be written over it.
  private let spare = Mutex<String?>(nil)

  private init(fileSystem: any FileSystem, directory: String, retained: Int) {
    self.fileSystem = fileSystem
    self.directory = directory
    self.retained = retained
  }

  /// Opens the directory, which is made if it is missing; removes what was left unfinished.
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

  /// Begins a snapshot, in the file of an earlier one if there is one to spare. Nothing of it counts until
  /// `SnapshotWriter.finish`.
  public func create(_ metadata: SnapshotMetadata) throws(StorageError) -> SnapshotWriter {
    let used = spare.withLock { path in
      defer { path = nil }
      return path
    }
    return try SnapshotWriter(
      store: self, metadata: metadata, temporaryPath: used ?? makeTemporaryPath(), isReused: used != nil)
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

  /// Opens a snapshot for restoring the state machine.
  public func reader(_ snapshot: Stored) throws(StorageError) -> SnapshotReader {
    try SnapshotReader(fileSystem: fileSystem, path: snapshot.path)
  }

  /// Gives a finished, synced file its name, and lets those go that are older than the retained ones.
  /// - Parameter keepsSpare: one of their files is kept for the next snapshot.
  func publish(
    _ temporaryPath: String, _ metadata: SnapshotMetadata, fileBytes: Int, keepsSpare: Bool
  ) throws(StorageError) -> Stored {
    let path = directory + "/" + SnapshotFormat.fileName(metadata)
    try guarded { () throws(FileError) in
      try fileSystem.rename(temporaryPath, to: path)
      try fileSystem.synchronizeDirectory(directory)
    }
    for old in try list().dropFirst(retained) where old.path != path {
      try guarded { () throws(FileError) in
        if keepsSpare, try putAside(old.path) { return }
        try fileSystem.remove(old.path)
      }
    }
    return Stored(metadata: metadata, path: path, fileBytes: fileBytes)
  }

  /// Keeps a snapshot's file under a temporary name, to be written over. That needs no space to be found for the next
  /// snapshot, and none to be given back for this one: taking 160 MB apart at once keeps a disk busy for 36 ms where the
  /// file system discards them on the device, and both go through its journal, where the log's writes meet them.
  /// - Returns: false if there is one already.
  private func putAside(_ path: String) throws(FileError) -> Bool {
    guard spare.withLock({ $0 == nil }) else { return false }
    let temporaryPath = makeTemporaryPath()
    try fileSystem.rename(path, to: temporaryPath)
    // A name that a power cut brings back must not be that of another snapshot's beginning.
    try fileSystem.synchronizeDirectory(directory)
    spare.withLock { $0 = temporaryPath }
    return true
  }

  func guarded<Value>(_ body: () throws(FileError) -> Value) throws(StorageError) -> Value {
    do throws(FileError) {
      return try body()
    } catch {
      throw StorageError(error)
    }
  }
}
