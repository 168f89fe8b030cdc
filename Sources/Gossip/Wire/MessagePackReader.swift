/// Reads msgpack from a span: the old specification that memberlist writes, and what newer writers send instead.
///
/// It holds nothing but a position, so that it can be kept between chunks of a stream. Every method takes the same bytes.
/// All lengths are checked against the bytes that are there before they are used; nothing is allocated. Where bytes are
/// missing, `truncated` tells how many are needed at least, and the position is then of no further use.
struct MessagePackReader {
  private(set) var offset: Int

  init(at offset: Int = 0) {
    self.offset = offset
  }

  /// The number of pairs in the map that begins here.
  mutating func readMapCount(_ bytes: Span<UInt8>) throws(WireError) -> Int {
    let start = offset
    let format = try readByte(bytes)
    let pairs: Int
    switch format {
    case 0x80...0x8F: pairs = Int(format & 0x0F)
    case 0xDE: pairs = try readLength(bytes, byteCount: 2)
    case 0xDF: pairs = try readLength(bytes, byteCount: 4)
    default: throw .unexpectedFormat(byte: format, atByte: start)
    }
    // A pair takes two bytes at least: a map of four thousand million pairs is refused here, not after looping so often.
    guard pairs * 2 <= bytes.count - offset else { throw .truncated(neededBytes: offset + pairs * 2) }
    return pairs
  }

  /// The key that begins here; nil for one that no message of this protocol has.
  mutating func readKey(_ bytes: Span<UInt8>) throws(WireError) -> FieldName? {
    guard let range = try readRaw(bytes) else { return nil }
    let count = range.count
    guard count > 0, count <= FieldName.longestByteCount else { return nil }
    if count <= 8 {
      return FieldName(byteCount: count, first: Self.word(bytes, from: range.lowerBound, byteCount: count), rest: 0)
    }
    return FieldName(
      byteCount: count, first: Self.word(bytes, from: range.lowerBound, byteCount: 8),
      rest: Self.word(bytes, from: range.lowerBound + 8, byteCount: count - 8))
  }

  /// Where the bytes of the string (or byte array) that begins here are; nil for msgpack's nil.
  mutating func readRaw(_ bytes: Span<UInt8>) throws(WireError) -> Range<Int>? {
    let start = offset
    let format = try readByte(bytes)
    let count: Int
    switch format {
    case 0xA0...0xBF: count = Int(format & 0x1F)
    case 0xC0: return nil
    case 0xC4, 0xD9: count = try readLength(bytes, byteCount: 1)
    case 0xC5, 0xDA: count = try readLength(bytes, byteCount: 2)
    case 0xC6, 0xDB: count = try readLength(bytes, byteCount: 4)
    default: throw .unexpectedFormat(byte: format, atByte: start)
    }
    let first = offset
    try advance(bytes, by: count)
    return first..<offset
  }

  /// The integer that begins here, in whatever form it was written; nil counts as 0.
  mutating func readInteger(_ bytes: Span<UInt8>) throws(WireError) -> Int64 {
    let start = offset
    let format = try readByte(bytes)
    switch format {
    case 0x00...0x7F: return Int64(format)
    case 0xE0...0xFF: return Int64(Int8(bitPattern: format))
    case 0xC0: return 0
    case 0xCC: return Int64(try readWord(bytes, byteCount: 1))
    case 0xCD: return Int64(try readWord(bytes, byteCount: 2))
    case 0xCE: return Int64(try readWord(bytes, byteCount: 4))
    case 0xCF:
      guard let value = Int64(exactly: try readWord(bytes, byteCount: 8)) else {
        throw .integerOutOfRange(atByte: start)
      }
      return value
    case 0xD0: return Int64(Int8(truncatingIfNeeded: try readWord(bytes, byteCount: 1)))
    case 0xD1: return Int64(Int16(truncatingIfNeeded: try readWord(bytes, byteCount: 2)))
    case 0xD2: return Int64(Int32(truncatingIfNeeded: try readWord(bytes, byteCount: 4)))
    case 0xD3: return Int64(truncatingIfNeeded: try readWord(bytes, byteCount: 8))
    default: throw .unexpectedFormat(byte: format, atByte: start)
    }
  }

  mutating func readUInt32(_ bytes: Span<UInt8>) throws(WireError) -> UInt32 {
    let start = offset
    guard let value = UInt32(exactly: try readInteger(bytes)) else { throw .integerOutOfRange(atByte: start) }
    return value
  }

  mutating func readUInt16(_ bytes: Span<UInt8>) throws(WireError) -> UInt16 {
    let start = offset
    guard let value = UInt16(exactly: try readInteger(bytes)) else { throw .integerOutOfRange(atByte: start) }
    return value
  }

  mutating func readUInt8(_ bytes: Span<UInt8>) throws(WireError) -> UInt8 {
    let start = offset
    guard let value = UInt8(exactly: try readInteger(bytes)) else { throw .integerOutOfRange(atByte: start) }
    return value
  }

  /// nil counts as false.
  mutating func readBool(_ bytes: Span<UInt8>) throws(WireError) -> Bool {
    let start = offset
    let format = try readByte(bytes)
    switch format {
    case 0xC0, 0xC2: return false
    case 0xC3: return true
    default: throw .unexpectedFormat(byte: format, atByte: start)
    }
  }

  /// Passes over one value of any kind, however deep it nests: a count of values still to come stands in for a stack,
  /// so no nesting can exhaust one.
  mutating func skipValue(_ bytes: Span<UInt8>) throws(WireError) {
    var pending = 1
    while pending > 0 {
      pending -= 1
      pending += try skipOne(bytes)
      // Each of them takes a byte at least, which also bounds the count.
      guard pending <= bytes.count - offset else { throw .truncated(neededBytes: offset + pending) }
    }
  }

  /// Passes over one value, or over the head of an array or map; returns how many values the head announces.
  private mutating func skipOne(_ bytes: Span<UInt8>) throws(WireError) -> Int {
    let start = offset
    let format = try readByte(bytes)
    switch format {
    case 0x80...0x8F: return Int(format & 0x0F) * 2
    case 0x90...0x9F: return Int(format & 0x0F)
    case 0xA0...0xBF: try advance(bytes, by: Int(format & 0x1F))
    case 0xC1: throw .unexpectedFormat(byte: format, atByte: start)
    case 0xC4, 0xD9: try advance(bytes, by: try readLength(bytes, byteCount: 1))
    case 0xC5, 0xDA: try advance(bytes, by: try readLength(bytes, byteCount: 2))
    case 0xC6, 0xDB: try advance(bytes, by: try readLength(bytes, byteCount: 4))
    case 0xC7: try advance(bytes, by: try readLength(bytes, byteCount: 1) + 1)
    case 0xC8: try advance(bytes, by: try readLength(bytes, byteCount: 2) + 1)
    case 0xC9: try advance(bytes, by: try readLength(bytes, byteCount: 4) + 1)
    case 0xCC, 0xD0: try advance(bytes, by: 1)
    case 0xCD, 0xD1, 0xD4: try advance(bytes, by: 2)
    case 0xD5: try advance(bytes, by: 3)
    case 0xCA, 0xCE, 0xD2: try advance(bytes, by: 4)
    case 0xD6: try advance(bytes, by: 5)
    case 0xCB, 0xCF, 0xD3: try advance(bytes, by: 8)
    case 0xD7: try advance(bytes, by: 9)
    case 0xD8: try advance(bytes, by: 17)
    case 0xDC: return try readLength(bytes, byteCount: 2)
    case 0xDD: return try readLength(bytes, byteCount: 4)
    case 0xDE: return try readLength(bytes, byteCount: 2) * 2
    case 0xDF: return try readLength(bytes, byteCount: 4) * 2
    default: break  // small integers, nil and the two booleans are their format byte alone
    }
    return 0
  }

  @inline(__always)
  private mutating func readByte(_ bytes: Span<UInt8>) throws(WireError) -> UInt8 {
    guard offset < bytes.count else { throw .truncated(neededBytes: offset + 1) }
    let byte = bytes[offset]
    offset &+= 1
    return byte
  }

  @inline(__always)
  private mutating func advance(_ bytes: Span<UInt8>, by count: Int) throws(WireError) {
    guard count <= bytes.count - offset else { throw .truncated(neededBytes: offset + count) }
    offset &+= count
  }

  @inline(__always)
  private mutating func readWord(_ bytes: Span<UInt8>, byteCount: Int) throws(WireError) -> UInt64 {
    let first = offset
    try advance(bytes, by: byteCount)
    return Self.word(bytes, from: first, byteCount: byteCount)
  }

  @inline(__always)
  private mutating func readLength(_ bytes: Span<UInt8>, byteCount: Int) throws(WireError) -> Int {
    Int(try readWord(bytes, byteCount: byteCount))  // at most four bytes: always fits
  }

  /// Up to eight bytes as a big-endian number.
  ///
  /// Where eight bytes are there the compiler makes one load of the loop, and the surplus is shifted out.
  @inline(__always)
  static func word(_ bytes: Span<UInt8>, from start: Int, byteCount: Int) -> UInt64 {
    var value: UInt64 = 0
    if start >= 0, start <= bytes.count &- 8 {
      for index in 0..<8 { value = value << 8 | UInt64(bytes[start &+ index]) }
      return value >> UInt64(64 - 8 * byteCount)
    }
    for index in 0..<byteCount { value = value << 8 | UInt64(bytes[start &+ index]) }
    return value
  }
}
