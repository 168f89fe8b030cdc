import Testing
import struct WeirCore.SplitMix64

@testable import Gossip

/// LZW by the book: a dictionary of strings, no cleverness. What it makes and reads is what the fast one must.
enum PlainLZW {
  static func decode(_ bytes: [UInt8]) -> [UInt8]? {
    var bits = Bits(bytes: bytes)
    var table: [[UInt8]] = []
    var width = 9
    var last: [UInt8]?
    var output: [UInt8] = []
    func reset() -> [[UInt8]] { (0..<256).map { [UInt8($0)] } + [[], []] }
    table = reset()
    while let code = bits.read(width) {
      if code == 256 {
        table = reset()
        width = 9
        last = nil
        continue
      }
      if code == 257 { return output }
      let piece: [UInt8]
      if code < table.count {
        piece = table[code]
      } else if code == table.count, let last, table.count < 4096 {
        piece = last + [last[0]]
      } else {
        return nil
      }
      output += piece
      if let last, table.count < 4096 { table.append(last + [piece[0]]) }
      if table.count == 1 << width, width < 12 { width += 1 }
      last = piece
    }
    return nil
  }

  struct Bits {
    let bytes: [UInt8]
    var position = 0

    mutating func read(_ width: Int) -> Int? {
      guard position + width <= bytes.count * 8 else { return nil }
      var value = 0
      for bit in 0..<width {
        let at = position + bit
        value |= Int(bytes[at / 8] >> UInt8(at % 8) & 1) << bit
      }
      position += width
      return value
    }
  }
}

@Suite("Wire LZW")
struct WireLZWTests {
  /// Inputs of every character: random, repetitive, long runs, text, and long enough to fill the table many times.
  static func inputs(seed: UInt64) -> [[UInt8]] {
    var generator = SplitMix64(seed: seed)
    var inputs: [[UInt8]] = [[], [7], [7, 7], Array(repeating: 7, count: 100_000)]
    for count in [10, 1400, 3000, 5000, 20_000, 100_000] {
      for symbols in [2, 4, 16, 256] {
        inputs.append((0..<count).map { _ in UInt8(Int.random(in: 0..<symbols, using: &generator)) })
      }
    }
    let words = (0..<50).map { _ in WireSamples.bytes(2...12, &generator) }
    inputs.append((0..<9000).flatMap { _ in words.randomElement(using: &generator) ?? [] })
    return inputs
  }

  static func encode(_ input: [UInt8], with encoder: inout LZWEncoder) -> [UInt8] {
    var output: [UInt8] = [0xAA]
    #expect(encoder.encode(input.span, into: &output))
    return Array(output.dropFirst())
  }

  @Test("what is compressed comes back, and by the plain decoder too", arguments: 0..<3)
  func roundTrip(seed: UInt64) throws {
    var encoder = LZWEncoder()
    var decoder = LZWDecoder()
    var output: [UInt8] = []
    for input in Self.inputs(seed: seed) {
      let compressed = Self.encode(input, with: &encoder)
      let count = try decoder.decode(compressed.span, into: &output, limitBytes: input.count)
      #expect(output[..<count] == input[...])
      #expect(PlainLZW.decode(compressed) == input)
      var fresh = LZWEncoder()
      #expect(Self.encode(input, with: &fresh) == compressed, "what went before must not show")
    }
  }

  @Test("the stream begins with a clear code, ends with an end code, and shrinks what repeats")
  func form() {
    var encoder = LZWEncoder()
    let empty = Self.encode([], with: &encoder)
    var bits = PlainLZW.Bits(bytes: empty)
    #expect(bits.read(9) == 256)
    #expect(bits.read(9) == 257)
    #expect(empty.count == 3)
    let repeated = Self.encode(Array(repeating: 1, count: 1400), with: &encoder)
    #expect(repeated.count < 100)
  }

  @Test("an output over the limit is given up and leaves the buffer as it was")
  func encoderLimit() {
    var encoder = LZWEncoder()
    var generator = SplitMix64(seed: 3)
    let input = WireSamples.bytes(40_000...40_000, &generator)
    var output: [UInt8] = [1, 2, 3]
    #expect(!encoder.encode(input.span, into: &output, limitBytes: input.count - 1))
    #expect(output == [1, 2, 3])
    let compressed = Self.encode(input, with: &encoder)
    #expect(encoder.encode(input.span, into: &output, limitBytes: compressed.count))
    #expect(!encoder.encode(input.span, into: &output, limitBytes: compressed.count - 1))
  }

  @Test("a bomb is refused at the limit, before memory is taken for it")
  func bomb() {
    var encoder = LZWEncoder()
    let bomb = Self.encode(Array(repeating: 0, count: 3_000_000), with: &encoder)
    #expect(bomb.count < 10_000)
    var decoder = LZWDecoder()
    var output: [UInt8] = []
    #expect(throws: WireError.decompressedTooLarge(limitBytes: 100_000)) {
      _ = try decoder.decode(bomb.span, into: &output, limitBytes: 100_000)
    }
    #expect(output.count <= 100_000)
  }

  @Test("codes that are not defined yet, and a missing end, are refused")
  func malformed() {
    var decoder = LZWDecoder()
    var output: [UInt8] = []
    func bytes(_ codes: [Int]) -> [UInt8] {
      var result = [UInt8](repeating: 0, count: (codes.count * 9 + 7) / 8)
      for (index, code) in codes.enumerated() {
        for bit in 0..<9 where code >> bit & 1 == 1 {
          let at = index * 9 + bit
          result[at / 8] |= UInt8(1) << UInt8(at % 8)
        }
      }
      return result
    }
    for codes in [[256, 258, 257], [258], [256, 65, 259, 257], [256, 65, 66, 300]] {
      #expect(throws: WireError.self) {
        _ = try decoder.decode(bytes(codes).span, into: &output, limitBytes: 1000)
      }
    }
    #expect(throws: WireError.unterminatedLZW) {
      _ = try decoder.decode(bytes([256, 65, 66]).span, into: &output, limitBytes: 1000)
    }
    #expect(throws: WireError.unterminatedLZW) { _ = try decoder.decode([UInt8]().span, into: &output, limitBytes: 10) }
    // A code that is used in the step that defines it.
    let count = try? decoder.decode(bytes([256, 65, 258, 257]).span, into: &output, limitBytes: 1000)
    #expect(count == 3)
    #expect(output.prefix(3) == [65, 65, 65])
  }

  @Test("random codes never give more than the plain decoder, nor anything else")
  func randomCodes() {
    var decoder = LZWDecoder()
    var output: [UInt8] = []
    var generator = SplitMix64(seed: 11)
    for _ in 0..<5000 {
      let bytes = WireSamples.bytes(0...40, &generator)
      let count = try? decoder.decode(bytes.span, into: &output, limitBytes: 1 << 20)
      #expect(count.map { Array(output[..<$0]) } == PlainLZW.decode(bytes))
    }
  }

  @Test("a checksum is the one that zlib computes")
  func crc32() {
    #expect(CRC32.checksum(Array("123456789".utf8).span) == 0xCBF4_3926)
    #expect(CRC32.checksum([UInt8]().span) == 0)
    #expect(CRC32.checksum(Array("The quick brown fox jumps over the lazy dog".utf8).span) == 0x414F_A339)
    // Every length around a word, against the definition.
    var generator = SplitMix64(seed: 4)
    for count in 0..<300 {
      let bytes = WireSamples.bytes(count...count, &generator)
      var crc = ~UInt32(0)
      for byte in bytes {
        crc ^= UInt32(byte)
        for _ in 0..<8 { crc = crc >> 1 ^ (crc & 1 == 0 ? 0 : 0xEDB8_8320) }
      }
      #expect(CRC32.checksum(bytes.span) == ~crc)
    }
  }
}
