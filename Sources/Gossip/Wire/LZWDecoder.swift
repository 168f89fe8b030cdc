/// The inverse of `LZWEncoder`.
///
/// What a code stands for is always a piece of the output written so far, and the piece of a new entry is the last
/// code's piece and the one byte that follows it. So the table holds places and lengths and no bytes, and a code that
/// is used the moment it is defined needs no special case: its last byte is the first one that is being copied.
struct LZWDecoder: Sendable {
  /// `offset << 32 | length` for every code from 258 on.
  private var pieces: [UInt64] = []

  /// Writes the decompressed form of `input` at the start of `output`, which is grown where it is too short and never
  /// shrunk, and returns its size. Nothing is grown beyond `limitBytes`.
  /// Throws `invalidLZWCode`, `unterminatedLZW` or `decompressedTooLarge`.
  mutating func decode(
    _ input: Span<UInt8>, into output: inout [UInt8], limitBytes: Int
  ) throws(WireError) -> Int {
    if pieces.isEmpty { pieces = Array(repeating: 0, count: LZW.codeCount) }
    var pieces = pieces.mutableSpan
    var bits: UInt64 = 0
    var bitCount = 0
    var position = 0
    var width = LZW.narrowestWidth
    var next = LZW.firstFreeCode
    var written = 0
    var last: UInt64 = 0  // the piece of the code before; 0 after a clear code
    while true {
      while bitCount < width {
        guard position < input.count else { throw .unterminatedLZW }
        bits |= UInt64(input[position]) << UInt64(truncatingIfNeeded: bitCount)
        position &+= 1
        bitCount &+= 8
      }
      let mask: UInt64 = (1 << UInt64(truncatingIfNeeded: width)) &- 1
      let code = Int(truncatingIfNeeded: bits & mask)
      bits >>= UInt64(truncatingIfNeeded: width)
      bitCount &-= width
      if code == LZW.clearCode {
        width = LZW.narrowestWidth
        next = LZW.firstFreeCode
        last = 0
        continue
      }
      if code == LZW.endCode { return written }
      if last != 0, next < LZW.codeCount {
        pieces[next] = last &+ 1  // one longer
        next &+= 1
      }
      guard code < next else { throw .invalidLZWCode(UInt16(truncatingIfNeeded: code)) }
      let piece = code < 256 ? 1 : pieces[code]
      let length = Int(truncatingIfNeeded: piece & 0xFFFF_FFFF)
      guard length <= limitBytes &- written else { throw .decompressedTooLarge(limitBytes: limitBytes) }
      if output.count < written &+ length { Self.grow(&output, toHold: written &+ length, limitBytes: limitBytes) }
      var bytes = output.mutableSpan
      if code < 256 {
        bytes[written] = UInt8(truncatingIfNeeded: code)
      } else {
        let offset = Int(truncatingIfNeeded: piece >> 32)
        for index in 0..<length { bytes[written &+ index] = bytes[offset &+ index] }
      }
      last = UInt64(truncatingIfNeeded: written) << 32 | UInt64(truncatingIfNeeded: length)
      written &+= length
      if next == 1 << width, width < LZW.widestWidth { width &+= 1 }
    }
  }

  private static func grow(_ output: inout [UInt8], toHold count: Int, limitBytes: Int) {
    let target = max(count, min(max(2 * output.count, 2048), limitBytes))
    output.append(contentsOf: repeatElement(0, count: target - output.count))
  }
}
