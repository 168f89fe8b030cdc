import CWeir
import WeirCore

/// The byte layout of the write-ahead log. All integers are little-endian.
///
/// A log is a row of segment files, `<number>.wal` with the number in 16 decimal digits. A segment is a row of blocks of
/// `blockBytes` bytes (4096 unless said otherwise). Its first block is the segment header; batches follow, each beginning
/// at a block of its own, so that a block which was made durable once is never written again.
///
/// A *log offset* counts bytes through all segments: a segment's start offset plus the position in its file. No offset
/// is used twice but behind a torn tail that was cut, so a batch that carries its own offset cannot be mistaken for
/// what an earlier use of the file left there, nor for a write that went to the wrong place.
///
/// A segment may lie in a file that held another one before. It is put aside under a temporary name, gets the new header
/// and then its new name, each durable before the next; behind the header it still holds the old batches until new ones
/// are written over them. They have other log offsets than the places where they now lie, so they are no batches, and no
/// sign of a torn write either. Bytes behind the last batch are zero only where flag 0 of the header is not set.
///
/// Segment header (the whole block is under its checksum):
///
///     offset  size  field
///          0     8  "WEIRWAL1"
///          8     4  CRC-32C of bytes 12 ..< blockBytes
///         12     4  version, 1
///         16     4  blockBytes
///         20     4  flags: bit 0, the file held another segment before
///         24     8  owner (the node's id)
///         32     8  segment number
///         40     8  log offset of the segment's first byte
///         48     8  size of the segment in bytes
///         56     8  log offset at which the last batch before this segment ends
///         64     8  log offset below which everything was durable when this header was written
///         72     4  header checksum of the batch (or, without one, of the segment) before
///         76     4  zero
///         80    24  term, vote, commit at the segment's begin
///        104    16  anchor: index and term of the last entry that is not needed any more
///        120    16  index and term of the last entry at the segment's begin
///        136     n  zeros
///
/// Batch: a header, entry frames as in memory and on the wire (`EntryFrame`), zeros up to the end of the block:
///
///     offset  size  field
///          0     4  "WBAT"
///          4     4  CRC-32C of bytes 8 ..< 96
///          8     8  log offset of this batch
///         16     8  log offset below which everything was durable when this batch was written
///         24     8  owner
///         32     4  size of the frames in bytes
///         36     4  CRC-32C of the frames and the zeros behind them
///         40     4  number of entries
///         44     4  flags: bit 0, the log was emptied and goes on behind the anchor
///         48     4  header checksum of the batch (or segment) before
///         52     4  zero
///         56    24  term, vote, commit
///         80    16  anchor: index and term
///         96     n  frames
///
/// Every batch restates the hard state and the anchor, so the last valid batch alone tells both. A frame whose index is
/// not behind the last one replaces the log from there on: truncation needs no record of its own.
public enum LogFormat {
  public static var version: UInt32 { 1 }
  public static var batchHeaderBytes: Int { 96 }
  public static var segmentHeaderBytes: Int { 136 }
  /// Powers of two that a block may be large.
  public static var blockSizes: ClosedRange<Int> { 256...65536 }

  /// Indexes and log offsets stay below this, so that counting on from one never overflows.
  static var limit: UInt64 { 1 << 62 }

  static var segmentMagic: UInt64 { 0x314C_4157_5249_4557 }  // "WEIRWAL1"
  static var batchMagic: UInt32 { 0x5441_4257 }  // "WBAT"

  static func isBlockSize(_ value: Int) -> Bool { blockSizes.contains(value) && value & (value - 1) == 0 }

  /// `value` rounded up to whole blocks.
  static func roundUp(_ value: Int, toBlocksOf blockBytes: Int) -> Int {
    (value + blockBytes - 1) & ~(blockBytes - 1)
  }

  /// The file name of a segment.
  static func segmentName(_ number: UInt64) -> String {
    let digits = String(number)
    return String(repeating: "0", count: max(0, 16 - digits.count)) + digits + ".wal"
  }

  /// The number in a segment's file name, or nil if it is not one.
  static func segmentNumber(_ name: String) -> UInt64? {
    guard name.hasSuffix(".wal") else { return nil }
    let digits = name.dropLast(4)
    guard digits.utf8.count >= 16, digits.utf8.allSatisfy({ (48...57).contains($0) }), let number = UInt64(digits),
      number < limit
    else { return nil }
    return number
  }
}

/// Where the log stands besides its entries: what every batch and segment restates.
struct LogTail: Hashable {
  var hardState = HardState()
  /// The last entry before the first one held.
  var anchorIndex: LogIndex = 0
  var anchorTerm: Term = 0
  var lastIndex: LogIndex = 0
  var lastTerm: Term = 0
}

/// The first block of a segment.
public struct SegmentHeader: Sendable, Hashable {
  public var blockBytes: Int
  /// The file held another segment before, so bytes behind the last batch need not be zero.
  public var isRecycled = false
  public var owner: UInt64
  public var number: UInt64
  /// Log offset of the segment's first byte.
  public var startOffset: UInt64
  /// Size of the segment in bytes.
  public var capacityBytes: Int
  /// Log offset at which the last batch before this segment ends.
  public var previousEnd: UInt64
  /// Log offset below which everything was durable when the header was written.
  public var syncedOffset: UInt64
  /// Checksum of the header before this one.
  public var previousChecksum: UInt32
  public var hardState: HardState
  public var anchorIndex: LogIndex
  public var anchorTerm: Term
  /// Index of the last entry at the segment's begin.
  public var lastIndex: LogIndex
  public var lastTerm: Term

  /// Writes the header into a whole block.
  /// - Returns: its checksum.
  @unsafe
  func encode(into block: UnsafeMutableRawBufferPointer) -> UInt32 {
    precondition(block.count == blockBytes, "a segment header fills a block")
    unsafe block.initializeMemory(as: UInt8.self, repeating: 0)
    unsafe block.store(LogFormat.segmentMagic, at: 0)
    unsafe block.store(LogFormat.version, at: 12)
    unsafe block.store(UInt32(truncatingIfNeeded: blockBytes), at: 16)
    unsafe block.store(UInt32(isRecycled ? 1 : 0), at: 20)
    unsafe block.store(owner, at: 24)
    unsafe block.store(number, at: 32)
    unsafe block.store(startOffset, at: 40)
    unsafe block.store(UInt64(capacityBytes), at: 48)
    unsafe block.store(previousEnd, at: 56)
    unsafe block.store(syncedOffset, at: 64)
    unsafe block.store(previousChecksum, at: 72)
    unsafe block.store(hardState.term, at: 80)
    unsafe block.store(hardState.vote, at: 88)
    unsafe block.store(hardState.commit, at: 96)
    unsafe block.store(anchorIndex, at: 104)
    unsafe block.store(anchorTerm, at: 112)
    unsafe block.store(lastIndex, at: 120)
    unsafe block.store(lastTerm, at: 128)
    let checksum = unsafe Self.checksum(UnsafeRawBufferPointer(block))
    unsafe block.store(checksum, at: 8)
    return checksum
  }

  /// What a segment's first bytes say about how many of them the header has, before its checksum can be checked.
  @unsafe
  static func blockBytes(_ bytes: UnsafeRawBufferPointer) -> Result<Int, SegmentHeaderFault> {
    guard bytes.count >= LogFormat.segmentHeaderBytes else { return .failure(.damaged("the file has no header")) }
    guard unsafe bytes.value(UInt64.self, at: 0) == LogFormat.segmentMagic else {
      return .failure(.damaged("the header does not begin with WEIRWAL1"))
    }
    let version = unsafe bytes.value(UInt32.self, at: 12)
    guard version == LogFormat.version else { return .failure(.unknownVersion(version)) }
    let blockBytes = unsafe Int(bytes.value(UInt32.self, at: 16))
    guard LogFormat.isBlockSize(blockBytes) else {
      return .failure(.damaged("the block size \(blockBytes) is no power of two from 256 to 65536"))
    }
    return .success(blockBytes)
  }

  /// Reads a whole block.
  @unsafe
  static func decode(_ block: UnsafeRawBufferPointer) -> Result<
    (header: SegmentHeader, checksum: UInt32), SegmentHeaderFault
  > {
    let blockBytes: Int
    switch unsafe Self.blockBytes(block) {
    case .success(let value): blockBytes = value
    case .failure(let fault): return .failure(fault)
    }
    guard blockBytes == block.count else { return .failure(.damaged("the header is cut short")) }
    let checksum = unsafe block.value(UInt32.self, at: 8)
    guard unsafe Self.checksum(block) == checksum else {
      return .failure(.damaged("the header's checksum does not match"))
    }
    let capacity = unsafe block.value(UInt64.self, at: 48)
    let start = unsafe block.value(UInt64.self, at: 40)
    guard capacity >= UInt64(2 * blockBytes), capacity <= UInt64(Int32.max) * 1024,
      start < LogFormat.limit, unsafe block.value(UInt64.self, at: 104) < LogFormat.limit,
      unsafe block.value(UInt64.self, at: 120) < LogFormat.limit
    else { return .failure(.damaged("the header's sizes make no sense")) }
    let header = unsafe SegmentHeader(
      blockBytes: blockBytes, isRecycled: block.value(UInt32.self, at: 20) & 1 != 0,
      owner: block.value(UInt64.self, at: 24),
      number: block.value(UInt64.self, at: 32), startOffset: start, capacityBytes: Int(capacity),
      previousEnd: block.value(UInt64.self, at: 56), syncedOffset: block.value(UInt64.self, at: 64),
      previousChecksum: block.value(UInt32.self, at: 72),
      hardState: HardState(
        term: block.value(UInt64.self, at: 80), vote: block.value(UInt64.self, at: 88),
        commit: block.value(UInt64.self, at: 96)),
      anchorIndex: block.value(UInt64.self, at: 104), anchorTerm: block.value(UInt64.self, at: 112),
      lastIndex: block.value(UInt64.self, at: 120), lastTerm: block.value(UInt64.self, at: 128))
    return .success((header, checksum))
  }

  @unsafe
  private static func checksum(_ block: UnsafeRawBufferPointer) -> UInt32 {
    guard let base = block.baseAddress else { return 0 }
    return unsafe cweir_crc32c(0, base + 12, block.count - 12)
  }
}

/// Why a block is not a segment header.
enum SegmentHeaderFault: Error {
  case damaged(String)
  case unknownVersion(UInt32)
}

/// The header of one batch.
public struct BatchHeader: Sendable, Hashable {
  /// Log offset of the batch.
  public var offset: UInt64
  /// Log offset below which everything was durable when the batch was written.
  public var syncedOffset: UInt64
  public var owner: UInt64
  /// Size of the frames in bytes.
  public var frameBytes: Int
  /// Checksum of the frames and the zeros behind them.
  public var bodyChecksum: UInt32
  public var entryCount: Int
  /// The log was emptied and goes on behind the anchor; else what is up to the anchor is dropped behind this batch.
  public var resetsLog: Bool
  /// Checksum of the header before this one.
  public var previousChecksum: UInt32
  public var hardState: HardState
  public var anchorIndex: LogIndex
  public var anchorTerm: Term

  /// Writes the header.
  /// - Returns: its checksum.
  @unsafe
  func encode(into bytes: UnsafeMutableRawBufferPointer) -> UInt32 {
    precondition(bytes.count == LogFormat.batchHeaderBytes, "a batch header has a fixed size")
    unsafe bytes.store(LogFormat.batchMagic, at: 0)
    unsafe bytes.store(offset, at: 8)
    unsafe bytes.store(syncedOffset, at: 16)
    unsafe bytes.store(owner, at: 24)
    unsafe bytes.store(UInt32(frameBytes), at: 32)
    unsafe bytes.store(bodyChecksum, at: 36)
    unsafe bytes.store(UInt32(entryCount), at: 40)
    unsafe bytes.store(UInt32(resetsLog ? 1 : 0), at: 44)
    unsafe bytes.store(previousChecksum, at: 48)
    unsafe bytes.store(UInt32(0), at: 52)
    unsafe bytes.store(hardState.term, at: 56)
    unsafe bytes.store(hardState.vote, at: 64)
    unsafe bytes.store(hardState.commit, at: 72)
    unsafe bytes.store(anchorIndex, at: 80)
    unsafe bytes.store(anchorTerm, at: 88)
    let checksum = unsafe Self.checksum(UnsafeRawBufferPointer(bytes))
    unsafe bytes.store(checksum, at: 4)
    return checksum
  }

  /// Reads a header, or tells why the bytes are none.
  @unsafe
  static func decode(_ bytes: UnsafeRawBufferPointer) -> (header: BatchHeader, checksum: UInt32)? {
    guard bytes.count >= LogFormat.batchHeaderBytes else { return nil }
    guard unsafe bytes.value(UInt32.self, at: 0) == LogFormat.batchMagic else { return nil }
    let checksum = unsafe bytes.value(UInt32.self, at: 4)
    guard unsafe Self.checksum(bytes) == checksum else { return nil }
    guard unsafe bytes.value(UInt64.self, at: 80) < LogFormat.limit else { return nil }
    let header = unsafe BatchHeader(
      offset: bytes.value(UInt64.self, at: 8), syncedOffset: bytes.value(UInt64.self, at: 16),
      owner: bytes.value(UInt64.self, at: 24), frameBytes: Int(bytes.value(UInt32.self, at: 32)),
      bodyChecksum: bytes.value(UInt32.self, at: 36), entryCount: Int(bytes.value(UInt32.self, at: 40)),
      resetsLog: bytes.value(UInt32.self, at: 44) & 1 != 0, previousChecksum: bytes.value(UInt32.self, at: 48),
      hardState: HardState(
        term: bytes.value(UInt64.self, at: 56), vote: bytes.value(UInt64.self, at: 64),
        commit: bytes.value(UInt64.self, at: 72)),
      anchorIndex: bytes.value(UInt64.self, at: 80), anchorTerm: bytes.value(UInt64.self, at: 88))
    return (header, checksum)
  }

  @unsafe
  private static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    guard let base = bytes.baseAddress else { return 0 }
    return unsafe cweir_crc32c(0, base + 8, LogFormat.batchHeaderBytes - 8)
  }
}
