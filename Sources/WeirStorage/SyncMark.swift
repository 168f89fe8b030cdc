import CWeir
import WeirCore

/// The separate note of how far the log was made durable, in a file of its own.
///
/// Each batch says what was durable when it was written, so damage to anything but the last durable batch shows. Damage
/// to that one looks like a torn write: only this mark, written behind the sync, tells them apart (the remedy of
/// Alagappan et al., FAST 2018). A mark without its batch is corruption.
///
/// Two slots of 512 bytes are written in turn, so that a torn write leaves the other:
///
///     offset  size  field
///          0     4  "WMRK"
///          4     4  CRC-32C of bytes 8 ..< 64
///          8     8  sequence: the slot with the larger one counts
///         16     8  owner
///         24     8  log offset below which everything is durable
///         32     4  checksum of the last durable batch's header
///         36     4  zero
///         40     8  log offset of that batch
///         48     8  index of the last durable entry
///         56     8  zero
///
/// It goes through the cache without a sync of its own, at the price of one small write; `makeDurable` adds the sync when
/// the log is idle or closed. A mark that a power cut takes back only makes the check weaker, never wrong.
public struct SyncMark: Sendable, Hashable {
  public static var fileName: String { "synced" }
  static var slotBytes: Int { 512 }
  static var usedBytes: Int { 64 }
  static var magic: UInt32 { 0x4B52_4D57 }  // "WMRK"

  public var sequence: UInt64
  public var owner: UInt64
  /// Log offset below which everything is durable.
  public var syncedOffset: UInt64
  /// Checksum of the last durable batch's header.
  public var batchChecksum: UInt32
  /// Log offset of the last durable batch.
  public var batchOffset: UInt64
  /// Index of the last durable entry.
  public var lastIndex: LogIndex

  @unsafe
  func encode(into bytes: UnsafeMutableRawBufferPointer) {
    precondition(bytes.count == Self.usedBytes, "a mark has a fixed size")
    unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0)
    unsafe bytes.store(Self.magic, at: 0)
    unsafe bytes.store(sequence, at: 8)
    unsafe bytes.store(owner, at: 16)
    unsafe bytes.store(syncedOffset, at: 24)
    unsafe bytes.store(batchChecksum, at: 32)
    unsafe bytes.store(batchOffset, at: 40)
    unsafe bytes.store(lastIndex, at: 48)
    unsafe bytes.store(Self.checksum(UnsafeRawBufferPointer(bytes)), at: 4)
  }

  @unsafe
  static func decode(_ bytes: UnsafeRawBufferPointer) -> SyncMark? {
    guard bytes.count >= usedBytes, unsafe bytes.value(UInt32.self, at: 0) == magic else { return nil }
    guard unsafe checksum(bytes) == bytes.value(UInt32.self, at: 4) else { return nil }
    return unsafe SyncMark(
      sequence: bytes.value(UInt64.self, at: 8), owner: bytes.value(UInt64.self, at: 16),
      syncedOffset: bytes.value(UInt64.self, at: 24), batchChecksum: bytes.value(UInt32.self, at: 32),
      batchOffset: bytes.value(UInt64.self, at: 40), lastIndex: bytes.value(UInt64.self, at: 48))
  }

  @unsafe
  private static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    guard let base = bytes.baseAddress else { return 0 }
    return unsafe cweir_crc32c(0, base + 8, usedBytes - 8)
  }
}

/// The mark's file.
final class SyncMarkFile {
  private let file: any File
  private var sequence: UInt64
  private let buffer = AlignedBuffer(capacity: 4096)

  /// Opens the file, or makes one that holds no mark.
  static func open(_ fileSystem: any FileSystem, directory: String, isNew: Bool) throws(FileError) -> SyncMarkFile {
    let path = directory + "/" + SyncMark.fileName
    if !isNew {
      let file = try fileSystem.open(path, mode: .buffered)
      return SyncMarkFile(file: file, sequence: try read(file)?.sequence ?? 0)
    }
    let file = try fileSystem.create(path, mode: .buffered)
    let result = SyncMarkFile(file: file, sequence: 0)
    let zeros = unsafe RawSpan(
      _unsafeBytes: UnsafeRawBufferPointer(result.buffer.bytes(in: 0..<2 * SyncMark.slotBytes)))
    try file.write(zeros, at: 0)
    try file.synchronizeData()
    try fileSystem.synchronizeDirectory(directory)
    return result
  }

  private init(file: any File, sequence: UInt64) {
    self.file = file
    self.sequence = sequence
  }

  /// The newest valid mark, or nil if there is none.
  static func read(_ file: any File) throws(FileError) -> SyncMark? {
    let buffer = AlignedBuffer(capacity: 4096)
    var span = unsafe MutableRawSpan(_unsafeBytes: buffer.bytes(in: 0..<2 * SyncMark.slotBytes))
    let count = try file.read(into: &span, at: 0)
    var best: SyncMark?
    for slot in 0..<2 where (slot + 1) * SyncMark.slotBytes <= count {
      let start = slot * SyncMark.slotBytes
      let bytes = unsafe UnsafeRawBufferPointer(buffer.bytes(in: start..<start + SyncMark.usedBytes))
      guard let mark = unsafe SyncMark.decode(bytes) else { continue }
      if mark.sequence >= best?.sequence ?? 0 { best = mark }
    }
    return best
  }

  /// Writes the next mark; its `sequence` is set here.
  func write(_ mark: SyncMark) throws(FileError) {
    sequence &+= 1
    var mark = mark
    mark.sequence = sequence
    unsafe mark.encode(into: buffer.bytes(in: 0..<SyncMark.usedBytes))
    let bytes = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(buffer.bytes(in: 0..<SyncMark.usedBytes)))
    try file.write(bytes, at: Int(sequence % 2) * SyncMark.slotBytes)
  }

  func makeDurable() throws(FileError) { try file.synchronizeData() }
}
