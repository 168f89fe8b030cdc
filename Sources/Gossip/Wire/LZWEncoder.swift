/// The codes that both sides of LZW share: eight bits a literal, least significant bit first, codes of 9 to 12 bits.
enum LZW {
  static let clearCode = 256
  static let endCode = 257
  static let firstFreeCode = 258
  static let narrowestWidth = 9
  static let widestWidth = 12
  static let codeCount = 1 << widestWidth
}

/// LZW as GIF has it and as Go's `compress/lzw` writes it, so that the same bytes in give the same bytes out.
///
/// The table is a hash of (code so far, next byte) whose entries carry the number of the table's use: starting anew is
/// counting one up instead of wiping 64 KiB, which would cost more than a packet's compression. It is allocated with the
/// first use and then kept.
struct LZWEncoder: Sendable {
  static let slotBits = 13

  /// `use << 32 | prefix code << 20 | byte << 12 | code`; an entry of another use is a free slot.
  private var slots: [UInt64] = []
  private var use: UInt64 = 0

  /// Appends the compressed form of `input`. Returns false, with `output` as it was, if that takes more than
  /// `limitBytes`.
  mutating func encode(_ input: Span<UInt8>, into output: inout [UInt8], limitBytes: Int = .max) -> Bool {
    let start = output.count
    prepareTable(inputBytes: input.count)
    var run = LZWEncoderRun(use: use, limitBytes: limitBytes)
    var index = 0
    repeat {
      // In pieces, so that the room asked for ahead follows what is written and not the worst case of the whole.
      let end = min(index + 16_384, input.count)
      let room = (end - index) * 3 / 2 + (end - index) / 512 + 32
      output.append(addingCapacity: room) { output in
        var slots = slots.mutableSpan
        if index == 0 { run.start(&output) }
        run.consume(input, from: index, to: end, &slots, &output)
        if end == input.count { run.finish(&output) }
      }
      index = end
    } while index < input.count && !run.isOverLimit
    use = run.use
    guard !run.isOverLimit else {
      output.removeLast(output.count - start)
      return false
    }
    return true
  }

  private mutating func prepareTable(inputBytes: Int) {
    if slots.isEmpty { slots = Array(repeating: 0, count: 1 << Self.slotBits) }
    // One number for this input and one for each of its clear codes; before 32 bits run out, wipe.
    if use + 2 + UInt64(inputBytes / 1024) > UInt64(UInt32.max) {
      use = 0
      for index in slots.indices { slots[index] = 0 }
    }
    use += 1
  }
}

/// The compression of one input, from the opening clear code to the last bit.
private struct LZWEncoderRun {
  private(set) var use: UInt64
  /// What the bytes since the last code written stand for; -1 before the first byte.
  private var code = -1
  private var width = LZW.narrowestWidth
  /// The newest code of the table.
  private var newest = LZW.firstFreeCode - 1
  private var bits: UInt64 = 0
  private var bitCount = 0
  private var remainingBytes: Int

  init(use: UInt64, limitBytes: Int) {
    self.use = use
    self.remainingBytes = limitBytes
  }

  var isOverLimit: Bool { remainingBytes < 0 }

  mutating func start(_ output: inout OutputSpan<UInt8>) {
    write(LZW.clearCode, &output)
  }

  /// Input from `first` up to `end`; stops early once the limit is passed.
  mutating func consume(
    _ input: Span<UInt8>, from first: Int, to end: Int, _ slots: inout MutableSpan<UInt64>,
    _ output: inout OutputSpan<UInt8>
  ) {
    let mask = slots.count &- 1
    var index = first
    if code < 0, index < end {
      code = Int(input[index])
      index &+= 1
    }
    while index < end {
      let byte = Int(input[index])
      index &+= 1
      let key = use << 20 | UInt64(truncatingIfNeeded: code << 8 | byte)
      var slot = Int(truncatingIfNeeded: Self.hash(key)) & mask
      var entry = slots[slot]
      while entry >> 32 == use, entry >> 12 != key {
        slot = (slot &+ 1) & mask
        entry = slots[slot]
      }
      if entry >> 12 == key {
        code = Int(truncatingIfNeeded: entry & 0xFFF)
        continue
      }
      write(code, &output)
      code = byte
      if growTable(&output) { slots[slot] = key << 12 | UInt64(truncatingIfNeeded: newest) }
      if isOverLimit { return }
    }
  }

  /// The last code, the end code and the last bits.
  mutating func finish(_ output: inout OutputSpan<UInt8>) {
    if code >= 0 {
      write(code, &output)
      // The decoder counts an entry for this code too, so the end code may be a bit wider, or follow a clear code.
      _ = growTable(&output)
    }
    write(LZW.endCode, &output)
    while bitCount > 0 { flushByte(&output) }
  }

  /// Counts a new entry. Where the table is full, tells the decoder and starts it again, and returns false.
  @inline(__always)
  private mutating func growTable(_ output: inout OutputSpan<UInt8>) -> Bool {
    newest &+= 1
    if newest == 1 << width { width &+= 1 }
    guard newest == LZW.codeCount - 1 else { return true }
    write(LZW.clearCode, &output)
    width = LZW.narrowestWidth
    newest = LZW.firstFreeCode - 1
    use &+= 1
    return false
  }

  @inline(__always)
  private mutating func write(_ code: Int, _ output: inout OutputSpan<UInt8>) {
    bits |= UInt64(truncatingIfNeeded: code) << UInt64(truncatingIfNeeded: bitCount)
    bitCount &+= width
    while bitCount >= 8 { flushByte(&output) }
  }

  @inline(__always)
  private mutating func flushByte(_ output: inout OutputSpan<UInt8>) {
    output.append(UInt8(truncatingIfNeeded: bits))
    bits >>= 8
    bitCount &-= 8
    remainingBytes &-= 1
  }

  @inline(__always)
  private static func hash(_ key: UInt64) -> UInt64 {
    (key & 0xF_FFFF) &* 0x9E37_79B9_7F4A_7C15 >> UInt64(64 - LZWEncoder.slotBits)
  }
}
