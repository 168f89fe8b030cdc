import WeirCore

/// A segment file without its header: space reserved, and filled with zeros if the options ask for it.
struct PreparedSegment: Sendable {
  var path: String
  var file: any File
  var capacityBytes: Int
  /// It was a segment before; its old batches are still in it.
  var isRecycled = false
  /// It was filled with zeros.
  var isFilled = false
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
    return PreparedSegment(path: path, file: file, capacityBytes: capacityBytes, isFilled: zeroFill)
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

/// A segment that is not needed any more.
struct DroppedSegment: Sendable {
  var path: String
  var capacityBytes: Int
  /// The temporary name under which the file is kept to be used again; nil if it goes.
  var sparePath: String?
}

/// Lets go of segments that are not needed any more, oldest first: some files are put aside to be used again, which
/// spares the disk both the filling of another and the taking apart of this one; the others are removed. Each name is
/// durably gone before the next one goes, so that a power cut leaves no gap. Done beside the writing, on any thread.
struct SegmentRemoval: Sendable {
  let fileSystem: any FileSystem
  let directory: String
  let mode: WriteMode
  let segments: [DroppedSegment]

  /// - Returns: the files that were put aside.
  func run() throws(FileError) -> [PreparedSegment] {
    var kept: [PreparedSegment] = []
    for segment in segments {
      if let path = segment.sparePath, let file = try putAside(segment, as: path) {
        kept.append(
          PreparedSegment(path: path, file: file, capacityBytes: segment.capacityBytes, isRecycled: true))
      } else {
        try fileSystem.remove(segment.path)
        try fileSystem.synchronizeDirectory(directory)
      }
    }
    return kept
  }

  /// - Returns: nil if the file has not the size that its header claims, and cannot be used again.
  private func putAside(_ segment: DroppedSegment, as path: String) throws(FileError) -> (any File)? {
    let file = try fileSystem.open(segment.path, mode: mode)
    guard try file.sizeBytes() == segment.capacityBytes else { return nil }
    try fileSystem.rename(segment.path, to: path)
    try fileSystem.synchronizeDirectory(directory)
    return file
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
