import CWeir
import WeirCore

/// Writes one snapshot, chunk by chunk. Used by one thread at a time. Dropped without `finish`, it leaves nothing that
/// counts.
public final class SnapshotWriter {
  private let store: SnapshotStore
  private let metadata: SnapshotMetadata
  private let temporaryPath: String
  private let file: any File
  private let buffer = AlignedBuffer(capacity: 1 << 20)
  private var buffered = 0
  private var offset = 0
  private var unsynchronizedBytes = 0
  private var checksum: UInt32
  private var chunks: UInt64 = 0
  private var partBytes: UInt64 = 0
  private var isDone = false

  /// After how many bytes the file is synced in passing: the last sync is short then, and the log's own syncs on the same
  /// disk never wait behind a whole snapshot.
  private static var synchronizeEveryBytes: Int { 4 << 20 }

  init(store: SnapshotStore, metadata: SnapshotMetadata, temporaryPath: String) throws(StorageError) {
    self.store = store
    self.metadata = metadata
    self.temporaryPath = temporaryPath
    let header = SnapshotFormat.encodeHeader(metadata)
    checksum = header.checksum
    file = try store.guarded { () throws(FileError) in
      try store.fileSystem.create(temporaryPath, mode: .buffered)
    }
    try put(unsafe header.bytes.span.bytes)
  }

  deinit { cancel() }

  /// Adds the next part of the state, at most `SnapshotFormat.maximumChunkBytes` long. Gathered into large writes, which
  /// are synced in passing.
  public func append(_ part: RawSpan) throws(StorageError) {
    precondition(part.byteCount <= SnapshotFormat.maximumChunkBytes, "a part is at most maximumChunkBytes long")
    guard part.byteCount > 0 else { return }
    checksum = unsafe part.withUnsafeBytes { unsafe SnapshotFormat.checksum(checksum, $0) }
    try putPair(UInt32(part.byteCount), checksum)
    try put(part)
    chunks += 1
    partBytes += UInt64(part.byteCount)
  }

  /// Makes the snapshot durable and visible, and removes those that are older than the retained ones.
  public func finish() throws(StorageError) -> SnapshotStore.Stored {
    precondition(!isDone, "a snapshot is finished or cancelled once")
    var end = [UInt8](repeating: 0, count: 16)
    let endChecksum = unsafe end.withUnsafeMutableBytes { bytes in
      unsafe bytes.store(chunks, at: 0)
      unsafe bytes.store(partBytes, at: 8)
      return unsafe SnapshotFormat.checksum(checksum, UnsafeRawBufferPointer(bytes))
    }
    try putPair(0, endChecksum)
    try put(unsafe end.span.bytes)
    try flush()
    try store.guarded { () throws(FileError) in try file.synchronizeData() }
    isDone = true
    return try store.publish(temporaryPath, metadata, fileBytes: offset)
  }

  /// Gives up and removes the temporary file.
  public func cancel() {
    guard !isDone else { return }
    isDone = true
    // Whatever stays is removed when the store is opened the next time.
    try? store.fileSystem.remove(temporaryPath)
  }

  private func putPair(_ first: UInt32, _ second: UInt32) throws(StorageError) {
    var pair = [UInt8](repeating: 0, count: 8)
    unsafe pair.withUnsafeMutableBytes { bytes in
      unsafe bytes.store(first, at: 0)
      unsafe bytes.store(second, at: 4)
    }
    try put(unsafe pair.span.bytes)
  }

  private func put(_ bytes: RawSpan) throws(StorageError) {
    var done = 0
    while done < bytes.byteCount {
      if buffered == buffer.capacity { try flush() }
      let count = min(bytes.byteCount - done, buffer.capacity - buffered)
      unsafe bytes.withUnsafeBytes { source in
        let part = unsafe UnsafeRawBufferPointer(rebasing: source[done..<done + count])
        unsafe buffer.bytes(in: buffered..<buffered + count).copyMemory(from: part)
      }
      buffered += count
      done += count
    }
  }

  private func flush() throws(StorageError) {
    guard buffered > 0 else { return }
    let bytes = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(buffer.bytes(in: 0..<buffered)))
    do throws(FileError) {
      try file.write(bytes, at: offset)
      offset += buffered
      unsynchronizedBytes += buffered
      buffered = 0
      if unsynchronizedBytes >= Self.synchronizeEveryBytes {
        try file.synchronizeData()
        unsynchronizedBytes = 0
      }
    } catch {
      throw StorageError(error)
    }
  }
}
