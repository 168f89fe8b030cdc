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
  private var buffer: Slab
  /// Where in `buffer` the byte at `start` lies.
  private var origin = 0
  private var start = 0
  private var count = 0
  private var pending: ReadAhead?
  /// The buffer for the next window that is read ahead.
  private var spare: Slab?

  private static var windowBytes: Int { 1 << 20 }
  /// Room in front of a window that is read ahead, for what was not looked at of the one before.
  private static var slackBytes: Int { 1 << 20 }
  /// How many bytes are given out at once, at most.
  static var maximumBytes: Int { 1 << 31 }

  init(file: any File, path: String) throws(FileError) {
    self.file = file
    self.path = path
    fileBytes = try file.sizeBytes()
    buffer = Slab(capacity: min(Self.windowBytes, max(fileBytes, 1)))
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
      let wanted = min(max(needed, Self.windowBytes), fileBytes - offset)
      origin = 0
      start = 0
      count = 0
      if buffer.capacity < wanted { buffer = Slab(capacity: wanted) }
      var span = unsafe MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<wanted]))
      count = try file.read(into: &span, at: offset)
      start = offset
    }
    readAhead()
  }

  /// Begins to read what follows this window.
  private func readAhead() {
    let next = start + count
    guard file is RealFile, count > 0, next < fileBytes else { return }
    let target = spare ?? Slab(capacity: Self.slackBytes + Self.windowBytes)
    spare = nil
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
      spare = ahead.buffer
      return false
    }
    unsafe UnsafeMutableRawBufferPointer(rebasing: ahead.buffer.bytes[Self.slackBytes - rest..<Self.slackBytes])
      .copyMemory(from: buffer.bytes(in: origin + offset - start..<origin + count))
    // A first window is smaller than those that are read ahead.
    spare = buffer.capacity >= Self.slackBytes + Self.windowBytes ? buffer : nil
    buffer = ahead.buffer
    origin = Self.slackBytes - rest
    start = offset
    count = rest + ahead.count
    return true
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
