import CFuzzDriver
import WeirCore

/// CRC-32C of `bytes`.
public func crc32c(_ bytes: UnsafeRawBufferPointer) -> UInt32 { cfuzz_crc32c(bytes.baseAddress, bytes.count) }

/// Makes the checksums of a run of frames right, as far as their lengths lead.
public func crc32cSealFrames(_ bytes: UnsafeMutableRawBufferPointer) {
  var position = 0
  while bytes.count - position >= EntryFrame.headerBytes {
    let length = Int(bytes.loadUnaligned(fromByteOffset: position, as: UInt32.self))
    guard length >= EntryFrame.headerBytes, length <= bytes.count - position else { return }
    let covered = UnsafeRawBufferPointer(rebasing: bytes[position + 8..<position + length])
    bytes.storeBytes(of: crc32c(covered), toByteOffset: position + 4, as: UInt32.self)
    position += EntryFrame.occupiedBytes(payloadBytes: length - EntryFrame.headerBytes)
  }
}
