// Cost: one cache line a broadcast, 64 bytes at a multiple of 64, read once when its name is found and written once when it
// is replaced; a short name is packed and compared as three words, without a look at other memory. Measured within
// `BroadcastQueue`.

/// What the broadcast queue keeps of one broadcast. All that is compared and unlinked when a broadcast is replaced lies in
/// it, short names included.
@safe
struct BroadcastSlot {
  /// The longest name that lies in the slot itself.
  static var inlineNameBytes: Int { 24 }

  /// Where the broadcast stands in the order.
  var key: UInt64 = 0
  var tag: UInt64 = 0
  /// The name if it is longer than `inlineNameBytes`, then the payload.
  var block: UnsafeMutableRawPointer?
  var nameBytes: UInt16 = 0
  var payloadBytes: UInt16 = 0
  var hash: UInt32 = 0
  /// A short name, with zeros behind it.
  var name: (UInt64, UInt64, UInt64) = (0, 0, 0)
  /// The next free slot, plus one, while this one is free.
  var nextFree: UInt32 = 0
  var kind: BroadcastKind = .plain
  var sizeClass: UInt8 = 0
  var isFindable = false

  /// The payload's bytes, which last until the slot's block is given back.
  @unsafe
  var payload: UnsafeRawBufferPointer {
    guard let block = unsafe block else { return unsafe UnsafeRawBufferPointer(start: nil, count: 0) }
    let offset = Int(nameBytes) > Self.inlineNameBytes ? Int(nameBytes) : 0
    return unsafe UnsafeRawBufferPointer(start: block + offset, count: Int(payloadBytes))
  }

  /// Room for so many slots, each in a cache line of its own.
  @unsafe
  static func allocate(_ count: Int) -> UnsafeMutableBufferPointer<BroadcastSlot> {
    unsafe UnsafeMutableRawBufferPointer.allocate(byteCount: count * MemoryLayout<BroadcastSlot>.stride, alignment: 64)
      .bindMemory(to: BroadcastSlot.self)
  }

  /// A short name as three words, with zeros behind it.
  @inline(__always)
  static func packed(_ name: RawSpan) -> (UInt64, UInt64, UInt64) {
    (word(name, 0), word(name, 8), word(name, 16))
  }

  /// The bytes `offset ..< offset + 8` of a name, as far as it goes.
  @inline(__always)
  private static func word(_ name: RawSpan, _ offset: Int) -> UInt64 {
    if name.byteCount >= offset + 8 { return unsafe name.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self) }
    var word: UInt64 = 0
    var position = name.byteCount
    while position > offset {
      position -= 1
      word = word << 8 | UInt64(unsafe name.unsafeLoad(fromByteOffset: position, as: UInt8.self))
    }
    return word
  }

  /// Whether `block` begins with the bytes of `name`.
  @unsafe
  static func isEqual(_ name: RawSpan, _ block: UnsafeMutableRawPointer) -> Bool {
    var position = 0
    while name.byteCount - position >= 8 {
      let left = unsafe name.unsafeLoadUnaligned(fromByteOffset: position, as: UInt64.self)
      if left != (unsafe block.loadUnaligned(fromByteOffset: position, as: UInt64.self)) { return false }
      position += 8
    }
    while position < name.byteCount {
      let left = unsafe name.unsafeLoad(fromByteOffset: position, as: UInt8.self)
      if left != (unsafe block.load(fromByteOffset: position, as: UInt8.self)) { return false }
      position += 1
    }
    return true
  }

  @unsafe
  static func copy(_ source: RawSpan, to destination: UnsafeMutableRawPointer) {
    unsafe source.withUnsafeBytes { bytes in
      if let base = bytes.baseAddress { unsafe destination.copyMemory(from: base, byteCount: bytes.count) }
    }
  }
}
