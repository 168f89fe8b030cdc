import CWeir
import WeirCore

/// What somebody who watches a log being read is told.
public enum LogEvent: Sendable {
  case segment(path: String, SegmentHeader)
  case batch(path: String, offsetBytes: Int, BatchHeader)
  case entry(offsetBytes: Int, EntryHeader)
  case mark(SyncMark)
}

/// Reads a log's segments in order and rebuilds what it says. Changes nothing on disk.
///
/// A batch counts if its header and frames match their checksums, it says that it belongs where it lies, and it names the
/// batch before it. The first place where none lies is the end of the log, if everything behind it is of writes that were
/// never made durable: then a crash tore them, nobody was told of them, and they are cut. If anything that was written
/// later says that the place was durable (a later batch, a later segment, the sync mark), the bytes have changed since, and
/// the log is refused: cutting it would silently lose acknowledged entries. That a valid batch follows proves nothing by
/// itself, as a disk may keep the later of two unsynced writes and lose the earlier.
///
/// What an earlier segment left in a file that is used again counts as nothing, neither as a batch nor as a trace: a batch
/// says the log offset that it was written for, and no two places in a log's life share one. So behind the last batch of
/// such a segment old bytes are as good as zeros. The one difference: a torn write of which no header reached the disk
/// leaves no trace there, so it is passed over instead of being reported as cut.
///
/// Cost of an entry: its bytes are copied out of the cache (on another thread), summed for the batch, verified as a frame
/// among others that are alike, and copied into the log as they are, without a step of its own but for its length.
/// Measured (`bench wal`, 2-core EPYC 9005, 1,000,000 entries of 128 bytes in the cache, in turns): 7.4 to 7.6 M entries/s,
/// 1.21 to 1.25 GB/s; verified and sealed one by one it was 5.4 to 5.7. Three quarters of that are page faults of the 160 MB
/// that are handed out: who takes the entries through a `LogFeed` has a few segments that are used over and over.
final class LogReplay {
  private let fileSystem: any FileSystem
  private let directory: String
  private let owner: UInt64?
  private let observer: ((LogEvent) -> Void)?
  private let feed: LogFeed?
  /// What the segments are read through, one after the other.
  let memory = WindowMemory()

  private(set) var log: LogBuffer
  private(set) var tail = LogTail()
  private(set) var report = RecoveryReport()
  /// The segments that make up the log, in order.
  private(set) var segments: [LiveSegment] = []
  /// Files of segments that are not part of it: left over in front, or behind a cut.
  private(set) var leftovers: [String] = []
  private(set) var mark: SyncMark?
  /// Log offset where the log ends, and the next batch goes.
  private(set) var endOffset: UInt64 = 0
  /// Log offset below which everything is known to have been durable.
  private(set) var syncedOffset: UInt64 = 0
  /// Checksum of the last header.
  private(set) var lastChecksum: UInt32 = 0
  /// Log offset of the last batch.
  private(set) var lastBatchOffset: UInt64 = 0
  /// Block size of the last segment.
  private(set) var blockBytes = 0

  /// The entries up to this one lie in segments that are gone; the anchor must come to cover them.
  private var missingThrough: LogIndex = 0

  private struct Loaded {
    var window: SegmentWindow
    var header: SegmentHeader
    var checksum: UInt32
    var path: String
  }

  private enum Reading {
    case batch(BatchHeader, checksum: UInt32)
    /// None; `isTraced` if the bytes are certainly of a write to this place.
    case none(reason: String, isTraced: Bool)
  }

  init(
    fileSystem: any FileSystem, directory: String, owner: UInt64?, memorySegmentBytes: Int = 1 << 20,
    feed: LogFeed? = nil, observer: ((LogEvent) -> Void)? = nil
  ) {
    self.fileSystem = fileSystem
    self.directory = directory
    self.owner = owner
    self.observer = observer
    self.feed = feed
    log = LogBuffer(configuration: .init(segmentBytes: memorySegmentBytes))
  }

  /// Takes the entries out.
  func takeLog() -> LogBuffer {
    var taken = LogBuffer(configuration: .init(segmentBytes: 4096, maximumSpareSegments: 0))
    swap(&taken, &log)
    return taken
  }

  func run() throws(StorageError) {
    do {
      let names = try fileSystem.list(directory)
      try readMark(names)
      let loaded = try load(names)
      guard let first = loaded.first else { return try refuseMarkWithoutLog() }
      begin(with: first.header)
      for position in loaded.indices {
        let next = position + 1 < loaded.count ? loaded[position + 1] : nil
        defer { loaded[position].window.release() }
        guard try replay(loaded[position], next: next, later: loaded[(position + 1)...]) else {
          leftovers += loaded[(position + 1)...].map(\.path)
          break
        }
      }
      try finish(first)
    } catch let error as StorageError {
      throw error
    } catch let error as FileError {
      throw .fileFailure(error)
    } catch {
      preconditionFailure("only storage and file errors are thrown here")
    }
  }

  // MARK: Files

  private func readMark(_ names: [String]) throws {
    guard names.contains(SyncMark.fileName) else { return }
    let path = directory + "/" + SyncMark.fileName
    guard let found = try SyncMarkFile.read(fileSystem.openForReading(path)) else { return }
    if let owner, found.owner != owner {
      throw StorageError.wrongOwner(path: path, expected: owner, found: found.owner)
    }
    mark = found
    syncedOffset = found.syncedOffset
    observer?(.mark(found))
  }

  private func refuseMarkWithoutLog() throws {
    guard let mark, mark.syncedOffset > 0 else { return }
    throw corruption(
      directory + "/" + SyncMark.fileName, 0,
      "the sync mark says that the log was durable up to log offset \(mark.syncedOffset), but there are no segments")
  }

  /// The headers of the last unbroken row of segments. What lies before a gap was dropped, and the names came back with
  /// a power cut; if it was not, `finish` finds that entries are missing.
  private func load(_ names: [String]) throws -> [Loaded] {
    var loaded: [Loaded] = []
    for (name, number) in names.compactMap({ name in LogFormat.segmentNumber(name).map { (name, $0) } }) {
      let path = directory + "/" + name
      if let last = loaded.last, last.header.number + 1 != number {
        leftovers += loaded.map(\.path)
        loaded.removeAll()
      }
      let window = try SegmentWindow(file: fileSystem.openForReading(path), path: path, memory: memory)
      let (header, checksum) = try readHeader(window, path: path, number: number)
      window.release()
      if let last = loaded.last, last.header.startOffset + UInt64(last.header.capacityBytes) != header.startOffset {
        throw corruption(path, 40, "the segment does not begin where the one before ends")
      }
      loaded.append(Loaded(window: window, header: header, checksum: checksum, path: path))
    }
    return loaded
  }

  private func readHeader(
    _ window: SegmentWindow, path: String, number: UInt64
  ) throws -> (SegmentHeader, UInt32) {
    let start = unsafe try window.bytes(at: 0, byteCount: LogFormat.segmentHeaderBytes)
    let size = try unsafe SegmentHeader.blockBytes(start).mapError { refusal($0, path) }.get()
    let block = unsafe try window.bytes(at: 0, byteCount: size)
    let decoded = try unsafe SegmentHeader.decode(block).mapError { refusal($0, path) }.get()
    if let owner, decoded.header.owner != owner {
      throw StorageError.wrongOwner(path: path, expected: owner, found: decoded.header.owner)
    }
    guard decoded.header.number == number else {
      throw corruption(path, 32, "the header is that of segment \(decoded.header.number)")
    }
    return decoded
  }

  private func refusal(_ fault: SegmentHeaderFault, _ path: String) -> StorageError {
    switch fault {
    case .unknownVersion(let version): .unknownVersion(path: path, version: version)
    case .damaged(let reason): corruption(path, 0, reason)
    }
  }

  private func corruption(_ path: String, _ offset: Int, _ reason: String) -> StorageError {
    .corrupted(.init(path: path, offsetBytes: offset, reason: reason))
  }

  // MARK: Segments

  private func begin(with header: SegmentHeader) {
    tail = LogTail(
      hardState: header.hardState, anchorIndex: header.anchorIndex, anchorTerm: header.anchorTerm,
      lastIndex: header.lastIndex, lastTerm: header.lastTerm)
    missingThrough = header.lastIndex > header.anchorIndex ? header.lastIndex : 0
    if missingThrough > 0 {
      log.reset(anchorIndex: header.lastIndex, anchorTerm: header.lastTerm)
    } else {
      log.reset(anchorIndex: header.anchorIndex, anchorTerm: header.anchorTerm)
    }
  }

  /// Replays one segment.
  /// - Returns: whether the log goes on in the next one.
  private func replay(_ segment: Loaded, next: Loaded?, later: ArraySlice<Loaded>) throws -> Bool {
    let header = segment.header
    observer?(.segment(path: segment.path, header))
    report.segments += 1
    if header.isRecycled { report.recycledSegments += 1 }
    segments.append(
      LiveSegment(
        number: header.number, path: segment.path, startOffset: header.startOffset, capacityBytes: header.capacityBytes,
        highestIndex: log.lastIndex))
    blockBytes = header.blockBytes
    syncedOffset = max(syncedOffset, header.syncedOffset)
    lastChecksum = segment.checksum
    var position = header.blockBytes
    endOffset = header.startOffset + UInt64(position)
    while true {
      if let next, next.header.previousEnd == endOffset {
        guard next.header.previousChecksum == lastChecksum else {
          throw corruption(next.path, 72, "the segment does not continue the one before")
        }
        return true
      }
      switch try readBatch(segment, at: position) {
      case .batch(let batch, let checksum):
        try apply(batch, segment, at: position)
        lastChecksum = checksum
        lastBatchOffset = batch.offset
        position += occupied(batch, header.blockBytes)
        endOffset = header.startOffset + UInt64(position)
      case .none(let reason, let isTraced):
        try end(segment, at: position, reason: reason, isTraced: isTraced, later: later)
        return false
      }
    }
  }

  private func occupied(_ batch: BatchHeader, _ blockBytes: Int) -> Int {
    LogFormat.roundUp(LogFormat.batchHeaderBytes + batch.frameBytes, toBlocksOf: blockBytes)
  }

  private func readBatch(_ segment: Loaded, at position: Int) throws -> Reading {
    let limit = min(segment.header.capacityBytes, segment.window.fileBytes)
    guard position < limit else { return .none(reason: "the file ends", isTraced: false) }
    let start = unsafe try segment.window.bytes(at: position, byteCount: LogFormat.batchHeaderBytes)
    guard let (header, checksum) = unsafe BatchHeader.decode(start) else {
      return .none(reason: "there is no batch header with a matching checksum", isTraced: false)
    }
    guard header.owner == segment.header.owner, header.offset == segment.header.startOffset + UInt64(position) else {
      return .none(reason: "the batch there was written for log offset \(header.offset)", isTraced: false)
    }
    guard header.previousChecksum == lastChecksum else {
      return .none(reason: "the batch there does not continue the one before", isTraced: true)
    }
    let size = occupied(header, segment.header.blockBytes)
    guard size <= min(limit - position, SegmentWindow.maximumBytes) else {
      return .none(reason: "the batch runs past the end", isTraced: true)
    }
    let bytes = unsafe try segment.window.bytes(at: position, byteCount: size)
    guard bytes.count == size, let base = bytes.baseAddress else {
      return .none(reason: "the file ends within the batch", isTraced: true)
    }
    let body = unsafe cweir_crc32c(0, base + LogFormat.batchHeaderBytes, size - LogFormat.batchHeaderBytes)
    guard body == header.bodyChecksum else {
      return .none(reason: "the checksum of the batch's entries does not match", isTraced: true)
    }
    return .batch(header, checksum: checksum)
  }

  // MARK: Batches

  private func apply(_ batch: BatchHeader, _ segment: Loaded, at position: Int) throws {
    observer?(.batch(path: segment.path, offsetBytes: position, batch))
    if batch.resetsLog {
      log.reset(anchorIndex: batch.anchorIndex, anchorTerm: batch.anchorTerm)
      missingThrough = 0
    }
    tail.hardState = batch.hardState
    try appendFrames(batch, segment, at: position)
    if !batch.resetsLog { try compact(batch, segment, at: position) }
    tail.anchorIndex = batch.anchorIndex
    tail.anchorTerm = batch.anchorTerm
    feed?.advance(&log, commit: batch.hardState.commit)
    syncedOffset = max(syncedOffset, batch.syncedOffset)
    report.batches += 1
    report.bytes += occupied(batch, segment.header.blockBytes)
  }

  private func appendFrames(_ batch: BatchHeader, _ segment: Loaded, at position: Int) throws {
    guard batch.frameBytes > 0 else { return try note(0, highest: 0, of: batch, segment, at: position) }
    let start = position + LogFormat.batchHeaderBytes
    let (slab, range) = try segment.window.place(at: start, byteCount: batch.frameBytes)
    if let run = try? EntryBatch.verifying(slab: slab, range: range), isContinuation(run) {
      append(run, at: start)
      try note(run.count, highest: run.lastIndex, of: batch, segment, at: position)
    } else {
      unsafe try appendEach(slab.bytes(in: range), batch, segment, at: position)
    }
  }

  /// Whether entries that follow each other, as nearly all batches have them, are as a whole what the log goes on with.
  private func isContinuation(_ run: EntryBatch) -> Bool {
    run.firstIndex > max(tail.anchorIndex, log.anchorIndex) && run.firstIndex <= log.lastIndex + 1
      && run.terms.first >= log.term(at: run.firstIndex - 1) ?? 0 && !(feed?.hasTaken(run.firstIndex) ?? false)
  }

  /// They are copied as they lie, with the checksums that were just found to be right.
  private func append(_ run: EntryBatch, at start: Int) {
    if let observer {
      var offset = start
      run.forEach { header, _ in
        observer(.entry(offsetBytes: offset, header))
        offset += EntryFrame.occupiedBytes(payloadBytes: header.payloadBytes)
      }
    }
    log.truncateSuffix(from: run.firstIndex)
    log.append(run, from: run.firstIndex)
  }

  /// One entry after the other: where a batch holds a suffix together with what replaced it, and to say what is wrong with
  /// one that holds no log.
  @unsafe
  private func appendEach(
    _ bytes: UnsafeRawBufferPointer, _ batch: BatchHeader, _ segment: Loaded, at position: Int
  ) throws {
    let start = position + LogFormat.batchHeaderBytes
    var used = 0
    var entries = 0
    var highest: LogIndex = 0
    while used < batch.frameBytes {
      let frame = unsafe UnsafeRawBufferPointer(rebasing: bytes[used...])
      let header: EntryHeader
      do throws(EntryFrameError) {
        header = unsafe try EntryFrame.verify(frame)
      } catch {
        throw corruption(segment.path, start + used, "the entry frame is not valid: \(error)")
      }
      observer?(.entry(offsetBytes: start + used, header))
      let payload = unsafe UnsafeRawBufferPointer(
        rebasing: frame[EntryFrame.headerBytes..<EntryFrame.headerBytes + header.payloadBytes])
      unsafe try append(header, RawSpan(_unsafeBytes: payload), segment, at: start + used)
      highest = max(highest, header.index)
      used += EntryFrame.occupiedBytes(payloadBytes: header.payloadBytes)
      entries += 1
    }
    try note(entries, highest: highest, of: batch, segment, at: position)
  }

  private func note(
    _ entries: Int, highest: LogIndex, of batch: BatchHeader, _ segment: Loaded, at position: Int
  ) throws {
    guard entries == batch.entryCount else {
      throw corruption(segment.path, position, "the batch has \(entries) entries instead of \(batch.entryCount)")
    }
    report.entries += entries
    segments[segments.count - 1].highestIndex = max(segments[segments.count - 1].highestIndex, highest)
  }

  /// One entry: it continues the log, or replaces it from its index on.
  private func append(_ header: EntryHeader, _ payload: RawSpan, _ segment: Loaded, at offset: Int) throws {
    guard header.index > tail.anchorIndex, header.index <= log.lastIndex + 1 else {
      throw corruption(
        segment.path, offset, "entry \(header.index) does not continue a log of \(log.firstIndex) to \(log.lastIndex)")
    }
    if let feed, feed.hasTaken(header.index) {
      throw corruption(segment.path, offset, "entry \(header.index) comes again after it was committed")
    }
    if header.index <= log.anchorIndex {
      // It replaces entries of a segment that is gone, all of which the anchor came to cover later. What followed them
      // goes with them: skipping the entry instead would revive that (etcd's WAL did, etcd-io/etcd issue 22442).
      log.reset(anchorIndex: header.index - 1, anchorTerm: 0)
    } else {
      log.truncateSuffix(from: header.index)
    }
    guard header.term >= log.lastTerm else {
      throw corruption(segment.path, offset, "entry \(header.index) has term \(header.term) behind \(log.lastTerm)")
    }
    log.append(term: header.term, kind: header.kind, payload: payload)
  }

  /// Drops what is up to the anchor.
  private func compact(_ batch: BatchHeader, _ segment: Loaded, at position: Int) throws {
    let anchor = batch.anchorIndex
    if anchor >= missingThrough { missingThrough = 0 }
    guard anchor > log.anchorIndex else { return }
    guard anchor <= log.lastIndex, log.term(at: anchor) == batch.anchorTerm else {
      throw corruption(
        segment.path, position, "the anchor, entry \(anchor) of term \(batch.anchorTerm), is not in the log")
    }
    log.releasePrefix(through: anchor)
  }

  // MARK: The end

  /// Decides what the first place without a batch is: the end, a torn tail, or damage.
  private func end(
    _ segment: Loaded, at position: Int, reason: String, isTraced: Bool, later: ArraySlice<Loaded>
  ) throws {
    let traces = try trace(segment, from: position)
    var claimed = max(syncedOffset, traces.syncedOffset)
    for other in later {
      claimed = max(claimed, other.header.syncedOffset)
      claimed = max(claimed, try trace(other, from: other.header.blockBytes).syncedOffset)
    }
    guard claimed <= endOffset else {
      throw corruption(
        segment.path, position, "\(reason), but the log was durable up to log offset \(claimed) (here: \(endOffset))")
    }
    guard isTraced || traces.isWritten || !later.isEmpty else { return }
    report.cut = RecoveryReport.Cut(path: segment.path, offsetBytes: position, reason: reason)
  }

  /// What the blocks from `position` on tell: the furthest durable offset that any batch there names, and whether
  /// anything was written there that never became part of the log.
  private func trace(_ segment: Loaded, from position: Int) throws -> (syncedOffset: UInt64, isWritten: Bool) {
    defer { segment.window.release() }
    var claimed: UInt64 = 0
    var isWritten = false
    var offset = position
    let block = segment.header.blockBytes
    let limit = min(segment.header.capacityBytes, segment.window.fileBytes)
    // One batch that says so is enough.
    while offset < limit, claimed <= endOffset {
      let bytes = unsafe try segment.window.bytes(at: offset, byteCount: block)
      if let (header, _) = unsafe BatchHeader.decode(bytes), header.owner == segment.header.owner,
        header.offset == segment.header.startOffset + UInt64(offset)
      {
        claimed = max(claimed, header.syncedOffset)
        isWritten = true
      } else if !segment.header.isRecycled, !isWritten, unsafe !bytes.isAllZero {
        isWritten = true
      }
      offset += block
    }
    return (claimed, isWritten)
  }

  private func finish(_ first: Loaded) throws {
    guard missingThrough == 0 else {
      throw corruption(
        first.path, 120, "entries up to \(missingThrough) are in segments before this one, which are missing")
    }
    // The leader's own write runs beside replication, so the commit index may be ahead of the entries here.
    tail.hardState.commit = min(tail.hardState.commit, log.lastIndex)
    tail.lastIndex = log.lastIndex
    tail.lastTerm = log.lastTerm
    report.anchorIndex = tail.anchorIndex
    report.lastIndex = log.lastIndex
  }
}
