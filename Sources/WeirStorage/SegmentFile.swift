import WeirCore

/// A segment file without its header: space reserved, and filled with zeros if the options ask for it.
struct PreparedSegment: Sendable {
  var path: String
  var file: any File
  var capacityBytes: Int
  /// It was a segment before; its old batches are still in it.
  var isRecycled = false
}

/// Makes the files that segments are begun in. Done ahead of need, on any thread.
struct SegmentPreparer: Sendable {
  let fileSystem: any FileSystem
  let directory: String
  let mode: WriteMode
  let zeroFill: Bool

  /// How large one write of zeros is, in bytes. Ahead of need it is small, so that commits which share the disk are not
  /// held up by it; when somebody waits for the segment it is large.
  var fillBytes = 1 << 20

  static func isSpareName(_ name: String) -> Bool { name.hasPrefix("spare-") && name.hasSuffix(".tmp") }

  func sparePath(_ serial: UInt64) -> String { "\(directory)/spare-\(serial).tmp" }

  /// Makes a file under a temporary name. What is left of it after an error is removed.
  func prepare(serial: UInt64, capacityBytes: Int) throws(FileError) -> PreparedSegment {
    let path = sparePath(serial)
    let file = try fileSystem.create(path, mode: mode)
    do {
      try file.reserve(byteCount: capacityBytes)
      if zeroFill { try fill(file, capacityBytes) }
    } catch {
      try? fileSystem.remove(path)
      throw error
    }
    return PreparedSegment(path: path, file: file, capacityBytes: capacityBytes)
  }

  private func fill(_ file: any File, _ capacityBytes: Int) throws(FileError) {
    let zeros = AlignedBuffer(capacity: min(capacityBytes, fillBytes))
    var offset = 0
    while offset < capacityBytes {
      let count = min(fillBytes, capacityBytes - offset)
      let bytes = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(zeros.bytes(in: 0..<count)))
      try file.write(bytes, at: offset)
      if mode == .buffered { try file.synchronizeData() }
      offset += count
    }
  }
}

/// Takes segments that are not needed any more off the disk, oldest first. Done beside the writing, on any thread.
struct SegmentRemoval: Sendable {
  let fileSystem: any FileSystem
  let directory: String
  let paths: [String]

  func run() throws(FileError) {
    for path in paths {
      try fileSystem.remove(path)
      try fileSystem.synchronizeDirectory(directory)
    }
  }
}

/// A segment that is in use or still needed.
struct LiveSegment {
  var number: UInt64
  var path: String
  var startOffset: UInt64
  var capacityBytes: Int
  /// The highest index of any entry that was ever written into it.
  var highestIndex: LogIndex

  var endOffset: UInt64 { startOffset + UInt64(capacityBytes) }
}
