import WeirCore

/// Receives one snapshot file in chunks. Used by one thread at a time.
///
/// What has arrived stays in a file of its own, so a broken connection, or a restart, costs only what was in flight.
public final class SnapshotReceiver {
  private let store: SnapshotStore
  private let metadata: SnapshotMetadata
  private let partialPath: String
  private let file: any File
  private var isDone = false

  /// Size of the whole file in bytes.
  public let fileBytes: Int
  /// How many bytes have arrived: the offset that the next chunk must have, and what is told to the leader after a
  /// broken connection.
  public private(set) var receivedBytes: Int

  init(
    store: SnapshotStore, metadata: SnapshotMetadata, fileBytes: Int, partialPath: String
  ) throws(StorageError) {
    self.store = store
    self.metadata = metadata
    self.fileBytes = fileBytes
    self.partialPath = partialPath
    (file, receivedBytes) = try store.guarded { () throws(FileError) in
      do throws(FileError) {
        let file = try store.fileSystem.open(partialPath, mode: .buffered)
        let size = try file.sizeBytes()
        // Longer than the whole: of another file.
        if size > fileBytes { try file.truncate(toBytes: 0) }
        let known = size > fileBytes ? 0 : size
        try Self.writeAgain(file, byteCount: known)
        return (file, known)
      } catch {
        guard error.isMissing else { throw error }
        return (try store.fileSystem.create(partialPath, mode: .buffered), 0)
      }
    }
  }

  /// What an earlier process received may be in the cache and not on the disk, if its last sync failed, and would not be
  /// written by another one; so it is written once more.
  private static func writeAgain(_ file: any File, byteCount: Int) throws(FileError) {
    let buffer = AlignedBuffer(capacity: 1 << 20)
    var offset = 0
    while offset < byteCount {
      var span = unsafe MutableRawSpan(_unsafeBytes: buffer.bytes(in: 0..<min(buffer.capacity, byteCount - offset)))
      let count = try file.read(into: &span, at: offset)
      guard count > 0 else { return }
      try file.write(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(buffer.bytes(in: 0..<count))), at: offset)
      offset += count
    }
  }

  /// Whether all bytes have arrived.
  public var isComplete: Bool { receivedBytes == fileBytes }

  /// Takes the chunk at `offset`. What arrived before is passed over; behind a gap nothing is taken, and the sender goes
  /// back to `receivedBytes`.
  /// - Returns: `receivedBytes` afterwards.
  @discardableResult
  public func receive(_ chunk: RawSpan, at offset: Int) throws(StorageError) -> Int {
    precondition(!isDone, "a snapshot is finished or cancelled once")
    guard offset >= 0, offset <= receivedBytes, chunk.byteCount <= fileBytes - offset else { return receivedBytes }
    let known = receivedBytes - offset
    guard known < chunk.byteCount else { return receivedBytes }
    do throws(FileError) {
      try file.write(chunk.extracting(known..<chunk.byteCount), at: receivedBytes)
    } catch {
      throw StorageError(error)
    }
    receivedBytes = offset + chunk.byteCount
    return receivedBytes
  }

  /// Checks the whole file, makes it durable and visible. A file that does not hold is removed, to be sent anew.
  public func finish() throws(StorageError) -> SnapshotStore.Stored {
    precondition(isComplete && !isDone, "all bytes have arrived, and it is finished or cancelled once")
    do throws(StorageError) {
      let reader = try SnapshotReader(fileSystem: store.fileSystem, path: partialPath)
      guard reader.metadata == metadata else {
        throw .corrupted(
          .init(path: partialPath, offsetBytes: 24, reason: "the file is not the snapshot that was announced"))
      }
      try reader.verify()
    } catch {
      if case .corrupted = error { cancel() }
      throw error
    }
    try store.guarded { () throws(FileError) in try file.synchronizeData() }
    isDone = true
    return try store.publish(partialPath, metadata, fileBytes: fileBytes, keepsSpare: false)
  }

  /// Gives up and removes what has arrived.
  public func cancel() {
    guard !isDone else { return }
    isDone = true
    // Whatever stays is removed when another snapshot is received.
    try? store.fileSystem.remove(partialPath)
  }
}
