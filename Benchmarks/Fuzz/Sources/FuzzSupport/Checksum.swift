import WeirCore

// The checksum by the table of its definition: what the fuzzer seals with shares nothing with what it tests.

private let table: [UInt32] = (0..<256).map { byte in
  var crc = UInt32(byte)
  for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0x82F6_3B78 : crc >> 1 }
  return crc
}

/// CRC-32C of `bytes`.
public func crc32c(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
  var crc = UInt32.max
  for byte in bytes { crc = crc >> 8 ^ table[Int((crc ^ UInt32(byte)) & 0xFF)] }
  return ~crc
}

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
