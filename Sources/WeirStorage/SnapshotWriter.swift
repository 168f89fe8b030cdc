import CWeir
import WeirCore

/// Writes one snapshot, chunk by chunk. Used by one thread at a time. Dropped without `finish` or `publish`, it leaves
/// nothing that counts.
///
/// The file shares a disk with the log, whose writes must not wait behind it. So it is written past the cache, in pieces
/// of `writeBytes` into space that was reserved: through the cache, each sync in passing carried megabytes to the device
/// and committed the file system's journal with them, and the 99th percentile of the log's own writes meanwhile rose from
/// 0.4 ms to 6 ms where three nodes wrote at once (0.5 ms this way). Where there is the file of an earlier snapshot it is
/// written over, and cut to its size before it gets its name.
public final class SnapshotWriter {
  private let store: SnapshotStore
  private let metadata: SnapshotMetadata
  private let temporaryPath: String
  private let file: any File
  private let mode: WriteMode
  private let buffer = AlignedBuffer(capacity: SnapshotWriter.writeBytes)
  private var buffered = 0
  private var offset = 0
  /// How much space the file has; what is behind the snapshot's end is given back.
  private var reservedBytes: Int
  /// How much more is reserved at a time at most.
  private let largestReservationBytes: Int
  private var unsynchronizedBytes = 0
  private var checksum: UInt32
  private var chunks: UInt64 = 0
  private var partBytes: UInt64 = 0
  private var state = State.open

  private enum State {
    /// Takes parts.
    case open
    /// Whole and durable under its temporary name.
    case sealed
    /// Published, or given up.
    case done
  }

  /// Size of one write in bytes; whole pages.
  private static var writeBytes: Int { 64 << 10 }
  /// After how many bytes a file that is written through the cache is synced in passing.
  private static var synchronizeEveryBytes: Int { 1 << 20 }

  /// - Parameter isReused: the file is there, with the bytes of an earlier snapshot.
  init(
    store: SnapshotStore, metadata: SnapshotMetadata, temporaryPath: String, isReused: Bool
  ) throws(StorageError) {
    self.store = store
    self.metadata = metadata
    self.temporaryPath = temporaryPath
    // A state is mostly a little larger than the one before: what is reserved too much is to be given back.
    largestReservationBytes = isReused ? 1 << 20 : 32 << 20
    let header = SnapshotFormat.encodeHeader(metadata)
    checksum = header.checksum
    (file, mode, reservedBytes) = try store.guarded { () throws(FileError) in
      if isReused {
        let (file, mode) = try Self.open(temporaryPath, store.fileSystem)
        return (file, mode, Self.wholePages(try file.sizeBytes()))
      }
      let (file, mode) = try Self.create(temporaryPath, store.fileSystem)
      return (file, mode, 0)
    }
    try put(unsafe header.bytes.span.bytes)
  }

  private static func create(
    _ path: String, _ fileSystem: any FileSystem
  ) throws(FileError) -> (any File, WriteMode) {
    do throws(FileError) {
      return (try fileSystem.create(path, mode: .uncached), .uncached)
    } catch {
      // Not every file system can do without its cache.
      guard error.isInvalidArgument else { throw error }
      try? fileSystem.remove(path)
      return (try fileSystem.create(path, mode: .buffered), .buffered)
    }
  }

  private static func open(_ path: String, _ fileSystem: any FileSystem) throws(FileError) -> (any File, WriteMode) {
    do throws(FileError) {
      return (try fileSystem.open(path, mode: .uncached), .uncached)
    } catch {
      guard error.isInvalidArgument else { throw error }
      return (try fileSystem.open(path, mode: .buffered), .buffered)
    }
  }

  deinit { cancel() }

  /// Adds the next part of the state. One that is longer than `SnapshotFormat.maximumChunkBytes` (a key and its value may be)
  /// becomes several chunks, and is read as such.
  public func append(_ part: RawSpan) throws(StorageError) {
    precondition(state == .open, "a snapshot that is sealed takes nothing more")
    var offset = 0
    while offset < part.byteCount {
      let end = min(offset + SnapshotFormat.maximumChunkBytes, part.byteCount)
      try appendChunk(part.extracting(offset..<end))
      offset = end
    }
  }

  private func appendChunk(_ part: RawSpan) throws(StorageError) {
    checksum = unsafe part.withUnsafeBytes { unsafe SnapshotFormat.checksum(checksum, $0) }
    try putPair(UInt32(part.byteCount), checksum)
    try put(part)
    chunks += 1
    partBytes += UInt64(part.byteCount)
  }

  /// Makes the snapshot durable and visible, and removes those that are older than the retained ones.
  /// - Parameter keepsSpare: the file of one of them is kept, and the next snapshot written over it.
  public func finish(keepsSpare: Bool = false) throws(StorageError) -> SnapshotStore.Stored {
    try seal()
    return try publish(keepsSpare: keepsSpare)
  }

  /// Makes the snapshot whole and durable, under its temporary name: it does not count, and goes when the store is opened
  /// the next time, until it is published.
  public func seal() throws(StorageError) {
    precondition(state == .open, "a snapshot is sealed once")
    var end = [UInt8](repeating: 0, count: 16)
    let endChecksum = unsafe end.withUnsafeMutableBytes { bytes in
      unsafe bytes.store(chunks, at: 0)
      unsafe bytes.store(partBytes, at: 8)
      return unsafe SnapshotFormat.checksum(checksum, UnsafeRawBufferPointer(bytes))
    }
    try putPair(0, endChecksum)
    try put(unsafe end.span.bytes)
    try store.guarded { () throws(FileError) in
      let fileBytes = offset + buffered
      try flush()
      if offset != fileBytes || reservedBytes > fileBytes { try file.truncate(toBytes: fileBytes) }
      offset = fileBytes
      try file.synchronizeData()
    }
    state = .sealed
  }

  /// Reads a sealed snapshot back and checks every checksum: before it takes the place of anything.
  public func verify() throws(StorageError) {
    precondition(state == .sealed, "what is verified is sealed and not published")
    try SnapshotReader(fileSystem: store.fileSystem, path: temporaryPath).verify()
  }

  /// Gives a sealed snapshot its name: from here on it counts. Removes those that are older than the retained ones.
  /// - Parameter keepsSpare: the file of one of them is kept, and the next snapshot written over it.
  public func publish(keepsSpare: Bool = false) throws(StorageError) -> SnapshotStore.Stored {
    precondition(state == .sealed, "a snapshot is published once, when it is whole")
    state = .done
    return try store.publish(temporaryPath, metadata, fileBytes: offset, keepsSpare: keepsSpare)
  }

  /// Gives up and removes the temporary file.
  public func cancel() {
    guard state != .done else { return }
    state = .done
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
      if buffered == buffer.capacity { try store.guarded { () throws(FileError) in try flush() } }
      let count = min(bytes.byteCount - done, buffer.capacity - buffered)
      unsafe bytes.withUnsafeBytes { source in
        let part = unsafe UnsafeRawBufferPointer(rebasing: source[done..<done + count])
        unsafe buffer.bytes(in: buffered..<buffered + count).copyMemory(from: part)
      }
      buffered += count
      done += count
    }
  }

  /// Writes what has gathered. Past the cache only whole pages can be written; what the last one has too much is cut off
  /// in the end.
  private func flush() throws(FileError) {
    guard buffered > 0 else { return }
    var count = buffered
    if mode == .uncached {
      count = Self.wholePages(buffered)
      buffer.zero(buffered..<count)
      try reserve(offset + count)
    }
    try file.write(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(buffer.bytes(in: 0..<count))), at: offset)
    offset += count
    unsynchronizedBytes += count
    buffered = 0
    if mode == .buffered, unsynchronizedBytes >= Self.synchronizeEveryBytes {
      try file.synchronizeData()
      unsynchronizedBytes = 0
    }
  }

  private static func wholePages(_ byteCount: Int) -> Int {
    (byteCount + AlignedBuffer.alignment - 1) / AlignedBuffer.alignment * AlignedBuffer.alignment
  }

  /// Has space for the file's first `neededBytes`, and as much again ahead of it: a write that extends the file waits for
  /// the file system's journal. A snapshot of one write needs none.
  private func reserve(_ neededBytes: Int) throws(FileError) {
    guard neededBytes > reservedBytes, neededBytes > Self.writeBytes else { return }
    let reservation = neededBytes + min(offset, largestReservationBytes)
    try file.reserve(byteCount: reservation)
    reservedBytes = reservation
  }
}
