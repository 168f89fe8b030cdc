import CWeir
import WeirCore

/// Puts checksums right in bytes that were changed, so that fuzzing gets past them to what they protect. Of no use to
/// anybody else: damage must be refused, not repaired.
extension LogFormat {
  /// Puts the checksums of a segment's header, and of the batches and frames that follow each other in it, right.
  public static func repairChecksums(_ segment: inout [UInt8]) {
    unsafe segment.withUnsafeMutableBytes { bytes in
      let readOnly = UnsafeRawBufferPointer(bytes)
      guard case .success(let block) = unsafe SegmentHeader.blockBytes(readOnly), block <= bytes.count else { return }
      var previous = unsafe repair(bytes, at: 8, covering: 12..<block)
      var position = block
      while position + batchHeaderBytes <= bytes.count {
        let frameBytes = unsafe Int(readOnly.value(UInt32.self, at: position + 32))
        let end = roundUp(batchHeaderBytes + min(frameBytes, bytes.count), toBlocksOf: block) + position
        guard end <= bytes.count else { return }
        let start = position + batchHeaderBytes
        unsafe repairFrames(bytes, from: start, to: min(start + frameBytes, end))
        unsafe bytes.store(previous, at: position + 48)
        unsafe repair(bytes, at: position + 36, covering: start..<end)
        previous = unsafe repair(bytes, at: position + 4, covering: position + 8..<start)
        position = end
      }
    }
  }

  @unsafe
  private static func repairFrames(_ bytes: UnsafeMutableRawBufferPointer, from start: Int, to end: Int) {
    var position = start
    while position + EntryFrame.headerBytes <= end {
      let length = unsafe Int(UnsafeRawBufferPointer(bytes).value(UInt32.self, at: position))
      guard length >= EntryFrame.headerBytes, length <= end - position else { return }
      unsafe repair(bytes, at: position + 4, covering: position + 8..<position + length)
      position += EntryFrame.occupiedBytes(payloadBytes: length - EntryFrame.headerBytes)
    }
  }

  @unsafe
  @discardableResult
  private static func repair(
    _ bytes: UnsafeMutableRawBufferPointer, at offset: Int, covering range: Range<Int>
  ) -> UInt32 {
    let covered = unsafe UnsafeRawBufferPointer(rebasing: bytes[range])
    let checksum = unsafe SnapshotFormat.checksum(0, covered)
    unsafe bytes.store(checksum, at: offset)
    return checksum
  }
}

extension SnapshotFormat {
  /// Puts the checksums of a snapshot's header, chunks and end right.
  public static func repairChecksums(_ file: inout [UInt8]) {
    unsafe file.withUnsafeMutableBytes { bytes in
      let readOnly = UnsafeRawBufferPointer(bytes)
      guard bytes.count >= fixedHeaderBytes else { return }
      let size = unsafe Int(readOnly.value(UInt32.self, at: 16))
      guard size >= fixedHeaderBytes, size <= bytes.count else { return }
      var checksum = unsafe Self.checksum(0, UnsafeRawBufferPointer(rebasing: bytes[12..<size]))
      unsafe bytes.store(checksum, at: 8)
      var position = size
      while position + chunkHeaderBytes <= bytes.count {
        let count = unsafe Int(readOnly.value(UInt32.self, at: position))
        let length = count == 0 ? endBytes - chunkHeaderBytes : count
        guard length <= bytes.count - position - chunkHeaderBytes else { return }
        let start = position + chunkHeaderBytes
        checksum = unsafe Self.checksum(checksum, UnsafeRawBufferPointer(rebasing: bytes[start..<start + length]))
        unsafe bytes.store(checksum, at: position + 4)
        if count == 0 { return }
        position = start + length
      }
    }
  }
}
