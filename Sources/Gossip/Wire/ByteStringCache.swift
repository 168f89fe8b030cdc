/// Remembers byte strings that come again and again (names and metadata of members), so that decoding a message about a
/// known member allocates nothing.
///
/// A table of fixed size: two strings that fall on the same slot take turns. A peer that floods it with new strings
/// costs the others an allocation each, and nothing more.
public struct ByteStringCache: Sendable {
  static let slotCount = 1024
  /// Longer ones are not kept: with metadata's 512 bytes the table holds half a megabyte at most.
  static let longestKept = 512

  private var slots: [[UInt8]]

  public init() {
    slots = Array(repeating: [], count: Self.slotCount)
  }

  private init(slots: [[UInt8]]) {
    self.slots = slots
  }

  /// One that makes its table when it is first used.
  static var empty: ByteStringCache { ByteStringCache(slots: []) }

  /// The bytes of the range as an array: the one that was given out for equal bytes before, if it is still here.
  mutating func string(_ bytes: Span<UInt8>, _ range: Range<Int>) -> [UInt8] {
    guard !range.isEmpty else { return [] }
    guard range.count <= Self.longestKept else { return [UInt8](copying: bytes, range) }
    if slots.isEmpty { self = ByteStringCache() }
    let slot = Int(truncatingIfNeeded: Self.hash(bytes, range) & UInt64(Self.slotCount - 1))
    if Self.isEqual(slots[slot], bytes, range) { return slots[slot] }
    let fresh = [UInt8](copying: bytes, range)
    slots[slot] = fresh
    return fresh
  }

  private static func isEqual(_ kept: [UInt8], _ bytes: Span<UInt8>, _ range: Range<Int>) -> Bool {
    guard kept.count == range.count else { return false }
    var index = range.lowerBound
    for byte in kept {
      guard byte == bytes[index] else { return false }
      index &+= 1
    }
    return true
  }

  /// A word at a time; any function does that spreads names which differ in their last letters.
  private static func hash(_ bytes: Span<UInt8>, _ range: Range<Int>) -> UInt64 {
    var hash = UInt64(truncatingIfNeeded: range.count)
    var index = range.lowerBound
    while index < range.upperBound {
      let count = min(8, range.upperBound - index)
      hash = (hash ^ MessagePackReader.word(bytes, from: index, byteCount: count)) &* 0x9E37_79B9_7F4A_7C15
      hash ^= hash >> 29
      index &+= count
    }
    return hash ^ hash >> 32
  }
}

extension [UInt8] {
  /// The bytes of a part of a span, copied. The range must lie in the span.
  init(copying bytes: Span<UInt8>, _ range: Range<Int>) {
    self = []
    append(copying: bytes.extracting(range))
  }

  init(copying bytes: Span<UInt8>) {
    self = []
    append(copying: bytes)
  }

  mutating func append(copying bytes: Span<UInt8>) {
    // The library would note the length, 0, in the storage that all empty arrays share: no harm, but a race on paper.
    guard !bytes.isEmpty else { return }
    append(addingCapacity: bytes.count) { output in
      for index in bytes.indices { output.append(bytes[index]) }
    }
  }
}
