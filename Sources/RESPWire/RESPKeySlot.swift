/// Which of the 16,384 slots of a Redis cluster a key belongs to (Redis cluster specification, "Key distribution model").
public enum RESPKeySlot {
  public static var count: Int { 16_384 }

  /// The slot of `key`: of what stands between its first `{` and the next `}`, if that is something.
  public static func slot(of key: RawSpan) -> Int {
    key.withUnsafeBytes { bytes in
      var hashed = bytes[...]
      if let open = bytes.firstIndex(of: UInt8(ascii: "{")),
        let close = bytes[(open + 1)...].firstIndex(of: UInt8(ascii: "}")), close > open + 1
      {
        hashed = bytes[(open + 1)..<close]
      }
      return Int(checksum(hashed)) & (count - 1)
    }
  }

  /// CRC-16/XMODEM: polynomial 0x1021, begins at 0, most significant bit first.
  private static func checksum(_ bytes: Slice<UnsafeRawBufferPointer>) -> UInt16 {
    var crc: UInt16 = 0
    for byte in bytes { crc = crc << 8 ^ table[Int(UInt8(crc >> 8) ^ byte)] }
    return crc
  }

  private static let table: [UInt16] = (0..<256).map { index in
    var crc = UInt16(index) << 8
    for _ in 0..<8 { crc = crc & 0x8000 != 0 ? crc << 1 ^ 0x1021 : crc << 1 }
    return crc
  }
}
