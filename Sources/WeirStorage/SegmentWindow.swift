import WeirCore

/// A file read front to back through a window of memory that is used again and again.
final class SegmentWindow {
  let path: String
  let fileBytes: Int
  private let file: any File
  private let buffer: AlignedBuffer
  private var start = 0
  private var count = 0

  private static var windowBytes: Int { 1 << 20 }

  init(file: any File, path: String) throws(FileError) {
    self.file = file
    self.path = path
    fileBytes = try file.sizeBytes()
    buffer = AlignedBuffer(capacity: min(Self.windowBytes, max(fileBytes, 1)))
  }

  /// The bytes `offset ..< offset + byteCount`, or as many of them as the file has. Valid until the next call.
  @unsafe
  func bytes(at offset: Int, byteCount: Int) throws(FileError) -> UnsafeRawBufferPointer {
    precondition(offset >= 0 && byteCount >= 0, "a range in the file")
    // The file's real size bounds what is allocated, whatever a header claims.
    let end = min(offset.addingReportingOverflow(byteCount).overflow ? .max : offset + byteCount, fileBytes)
    guard offset < end else { return unsafe UnsafeRawBufferPointer(buffer.bytes(in: 0..<0)) }
    if offset < start || end > start + count { try load(from: offset, needed: end - offset) }
    let available = min(end, start + count)
    guard offset < available else { return unsafe UnsafeRawBufferPointer(buffer.bytes(in: 0..<0)) }
    return unsafe UnsafeRawBufferPointer(buffer.bytes(in: offset - start..<available - start))
  }

  private func load(from offset: Int, needed: Int) throws(FileError) {
    let wanted = min(max(needed, Self.windowBytes), fileBytes - offset)
    start = 0
    count = 0
    buffer.grow(toHold: wanted, keeping: 0)
    var span = unsafe MutableRawSpan(_unsafeBytes: buffer.bytes(in: 0..<wanted))
    count = try file.read(into: &span, at: offset)
    start = offset
  }
}
