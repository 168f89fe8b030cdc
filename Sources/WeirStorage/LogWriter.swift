import WeirCore

/// The side of the log that writes: the segments, and how far they are durable.
///
/// May cross threads because one at a time uses it: the caller of `WriteAheadLog`, or the queue of `GroupCommitLog`.
final class LogWriter: @unchecked Sendable {
  private let fileSystem: any FileSystem
  private let directory: String
  private let options: LogOptions
  private let lock: any File
  private let markFile: SyncMarkFile

  private var segments: [LiveSegment]
  private var file: any File
  private var mode: WriteMode
  /// Where the next batch goes, in bytes from the current segment's start.
  private var position: Int
  private var syncedOffset: UInt64
  private var lastChecksum: UInt32
  private var lastBatchOffset: UInt64
  private var tail: LogTail
  private var markedOffset: UInt64 = 0
  private var nextSerial: UInt64 = 1
  private var forcesNewSegment = false
  /// Earlier segments that were not synced when they were full (`SyncPolicy.off`).
  private var unsynchronizedFiles: [any File] = []
  /// Segments that were let go, oldest first; their files are still to be put aside or removed.
  private var dropped: [DroppedSegment] = []
  private var isRemoving = false
  /// Segment files that wait for their turn, made ahead of need or used before.
  private var spares: [PreparedSegment] = []
  /// Files of segments that were let go and will come back as spares.
  private var returningSpares = 0
  private(set) var counters = LogCounters()

  private init(
    fileSystem: any FileSystem, directory: String, options: LogOptions, lock: any File, markFile: SyncMarkFile,
    file: any File, mode: WriteMode, position: Int, replay: LogReplay, segments: [LiveSegment]
  ) {
    self.fileSystem = fileSystem
    self.directory = directory
    self.options = options
    self.lock = lock
    self.markFile = markFile
    self.file = file
    self.mode = mode
    self.position = position
    self.segments = segments
    syncedOffset = replay.endOffset
    lastChecksum = replay.lastChecksum
    lastBatchOffset = replay.lastBatchOffset
    tail = replay.tail
  }

  private var current: LiveSegment { segments[segments.count - 1] }
  private var endOffset: UInt64 { current.startOffset + UInt64(position) }
  /// Everything written is durable.
  var isSynchronized: Bool { syncedOffset == endOffset }
  var isMarked: Bool { markedOffset == syncedOffset }

  // MARK: Opening

  static func open(
    fileSystem: any FileSystem, directory: String, options: LogOptions, feed: LogFeed? = nil
  ) throws(StorageError) -> (LogWriter, LogReplay) {
    let replay = LogReplay(
      fileSystem: fileSystem, directory: directory, owner: options.owner,
      memorySegmentBytes: options.memorySegmentBytes, feed: feed)
    let held: (any File)?
    do throws(FileError) {
      held = try fileSystem.lock(directory + "/lock")
    } catch {
      throw StorageError(error)
    }
    guard let lock = held else { throw .locked(path: directory) }
    try replay.run()
    do throws(FileError) {
      try removeLeftovers(replay, fileSystem, directory)
      let writer =
        try replay.segments.isEmpty
        ? begin(fileSystem, directory, options, lock, replay) : resume(fileSystem, directory, options, lock, replay)
      try writer.mark(durably: false)
      return (writer, replay)
    } catch {
      throw StorageError(error)
    }
  }

  /// Unfinished files, and segments that are no part of the log. Newest first, so that what is left after a crash is
  /// still an unbroken row.
  private static func removeLeftovers(
    _ replay: LogReplay, _ fileSystem: any FileSystem, _ directory: String
  ) throws(FileError) {
    let spares = try fileSystem.list(directory).filter(SegmentPreparer.isSpareName).map { directory + "/" + $0 }
    for path in spares + replay.leftovers.reversed() {
      try fileSystem.remove(path)
      try fileSystem.synchronizeDirectory(directory)
    }
  }

  /// A new log.
  private static func begin(
    _ fileSystem: any FileSystem, _ directory: String, _ options: LogOptions, _ lock: any File, _ replay: LogReplay
  ) throws(FileError) -> LogWriter {
    let isNew = try !fileSystem.list(directory).contains(SyncMark.fileName)
    let capacity = segmentCapacity(options, toHold: 0)
    var mode = wantedMode(options)
    let prepared = try prepare(fileSystem, directory, options, &mode, serial: 0, capacity: capacity)
    let segment = LiveSegment(
      number: 1, path: directory + "/" + LogFormat.segmentName(1), startOffset: 0, capacityBytes: capacity,
      highestIndex: 0)
    let header = SegmentHeader(
      blockBytes: options.blockBytes, owner: options.owner, number: 1, startOffset: 0, capacityBytes: capacity,
      previousEnd: 0, syncedOffset: 0, previousChecksum: 0, hardState: HardState(), anchorIndex: 0, anchorTerm: 0,
      lastIndex: 0, lastTerm: 0)
    let checksum = try install(prepared, header, mode, as: segment.path, fileSystem, directory)
    let writer = LogWriter(
      fileSystem: fileSystem, directory: directory, options: options, lock: lock,
      markFile: try SyncMarkFile.open(fileSystem, directory: directory, isNew: isNew), file: prepared.file, mode: mode,
      position: options.blockBytes, replay: replay, segments: [segment])
    writer.lastChecksum = checksum
    writer.syncedOffset = UInt64(options.blockBytes)
    if prepared.isFilled { writer.counters.zeroFilledSegments = 1 }
    return writer
  }

  /// A log that goes on. What the page cache shows may not be on the disk (after a failed sync its pages count as clean),
  /// so whatever is not known to have been durable is written and synced once more before anybody relies on it.
  private static func resume(
    _ fileSystem: any FileSystem, _ directory: String, _ options: LogOptions, _ lock: any File, _ replay: LogReplay
  ) throws(FileError) -> LogWriter {
    let isNew = try !fileSystem.list(directory).contains(SyncMark.fileName)
    var mode = wantedMode(options)
    let last = replay.segments[replay.segments.count - 1]
    for segment in replay.segments.dropLast() where segment.endOffset > replay.syncedOffset {
      try fileSystem.open(segment.path, mode: .buffered).synchronizeData()
    }
    let position = Int(replay.endOffset - last.startOffset)
    let fileBytes = try restore(last, fileSystem, replay, position)
    let writer = LogWriter(
      fileSystem: fileSystem, directory: directory, options: options, lock: lock,
      markFile: try SyncMarkFile.open(fileSystem, directory: directory, isNew: isNew),
      file: try openForWriting(fileSystem, last.path, &mode), mode: mode, position: position, replay: replay,
      segments: replay.segments)
    // Another block size begins with another segment. So does a file that lost its end: whatever size its header claims
    // is not taken on trust.
    writer.forcesNewSegment = replay.blockBytes != options.blockBytes || fileBytes < last.capacityBytes
    return writer
  }

  /// Makes what was read of the last segment durable again, and wipes what was cut.
  /// - Returns: size of its file in bytes.
  private static func restore(
    _ last: LiveSegment, _ fileSystem: any FileSystem, _ replay: LogReplay, _ position: Int
  ) throws(FileError) -> Int {
    let file = try fileSystem.open(last.path, mode: .buffered)
    let fileBytes = try file.sizeBytes()
    let durable = replay.syncedOffset > last.startOffset ? Int(replay.syncedOffset - last.startOffset) : 0
    try rewrite(file, from: min(durable, position) / replay.blockBytes * replay.blockBytes, to: position)
    if replay.report.cut != nil { try wipe(file, from: position, to: min(last.capacityBytes, fileBytes)) }
    try file.synchronizeData()
    return fileBytes
  }

  private static func rewrite(_ file: any File, from start: Int, to end: Int) throws(FileError) {
    let buffer = AlignedBuffer(capacity: min(1 << 20, max(end - start, 1)))
    var offset = start
    while offset < end {
      let count = min(buffer.capacity, end - offset)
      var span = unsafe MutableRawSpan(_unsafeBytes: buffer.bytes(in: 0..<count))
      guard try file.read(into: &span, at: offset) == count else {
        throw FileError(operation: .read, path: "", code: 5)
      }
      try file.write(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(buffer.bytes(in: 0..<count))), at: offset)
      offset += count
    }
  }

  /// Zeros over what a torn write left, so that no later batch can come to end where an old one begins.
  private static func wipe(_ file: any File, from start: Int, to end: Int) throws(FileError) {
    let zeros = AlignedBuffer(capacity: min(1 << 20, max(end - start, 1)))
    var offset = start
    while offset < end {
      let count = min(zeros.capacity, end - offset)
      try file.write(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(zeros.bytes(in: 0..<count))), at: offset)
      offset += count
    }
  }

  // MARK: Writing

  /// Writes batches behind the last. They are not durable yet, but in direct mode.
  /// - Throws: `StorageError.diskFull` if there is no space for the segment that they need. Then nothing was written, and
  ///   the log is as it was. Any other error leaves open what was written: the log is at its end.
  func write(_ staging: LogStaging) throws(StorageError) {
    guard !staging.isEmpty else { return }
    let needed = staging.paddedByteCount
    if !hasRoom(for: needed) { try beginSegment(toHold: needed) }
    do throws(FileError) {
      let sealed = staging.seal(
        .init(
          offset: endOffset, syncedOffset: syncedOffset, owner: options.owner, previousChecksum: lastChecksum))
      try staging.write(to: file, at: position)
      note(sealed)
      tail = staging.tail
      if mode == .direct { noteSynchronized() }
    } catch {
      throw .fileFailure(error)
    }
  }

  /// Whether batches of this size go into the current segment.
  func hasRoom(for byteCount: Int) -> Bool { position + byteCount <= current.capacityBytes && !forcesNewSegment }

  /// Makes everything written durable, then lets go of segments that are not needed any more.
  func synchronize() throws(StorageError) {
    do throws(FileError) {
      try synchronizeFiles()
    } catch {
      throw .fileFailure(error)
    }
    dropSegments()
  }

  func writeMark(durably: Bool) throws(StorageError) {
    do throws(FileError) {
      try mark(durably: durably)
    } catch {
      throw .fileFailure(error)
    }
  }

  private func mark(durably: Bool) throws(FileError) {
    if !isMarked {
      try markFile.write(
        SyncMark(
          sequence: 0, owner: options.owner, syncedOffset: syncedOffset, batchChecksum: lastChecksum,
          batchOffset: lastBatchOffset, lastIndex: tail.lastIndex))
      markedOffset = syncedOffset
    }
    if durably { try markFile.makeDurable() }
  }

  private func synchronizeFiles() throws(FileError) {
    guard !isSynchronized else { return }
    for earlier in unsynchronizedFiles { try earlier.synchronizeData() }
    unsynchronizedFiles.removeAll()
    try file.synchronizeData()
    noteSynchronized()
  }

  private func note(_ sealed: LogStaging.Sealed) {
    position += sealed.byteCount
    lastChecksum = sealed.lastChecksum
    lastBatchOffset = sealed.lastOffset
    segments[segments.count - 1].highestIndex = max(current.highestIndex, sealed.highestIndex)
    counters.entries += sealed.entryCount
    counters.entryBytes += sealed.frameBytes
    counters.bytes += sealed.byteCount
    counters.batches += sealed.batchCount
    counters.writes += 1
  }

  private func noteSynchronized() {
    counters.syncs += 1
    syncedOffset = endOffset
  }

  // MARK: Segments

  /// Begins the next segment. Its header is durable before it gets its name, and the one before is durable (but under
  /// `SyncPolicy.off`) before the header that says so.
  private func beginSegment(toHold needed: Int) throws(StorageError) {
    let (prepared, mode) = try takeSpare(toHold: needed)
    do throws(FileError) {
      if options.sync != .off || unsynchronizedFiles.count >= Self.maximumUnsynchronizedFiles {
        try synchronizeFiles()
      } else {
        unsynchronizedFiles.append(file)
      }
      try beginSegment(in: prepared, mode)
    } catch {
      throw .fileFailure(error)
    }
  }

  /// A file for the next segment: one that waits, or a new one.
  private func takeSpare(toHold needed: Int) throws(StorageError) -> (PreparedSegment, WriteMode) {
    let capacity = Self.segmentCapacity(options, toHold: needed)
    if let position = spares.firstIndex(where: { $0.capacityBytes >= capacity }) {
      return (spares.remove(at: position), mode)
    }
    var mode = Self.wantedMode(options)
    do throws(FileError) {
      return (try Self.prepare(fileSystem, directory, options, &mode, serial: takeSerial(), capacity: capacity), mode)
    } catch {
      throw StorageError(error)
    }
  }

  private func beginSegment(in prepared: PreparedSegment, _ mode: WriteMode) throws(FileError) {
    let segment = LiveSegment(
      number: current.number + 1, path: directory + "/" + LogFormat.segmentName(current.number + 1),
      startOffset: current.endOffset, capacityBytes: prepared.capacityBytes, highestIndex: tail.lastIndex)
    let header = SegmentHeader(
      blockBytes: options.blockBytes, isRecycled: prepared.isRecycled, owner: options.owner, number: segment.number,
      startOffset: segment.startOffset, capacityBytes: segment.capacityBytes, previousEnd: endOffset,
      syncedOffset: syncedOffset, previousChecksum: lastChecksum, hardState: tail.hardState,
      anchorIndex: tail.anchorIndex, anchorTerm: tail.anchorTerm, lastIndex: tail.lastIndex, lastTerm: tail.lastTerm)
    lastChecksum = try Self.install(prepared, header, mode, as: segment.path, fileSystem, directory)
    let wasSynchronized = isSynchronized
    segments.append(segment)
    file = prepared.file
    self.mode = mode
    position = options.blockBytes
    forcesNewSegment = false
    if wasSynchronized { syncedOffset = endOffset }
    counters.segments += 1
    if prepared.isRecycled { counters.recycledSegments += 1 }
    if prepared.isFilled { counters.zeroFilledSegments += 1 }
  }

  /// How many full segments may wait for a sync that no policy asks for, each with an open file.
  private static var maximumUnsynchronizedFiles: Int { 16 }

  /// The current segment is in use, and there is none to follow it, nor one on its way back. Asked for early: filling the
  /// next one shares the disk with the writing and must be done before this one is full, while a log that is hardly used
  /// needs no second file.
  var wantsSpare: Bool { spares.isEmpty && returningSpares == 0 && position > current.capacityBytes / 8 }

  /// Takes a file that was made for the next segment.
  func addSpare(_ prepared: PreparedSegment) { spares.append(prepared) }

  /// Segments could be dropped by `synchronize`. A first one that is empty, because the first batch was larger than it,
  /// waits for the first anchor: it is not worth a sync that the policy does not ask for.
  var hasUnneededSegments: Bool {
    segments.count > 1 && tail.anchorIndex > 0 && segments[0].highestIndex <= tail.anchorIndex
  }

  /// A number for a temporary name.
  func takeSerial() -> UInt64 {
    nextSerial += 1
    return nextSerial
  }

  var preparer: SegmentPreparer {
    SegmentPreparer(fileSystem: fileSystem, directory: directory, mode: mode, zeroFill: options.zeroFill)
  }

  /// Size of an ordinary segment in bytes.
  var segmentCapacityBytes: Int { Self.segmentCapacity(options, toHold: 0) }

  /// Lets go of segments that hold nothing behind the anchor, oldest first. Some are kept to be used again. The files
  /// themselves are dealt with by `takeRemoval`.
  private func dropSegments() {
    while hasUnneededSegments {
      let old = segments.removeFirst()
      var segment = DroppedSegment(path: old.path, capacityBytes: old.capacityBytes)
      if old.capacityBytes == segmentCapacityBytes, spares.count + returningSpares < options.maximumSpareSegments {
        segment.sparePath = preparer.sparePath(takeSerial())
        returningSpares += 1
      }
      dropped.append(segment)
    }
  }

  /// What is to be done about the segments that were let go, for another thread; nil if there are none, or the one before
  /// is under way: names have to go in order.
  func takeRemoval() -> SegmentRemoval? {
    guard !isRemoving, !dropped.isEmpty else { return nil }
    isRemoving = true
    defer { dropped.removeAll() }
    return SegmentRemoval(fileSystem: fileSystem, directory: directory, mode: mode, segments: dropped)
  }

  /// The removal that was taken has ended, and these files came back from it.
  func noteRemoved(_ removal: SegmentRemoval, kept: [PreparedSegment]) {
    isRemoving = false
    returningSpares -= removal.segments.count { $0.sparePath != nil }
    spares += kept
  }

  /// A removal is over, and what came back from it is not wanted any more: the log is being closed.
  func noteRemovalEnded() { isRemoving = false }

  /// Lets go of segments here and now. If some are under way elsewhere they are in front of these, so then these stay; the
  /// next opening finds that they are not needed.
  func removeDropped() throws(StorageError) {
    guard let removal = takeRemoval() else { return }
    do throws(FileError) {
      noteRemoved(removal, kept: try removal.run())
    } catch {
      throw .fileFailure(error)
    }
  }

  private static func segmentCapacity(_ options: LogOptions, toHold needed: Int) -> Int {
    LogFormat.roundUp(
      max(options.segmentBytes, options.blockBytes + needed, 2 * options.blockBytes), toBlocksOf: options.blockBytes)
  }

  /// Direct writes need whole pages; a policy that does not wait for the disk has no use for them.
  private static func wantedMode(_ options: LogOptions) -> WriteMode {
    options.sync == .always && options.blockBytes % AlignedBuffer.alignment == 0 ? options.writeMode : .buffered
  }

  private static func prepare(
    _ fileSystem: any FileSystem, _ directory: String, _ options: LogOptions, _ mode: inout WriteMode, serial: UInt64,
    capacity: Int
  ) throws(FileError) -> PreparedSegment {
    do throws(FileError) {
      return try SegmentPreparer(
        fileSystem: fileSystem, directory: directory, mode: mode, zeroFill: options.zeroFill, fillBytes: 8 << 20
      ).prepare(serial: serial, capacityBytes: capacity)
    } catch {
      // Not every file system knows direct writes.
      guard mode == .direct, error.isInvalidArgument else { throw error }
      mode = .buffered
      try? fileSystem.remove("\(directory)/spare-\(serial).tmp")
      return try SegmentPreparer(
        fileSystem: fileSystem, directory: directory, mode: mode, zeroFill: options.zeroFill, fillBytes: 8 << 20
      ).prepare(serial: serial, capacityBytes: capacity)
    }
  }

  private static func openForWriting(
    _ fileSystem: any FileSystem, _ path: String, _ mode: inout WriteMode
  ) throws(FileError) -> any File {
    do throws(FileError) {
      return try fileSystem.open(path, mode: mode)
    } catch {
      guard mode == .direct, error.isInvalidArgument else { throw error }
      mode = .buffered
      return try fileSystem.open(path, mode: mode)
    }
  }

  /// Writes the header, then gives the file its name: a segment that is seen has a header.
  private static func install(
    _ prepared: PreparedSegment, _ header: SegmentHeader, _ mode: WriteMode, as path: String,
    _ fileSystem: any FileSystem, _ directory: String
  ) throws(FileError) -> UInt32 {
    let block = AlignedBuffer(capacity: header.blockBytes)
    let checksum = unsafe header.encode(into: block.bytes(in: 0..<header.blockBytes))
    let bytes = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(block.bytes(in: 0..<header.blockBytes)))
    try prepared.file.write(bytes, at: 0)
    if mode == .buffered { try prepared.file.synchronizeData() }
    try fileSystem.rename(prepared.path, to: path)
    try fileSystem.synchronizeDirectory(directory)
    return checksum
  }
}

extension StorageError {
  /// A failed file operation, told apart by what can be done about it.
  init(_ error: FileError) { self = error.isDiskFull ? .diskFull(error) : .fileFailure(error) }
}
