import CWeir
import WeirCore

/// Batches on their way to the disk: entry frames copied into page-aligned memory, each batch with room for its header in
/// front, so that one write takes them all. The headers are filled when it is known where they go.
///
/// Copying costs less than a vectored write of the frames where they lie does from some dozen pieces on, direct writes
/// need aligned memory anyway, and the log's segments in memory are free again at once.
///
/// May cross threads because it is handed from the thread that gathers to the one that writes, and back.
final class LogStaging: @unchecked Sendable {
  /// One batch in the making.
  private struct Region {
    var start: Int
    var frameBytes = 0
    var entryCount = 0
    var checksum: UInt32 = 0
    var resetsLog = false
    var tail: LogTail
  }

  /// What all batches get into their headers.
  struct Placement {
    /// Log offset of the first batch.
    var offset: UInt64
    var syncedOffset: UInt64
    var owner: UInt64
    var previousChecksum: UInt32
  }

  /// What was written, for the bookkeeping.
  struct Sealed {
    var byteCount = 0
    var frameBytes = 0
    var entryCount = 0
    var batchCount = 0
    /// Checksum of the last batch's header.
    var lastChecksum: UInt32 = 0
    /// Log offset of the last batch.
    var lastOffset: UInt64 = 0
    /// The highest index of any entry.
    var highestIndex: LogIndex = 0
  }

  /// Memory that is kept between uses; what a burst made larger is given back.
  private static var keptBytes: Int { 8 << 20 }

  let blockBytes: Int
  private var buffer: AlignedBuffer
  private var regions: [Region] = []
  private var used = 0
  private var highestIndex: LogIndex = 0

  init(blockBytes: Int) {
    self.blockBytes = blockBytes
    buffer = AlignedBuffer(capacity: 256 << 10)
  }

  var isEmpty: Bool { regions.isEmpty }

  /// Bytes staged, without the last batch's padding.
  var byteCount: Int { used }

  /// Where the log stands behind everything staged.
  private(set) var tail = LogTail()

  /// Adds entries to the batch.
  /// - Returns: the term of the last one.
  func append(_ entries: EntryBatch, tail: LogTail) -> Term? {
    append(tail: tail)
    guard !entries.isEmpty else { return nil }
    let start = used
    buffer.grow(toHold: used + entries.byteCount + blockBytes, keeping: used)
    var checksum = regions[regions.count - 1].checksum
    entries.forEachSlice { slice in
      let source = unsafe slice.slab.bytes(in: slice.offset..<slice.offset + slice.byteCount)
      let destination = unsafe buffer.bytes(in: used..<used + slice.byteCount)
      unsafe destination.copyMemory(from: source)
      if let base = destination.baseAddress {
        checksum = unsafe cweir_crc32c(checksum, base, slice.byteCount)
      }
      used += slice.byteCount
    }
    regions[regions.count - 1].checksum = checksum
    regions[regions.count - 1].frameBytes += entries.byteCount
    regions[regions.count - 1].entryCount += entries.count
    highestIndex = max(highestIndex, entries.lastIndex)
    let term = lastTerm(from: start)
    self.tail.lastTerm = term
    return term
  }

  /// The term of the last frame, walking those that were just copied by their lengths.
  private func lastTerm(from start: Int) -> Term {
    let frames = unsafe UnsafeRawBufferPointer(buffer.bytes(in: start..<used))
    var position = 0
    while true {
      let length = unsafe Int(frames.value(UInt32.self, at: position))
      let next = position + EntryFrame.occupiedBytes(payloadBytes: length - EntryFrame.headerBytes)
      precondition(next > position, "a frame has a length")
      if next >= used - start { return unsafe frames.value(UInt64.self, at: position + 16) }
      position = next
    }
  }

  /// Restates where the log stands in the last batch, which is begun if there is none.
  func append(tail: LogTail) {
    if regions.isEmpty { beginRegion(tail) } else { setTail(tail) }
  }

  /// Drops what is before the new anchor, behind the batch. It cannot share one that empties the log, since that has its
  /// anchor in front.
  func compact(tail: LogTail) {
    if let last = regions.last, last.resetsLog { beginRegion(tail) } else { append(tail: tail) }
  }

  /// Begins a batch that empties the log. What was staged before stays before it: an entry that the snapshot contradicts
  /// must not come to stand behind the anchor.
  func reset(tail: LogTail) {
    beginRegion(tail)
    regions[regions.count - 1].resetsLog = true
  }

  /// Commit indexes do without a batch of their own; they go with the next.
  func restate(commit: LogIndex) {
    guard !regions.isEmpty else { return }
    regions[regions.count - 1].tail.hardState.commit = commit
  }

  private func setTail(_ tail: LogTail) {
    regions[regions.count - 1].tail = tail
    self.tail = tail
  }

  private func beginRegion(_ tail: LogTail) {
    closeRegion()
    let start = LogFormat.roundUp(used, toBlocksOf: blockBytes)
    buffer.grow(toHold: start + blockBytes, keeping: used)
    regions.append(Region(start: start, tail: tail))
    self.tail = tail
    used = start + LogFormat.batchHeaderBytes
  }

  /// Zeros behind the frames up to the end of the block, which go under the checksum as well.
  private func closeRegion() {
    guard let region = regions.last else { return }
    let end = LogFormat.roundUp(used, toBlocksOf: blockBytes)
    buffer.grow(toHold: end, keeping: used)
    buffer.zero(used..<end)
    if end > used, let base = unsafe buffer.bytes(in: used..<end).baseAddress {
      regions[regions.count - 1].checksum = unsafe cweir_crc32c(region.checksum, base, end - used)
    }
    used = end
  }

  /// Size of everything staged in whole blocks.
  var paddedByteCount: Int { LogFormat.roundUp(used, toBlocksOf: blockBytes) }

  /// Fills the headers.
  func seal(_ placement: Placement) -> Sealed {
    closeRegion()
    var sealed = Sealed(byteCount: used, batchCount: regions.count, highestIndex: highestIndex)
    var previous = placement.previousChecksum
    for region in regions {
      let header = BatchHeader(
        offset: placement.offset + UInt64(region.start), syncedOffset: placement.syncedOffset, owner: placement.owner,
        frameBytes: region.frameBytes, bodyChecksum: region.checksum, entryCount: region.entryCount,
        resetsLog: region.resetsLog, previousChecksum: previous, hardState: region.tail.hardState,
        anchorIndex: region.tail.anchorIndex, anchorTerm: region.tail.anchorTerm)
      previous = unsafe header.encode(
        into: buffer.bytes(in: region.start..<region.start + LogFormat.batchHeaderBytes))
      sealed.lastOffset = header.offset
      sealed.frameBytes += region.frameBytes
      sealed.entryCount += region.entryCount
    }
    sealed.lastChecksum = previous
    return sealed
  }

  /// Writes the sealed bytes.
  func write(to file: any File, at offset: Int) throws(FileError) {
    let bytes = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(buffer.bytes(in: 0..<used)))
    try file.write(bytes, at: offset)
  }

  /// Ready for the next batches.
  func clear() {
    regions.removeAll(keepingCapacity: true)
    used = 0
    highestIndex = 0
    if buffer.capacity > Self.keptBytes { buffer = AlignedBuffer(capacity: 256 << 10) }
  }
}
