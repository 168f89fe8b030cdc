import WeirCore

/// Memory whose start is aligned to a page, as direct writes need it. It grows, and is used by one thread at a time.
@safe
final class AlignedBuffer {
  /// What the start is aligned to, in bytes.
  static var alignment: Int { 4096 }

  private(set) var capacity: Int
  private var storage: UnsafeMutableRawBufferPointer

  /// Zeroed memory of at least `capacity` bytes.
  init(capacity: Int) {
    self.capacity = max(capacity, Self.alignment)
    unsafe storage = Self.allocate(self.capacity)
  }

  deinit { unsafe storage.deallocate() }

  /// The bytes in `range`, valid until the next `grow` and while the buffer lives.
  @unsafe
  func bytes(in range: Range<Int>) -> UnsafeMutableRawBufferPointer {
    precondition(range.lowerBound >= 0 && range.upperBound <= capacity, "range outside of the buffer")
    return unsafe UnsafeMutableRawBufferPointer(rebasing: storage[range])
  }

  /// Makes room for `needed` bytes in total; the first `used` bytes stay.
  func grow(toHold needed: Int, keeping used: Int) {
    guard needed > capacity else { return }
    precondition(used <= capacity, "more bytes in use than there are")
    let larger = unsafe Self.allocate(max(needed, 2 * capacity))
    unsafe UnsafeMutableRawBufferPointer(rebasing: larger[..<used]).copyMemory(
      from: UnsafeRawBufferPointer(rebasing: storage[..<used]))
    unsafe storage.deallocate()
    unsafe storage = larger
    capacity = larger.count
  }

  /// Writes zeros.
  func zero(_ range: Range<Int>) {
    guard !range.isEmpty else { return }
    unsafe bytes(in: range).initializeMemory(as: UInt8.self, repeating: 0)
  }

  private static func allocate(_ count: Int) -> UnsafeMutableRawBufferPointer {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: alignment)
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
    return unsafe memory
  }
}

/// Little-endian integers in raw bytes; offsets are checked.
extension UnsafeMutableRawBufferPointer {
  @unsafe
  func store<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
    precondition(offset >= 0 && offset + MemoryLayout<Value>.size <= count, "field outside of the buffer")
    unsafe storeBytes(of: value.littleEndian, toByteOffset: offset, as: Value.self)
  }
}

extension UnsafeRawBufferPointer {
  @unsafe
  func value<Value: FixedWidthInteger>(_ type: Value.Type, at offset: Int) -> Value {
    precondition(offset >= 0 && offset + MemoryLayout<Value>.size <= count, "field outside of the buffer")
    return unsafe Value(littleEndian: loadUnaligned(fromByteOffset: offset, as: Value.self))
  }

  /// Whether every byte is zero.
  @unsafe
  var isAllZero: Bool {
    var offset = 0
    while offset + 8 <= count {
      if unsafe loadUnaligned(fromByteOffset: offset, as: UInt64.self) != 0 { return false }
      offset += 8
    }
    while offset < count {
      if unsafe self[offset] != 0 { return false }
      offset += 1
    }
    return true
  }
}
