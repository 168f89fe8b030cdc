import CWeir
import WeirCore

/// Reads one snapshot. Used by one thread at a time.
public final class SnapshotReader {
  public let metadata: SnapshotMetadata
  /// Size of the file in bytes.
  public let fileBytes: Int

  private let path: String
  private let window: SegmentWindow
  private let headerBytes: Int
  private let headerChecksum: UInt32

  init(fileSystem: any FileSystem, path: String) throws(StorageError) {
    self.path = path
    let decoded: Result<SnapshotFormat.DecodedHeader, SnapshotFault>
    do throws(FileError) {
      window = try SegmentWindow(file: fileSystem.openForReading(path), path: path)
      fileBytes = window.fileBytes
      decoded = unsafe SnapshotFormat.decodeHeader(
        try window.bytes(at: 0, byteCount: SnapshotFormat.maximumHeaderBytes))
    } catch {
      throw StorageError(error)
    }
    switch decoded {
    case .success(let header):
      metadata = header.metadata
      headerBytes = header.size
      headerChecksum = header.checksum
    case .failure(let fault):
      if let version = fault.version { throw .unknownVersion(path: path, version: version) }
      throw .corrupted(.init(path: path, offsetBytes: fault.offset, reason: fault.reason))
    }
  }

  /// Calls `body` with each part of the state as it was appended, each checked before. Only when this returns without an
  /// error has the whole state been seen.
  public func forEachChunk(_ body: (RawSpan) throws -> Void) throws {
    var offset = headerBytes
    var checksum = headerChecksum
    var chunks: UInt64 = 0
    var partBytes: UInt64 = 0
    while true {
      let head = unsafe try window.bytes(at: offset, byteCount: SnapshotFormat.chunkHeaderBytes)
      guard head.count == SnapshotFormat.chunkHeaderBytes else { throw corruption(offset, "the file ends too early") }
      let size = unsafe Int(head.value(UInt32.self, at: 0))
      let expected = unsafe head.value(UInt32.self, at: 4)
      offset += SnapshotFormat.chunkHeaderBytes
      if size == 0 {
        try checkEnd(at: offset, checksum, expected, chunks: chunks, partBytes: partBytes)
        return
      }
      guard size <= SnapshotFormat.maximumChunkBytes else { throw corruption(offset - 8, "a chunk of \(size) bytes") }
      let part = unsafe try window.bytes(at: offset, byteCount: size)
      guard part.count == size else { throw corruption(offset, "the file ends within a chunk") }
      checksum = unsafe SnapshotFormat.checksum(checksum, part)
      guard checksum == expected else { throw corruption(offset, "the chunk's checksum does not match") }
      try body(unsafe RawSpan(_unsafeBytes: part))
      offset += size
      chunks += 1
      partBytes += UInt64(size)
    }
  }

  private func checkEnd(
    at offset: Int, _ checksum: UInt32, _ expected: UInt32, chunks: UInt64, partBytes: UInt64
  ) throws {
    let end = unsafe try window.bytes(at: offset, byteCount: SnapshotFormat.endBytes - 8)
    guard end.count == SnapshotFormat.endBytes - 8 else { throw corruption(offset, "the file ends too early") }
    guard unsafe SnapshotFormat.checksum(checksum, end) == expected else {
      throw corruption(offset, "the checksum of the end does not match")
    }
    guard unsafe end.value(UInt64.self, at: 0) == chunks, unsafe end.value(UInt64.self, at: 8) == partBytes,
      offset + end.count == fileBytes
    else { throw corruption(offset, "the end tells of another number of chunks or bytes") }
  }

  /// Checks every checksum.
  func verify() throws(StorageError) {
    do {
      try forEachChunk { _ in }
    } catch let error as StorageError {
      throw error
    } catch let error as FileError {
      throw StorageError(error)
    } catch {
      preconditionFailure("only storage and file errors are thrown here")
    }
  }

  private func corruption(_ offset: Int, _ reason: String) -> StorageError {
    .corrupted(.init(path: path, offsetBytes: offset, reason: reason))
  }
}
