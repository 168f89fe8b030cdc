/// A running 64-bit digest of everything that happens in a simulation. Two runs of a seed that differ in one event differ
/// in it; it says nothing about who computed it, as no address and no per-process hash seed goes in.
public struct TraceHash: Sendable, Hashable {
  public private(set) var value: UInt64 = 0xCBF2_9CE4_8422_2325

  public init() {}

  /// Adds one word. (Multiply, rotate, multiply, as in xxHash64's round.)
  @inline(__always)
  public mutating func add(_ word: UInt64) {
    var mixed = word &* 0xC2B2_AE3D_27D4_EB4F
    mixed = (mixed << 31) | (mixed >> 33)
    value = (value ^ (mixed &* 0x9E37_79B1_85EB_CA87)) &* 0x9E37_79B1_85EB_CA87 &+ 0x85EB_CA77_C2B2_AE63
    value = (value << 27) | (value >> 37)
  }

  /// Adds bytes, eight at a time, and their number.
  public mutating func add(bytes: RawSpan) {
    add(UInt64(bytes.byteCount))
    var offset = 0
    while offset + 8 <= bytes.byteCount {
      add(UInt64(littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self)))
      offset += 8
    }
    var last: UInt64 = 0
    var shift: UInt64 = 0
    while offset < bytes.byteCount {
      last |= UInt64(bytes.unsafeLoad(fromByteOffset: offset, as: UInt8.self)) << shift
      shift += 8
      offset += 1
    }
    if shift > 0 { add(last) }
  }

  /// The digest of two words.
  public static func mix(_ first: UInt64, _ second: UInt64) -> UInt64 {
    var hash = TraceHash()
    hash.add(first)
    hash.add(second)
    return hash.value
  }

  /// The digest of bytes.
  public static func of(_ bytes: RawSpan) -> UInt64 {
    var hash = TraceHash()
    hash.add(bytes: bytes)
    return hash.value
  }
}
