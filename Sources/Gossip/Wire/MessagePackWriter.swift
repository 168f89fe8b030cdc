/// Writes msgpack as memberlist does: the shortest form, strings and byte arrays alike as "raw".
///
/// The caller makes room first (`Size` tells how much at most), so each write is a compare and a store.
extension OutputSpan where Element == UInt8 {
  enum Size {
    /// The most that a key and an integer take.
    static let integer = 1 + FieldName.longestByteCount + 9
    /// The most that a key and the head of a string take, and a boolean, nil or address.
    static let head = 1 + FieldName.longestByteCount + 5
    static let address = head + 16
    static let boolean = head
  }

  mutating func writeMapHead(_ pairs: Int) {
    append(0x80 | UInt8(truncatingIfNeeded: pairs))
  }

  @inline(__always)
  mutating func writeKey(_ name: FieldName) {
    append(0xA0 | UInt8(truncatingIfNeeded: name.byteCount))
    writeWord(name.first, byteCount: min(name.byteCount, 8))
    if name.byteCount > 8 { writeWord(name.rest, byteCount: name.byteCount - 8) }
  }

  @inline(__always)
  mutating func write(_ name: FieldName, unsigned value: UInt64) {
    writeKey(name)
    writeUnsigned(value)
  }

  /// An integer of a field that is signed in memberlist. Its newer versions write these as signed numbers and its older
  /// ones as unsigned; the two forms are the same up to 127 and every peer reads both. This writes the newer form.
  mutating func write(_ name: FieldName, signed value: Int) {
    writeKey(name)
    switch value {
    case 0...127: append(UInt8(truncatingIfNeeded: value))
    case -32...(-1): append(UInt8(truncatingIfNeeded: value))
    case -128...(-33):
      append(0xD0)
      append(UInt8(truncatingIfNeeded: value))
    case -32768...32767:
      append(0xD1)
      writeWord(UInt64(truncatingIfNeeded: value), byteCount: 2)
    case -2_147_483_648...2_147_483_647:
      append(0xD2)
      writeWord(UInt64(truncatingIfNeeded: value), byteCount: 4)
    default:
      append(0xD3)
      writeWord(UInt64(truncatingIfNeeded: value), byteCount: 8)
    }
  }

  mutating func write(_ name: FieldName, _ value: Bool) {
    writeKey(name)
    append(value ? 0xC3 : 0xC2)
  }

  mutating func write(_ name: FieldName, _ bytes: [UInt8]) {
    writeKey(name)
    writeRawHead(bytes.count)
    for byte in bytes { append(byte) }
  }

  mutating func writeNil(_ name: FieldName) {
    writeKey(name)
    append(0xC0)
  }

  mutating func write(_ name: FieldName, _ address: IPAddress) {
    writeKey(name)
    if address.isIPv4 {
      append(0xA4)
      writeWord(address.low, byteCount: 4)
    } else {
      append(0xB0)
      writeWord(address.high, byteCount: 8)
      writeWord(address.low, byteCount: 8)
    }
  }

  mutating func write(_ name: FieldName, _ versions: ProtocolVersions?) {
    guard let versions else { return writeNil(name) }
    writeKey(name)
    append(0xA6)
    append(versions.protocolMin)
    append(versions.protocolMax)
    append(versions.protocolCurrent)
    append(versions.delegateMin)
    append(versions.delegateMax)
    append(versions.delegateCurrent)
  }

  @inline(__always)
  mutating func writeUnsigned(_ value: UInt64) {
    if value <= 0x7F {
      append(UInt8(truncatingIfNeeded: value))
    } else if value <= 0xFF {
      append(0xCC)
      append(UInt8(truncatingIfNeeded: value))
    } else if value <= 0xFFFF {
      append(0xCD)
      writeWord(value, byteCount: 2)
    } else if value <= 0xFFFF_FFFF {
      append(0xCE)
      writeWord(value, byteCount: 4)
    } else {
      append(0xCF)
      writeWord(value, byteCount: 8)
    }
  }

  mutating func writeRawHead(_ count: Int) {
    if count < 32 {
      append(0xA0 | UInt8(truncatingIfNeeded: count))
    } else if count <= 0xFFFF {
      append(0xDA)
      writeWord(UInt64(truncatingIfNeeded: count), byteCount: 2)
    } else {
      append(0xDB)
      writeWord(UInt64(truncatingIfNeeded: count), byteCount: 4)
    }
  }

  /// The low `byteCount` bytes of a word, highest first.
  @inline(__always)
  mutating func writeWord(_ word: UInt64, byteCount: Int) {
    var shift = UInt64(8 * byteCount)
    while shift > 0 {
      shift &-= 8
      append(UInt8(truncatingIfNeeded: word >> shift))
    }
  }
}
