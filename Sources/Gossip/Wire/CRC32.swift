/// CRC-32 as Ethernet and zlib compute it (IEEE 802.3, reflected polynomial 0xEDB88320): the checksum of a packet.
enum CRC32 {
  private static let sliceCount = 8

  /// Eight tables of 256: table 0 is the classical one, table k advances a byte that has k more bytes behind it.
  private static let tables: [UInt32] = {
    var tables = [UInt32](repeating: 0, count: sliceCount * 256)
    for byte in 0..<256 {
      var crc = UInt32(byte)
      for _ in 0..<8 { crc = crc >> 1 ^ (crc & 1 == 0 ? 0 : 0xEDB8_8320) }
      tables[byte] = crc
    }
    for index in 256..<tables.count {
      let shorter = tables[index - 256]
      tables[index] = shorter >> 8 ^ tables[Int(shorter & 0xFF)]
    }
    return tables
  }()

  static func checksum(_ bytes: Span<UInt8>) -> UInt32 {
    let tables = Self.tables.span
    var crc = ~UInt32(0)
    var index = 0
    while index <= bytes.count &- sliceCount {
      var word: UInt64 = 0
      for place in 0..<8 { word |= UInt64(bytes[index &+ place]) << UInt64(8 * place) }
      word ^= UInt64(crc)
      crc = 0
      for place in 0..<8 {
        let byte = Int(truncatingIfNeeded: word >> UInt64(8 * place) & 0xFF)
        crc ^= tables[(7 &- place) &* 256 &+ byte]
      }
      index &+= sliceCount
    }
    while index < bytes.count {
      crc = crc >> 8 ^ tables[Int(truncatingIfNeeded: (crc ^ UInt32(bytes[index])) & 0xFF)]
      index &+= 1
    }
    return ~crc
  }
}
