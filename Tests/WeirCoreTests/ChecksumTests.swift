import CWeir
import Testing
import WeirCore

@Suite struct ChecksumTests {
  /// The check value of the CRC catalogue for CRC-32/ISCSI, and two of RFC 3720, appendix B.4.
  @Test func knownValues() {
    #expect(cweir_crc32c(0, "123456789", 9) == 0xe306_9283)
    #expect(cweir_crc32c(0, [UInt8](repeating: 0, count: 32), 32) == 0x8a91_36aa)
    #expect(cweir_crc32c(0, [UInt8](repeating: 0xFF, count: 32), 32) == 0x62a8_ab43)
    #expect(cweir_crc32c_portable(0, "123456789", 9) == 0xe306_9283)
  }

  /// The instruction in three chains, the wide multiplications, the copying form and the table must agree at every length and alignment.
  @Test func allFormsAgree() {
    var random = SplitMix64(seed: 7)
    let source = (0..<10_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    var copy = [UInt8](repeating: 0, count: 10_000)
    for count in Array(0...1200) + [2047, 3071, 6143, 6144, 6145, 8000, 9990] {
      let offset = random.below(9)
      let seed = UInt32(truncatingIfNeeded: random.next())
      let words = (random.next(), random.next(), random.next())
      source.withUnsafeBytes { bytes in
        guard let base = bytes.baseAddress else { return }
        let portable = cweir_crc32c_portable(seed, base + offset, count)
        #expect(cweir_crc32c(seed, base + offset, count) == portable)
        let prefix = [words.0.littleEndian, words.1.littleEndian, words.2.littleEndian]
        let whole = cweir_crc32c_portable(cweir_crc32c_portable(0, prefix, 24), base + offset, count)
        let copying = copy.withUnsafeMutableBytes {
          cweir_crc32c_copy(words.0, words.1, words.2, $0.baseAddress, base + offset, count)
        }
        #expect(copying == whole)
      }
      #expect(copy[0..<count] == source[offset..<offset + count])
    }
  }

  @Test func aMessageHeadIsSummedAsTheRest() {
    var random = SplitMix64(seed: 8)
    for offset in 0..<64 {
      let source = (0..<160).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      source.withUnsafeBytes { bytes in
        guard let base = bytes.baseAddress else { return }
        #expect(cweir_crc32c_head(base + offset) == cweir_crc32c_portable(0, base + offset, 92))
      }
    }
  }

  @Test func aHeadIsWrittenWithTheChecksumOfItsBytes() {
    var random = SplitMix64(seed: 9)
    for offset in 0..<64 {
      let tag = UInt32(truncatingIfNeeded: random.next())
      let words = (0..<11).map { _ in random.next() }
      var bytes = [UInt8](repeating: 0xEE, count: 176)
      bytes.withUnsafeMutableBytes { all in
        guard let base = all.baseAddress else { return }
        cweir_write_message_head(
          base + offset, tag, words[0], words[1], words[2], words[3], words[4], words[7], words[5], words[8], words[6],
          words[10], words[9])
      }
      var expected = (0..<4).map { UInt8(truncatingIfNeeded: tag >> UInt32(8 * $0)) }
      for word in words { expected += (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) } }
      let checksum = cweir_crc32c_portable(0, expected, 92)
      expected = (0..<4).map { UInt8(truncatingIfNeeded: checksum >> UInt32(8 * $0)) } + expected
      #expect(Array(bytes[offset..<offset + 96]) == expected)
      #expect(bytes[..<offset].allSatisfy { $0 == 0xEE } && bytes[(offset + 96)...].allSatisfy { $0 == 0xEE })
    }
  }
}
