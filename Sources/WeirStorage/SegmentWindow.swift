import Dispatch
import WeirCore

/// A file read front to back through a window of memory that is used again and again.
///
/// Of a real file the next window is read on another thread while this one is looked at: copying out of the cache is a
/// quarter of what recovery costs. A simulated disk is read in turn, so that a seed stays a seed.
final class SegmentWindow {
  let path: String
  let fileBytes: Int
  private let file: any File
  private let memory: WindowMemory
  private var buffer: Slab
  /// Where in `buffer` the byte at `start` lies.
  private var origin = 0
  private var start = 0
  private var count = 0
  private var pending: ReadAhead?

  private static var windowBytes: Int { 1 << 20 }
  /// Room in front of a window that is read ahead, for what was not looked at of the one before.
  private static var slackBytes: Int { 1 << 20 }
  /// Size of the memory of a window that is read ahead.
  fileprivate static var aheadBytes: Int { slackBytes + windowBytes }
  /// The beginning of a file is read by itself, up to so much: those that read the headers of many files before the first of
  /// them had a megabyte, and another two that were read ahead, of each (90 MiB for a log of 1.2 GB).
  private static var headBytes: Int { 64 << 10 }
  /// How many bytes are given out at once, at most.
  static var maximumBytes: Int { 1 << 31 }

  /// - Parameter memory: shared by windows of which one at a time is read, each of which is released before the next.
  init(file: any File, path: String, memory: WindowMemory = WindowMemory()) throws(FileError) {
    self.file = file
    self.path = path
    self.memory = memory
    fileBytes = try file.sizeBytes()
    buffer = memory.none
  }

  /// Gives the memory back. What is asked for afterwards is read anew.
  func release() {
    if let ahead = pending {
      pending = nil
      ahead.wait()
      memory.put(ahead.buffer)
    }
    memory.put(buffer)
    buffer = memory.none
    origin = 0
    start = 0
    count = 0
  }

  /// The bytes `offset ..< offset + byteCount`, or as many of them as the file has. Valid until the next call.
  @unsafe
  func bytes(at offset: Int, byteCount: Int) throws(FileError) -> UnsafeRawBufferPointer {
    let (slab, range) = try place(at: offset, byteCount: byteCount)
    return unsafe slab.bytes(in: range)
  }

  /// The same bytes as a range of the memory that holds them. It is written again with the next call, so nothing that
  /// refers to it may be kept until then.
  func place(at offset: Int, byteCount: Int) throws(FileError) -> (slab: Slab, range: Range<Int>) {
    precondition(offset >= 0 && (0...Self.maximumBytes).contains(byteCount), "a range in the file")
    // The file's real size bounds what is allocated, whatever a header claims.
    let end = min(offset.addingReportingOverflow(byteCount).overflow ? .max : offset + byteCount, fileBytes)
    guard offset < end else { return (buffer, 0..<0) }
    if offset < start || end > start + count { try load(from: offset, needed: end - offset) }
    let available = min(end, start + count)
    guard offset < available else { return (buffer, 0..<0) }
    return (buffer, origin + offset - start..<origin + available - start)
  }

  private func load(from offset: Int, needed: Int) throws(FileError) {
    if !takeAhead(from: offset, needed: needed) {
      let isHead = offset == 0 && needed <= Self.headBytes
      let wanted = isHead ? needed : min(max(needed, Self.windowBytes), fileBytes - offset)
      origin = 0
      start = 0
      count = 0
      if buffer.capacity < wanted {
        memory.put(buffer)
        buffer = memory.take(capacity: wanted)
      }
      var span = unsafe MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<wanted]))
      count = try file.read(into: &span, at: offset)
      start = offset
      if isHead { return }
    }
    readAhead()
  }

  /// Begins to read what follows this window.
  private func readAhead() {
    let next = start + count
    guard file is RealFile, count > 0, next < fileBytes else { return }
    let target = memory.take(capacity: Self.aheadBytes)
    let ahead = ReadAhead(
      file: file, offset: next, byteCount: min(Self.windowBytes, fileBytes - next), buffer: target,
      position: Self.slackBytes)
    pending = ahead
    DispatchQueue.global(qos: .userInitiated).async { ahead.run() }
  }

  /// Goes on in the window that was read ahead, if it holds what is wanted. If it could not be read, it is read again by
  /// who needs it, and then the error counts.
  private func takeAhead(from offset: Int, needed: Int) -> Bool {
    guard let ahead = pending else { return false }
    pending = nil
    ahead.wait()
    let rest = start + count - offset
    guard offset >= start, rest >= 0, rest <= Self.slackBytes, ahead.offset == start + count,
      needed <= rest + ahead.count
    else {
      memory.put(ahead.buffer)
      return false
    }
    unsafe UnsafeMutableRawBufferPointer(rebasing: ahead.buffer.bytes[Self.slackBytes - rest..<Self.slackBytes])
      .copyMemory(from: buffer.bytes(in: origin + offset - start..<origin + count))
    memory.put(buffer)
    buffer = ahead.buffer
    origin = Self.slackBytes - rest
    start = offset
    count = rest + ahead.count
    return true
  }
}

/// The memory of a window, and of the one that is read ahead meanwhile: used by one window after the other, so that reading
/// many files takes as much as reading one.
final class WindowMemory {
  private var spares: [Slab] = []
  /// Size in bytes of all that was ever made.
  private(set) var madeBytes = 0
  /// What a window has that has read nothing.
  fileprivate let none = Slab(capacity: 1)

  fileprivate func take(capacity: Int) -> Slab {
    if let position = spares.firstIndex(where: { $0.capacity >= capacity }) { return spares.remove(at: position) }
    madeBytes += capacity
    return Slab(capacity: capacity)
  }

  /// Keeps what any window can use: first windows may be smaller, and one that a large batch needed is too large to be kept.
  fileprivate func put(_ slab: Slab) {
    if slab.capacity == SegmentWindow.aheadBytes, spares.count < 2 { spares.append(slab) }
  }
}

/// A part of a file that is read on another thread.
///
/// May cross threads because one at a time uses it: the reading one until `run` ends, whoever waited for that afterwards.
private final class ReadAhead: @unchecked Sendable {
  let offset: Int
  let buffer: Slab
  private let file: any File
  private let byteCount: Int
  private let position: Int
  private let isDone = DispatchSemaphore(value: 0)
  /// Bytes that were read; 0 after an error.
  private(set) var count = 0

  init(file: any File, offset: Int, byteCount: Int, buffer: Slab, position: Int) {
    self.file = file
    self.offset = offset
    self.byteCount = byteCount
    self.buffer = buffer
    self.position = position
  }

  func run() {
    var span = unsafe MutableRawSpan(
      _unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[position..<position + byteCount]))
    count = (try? file.read(into: &span, at: offset)) ?? 0
    isDone.signal()
  }

  func wait() { isDone.wait() }
}
