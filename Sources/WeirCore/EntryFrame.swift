import CWeir

/// The bytes of one entry, the same in memory, on the wire and in the write-ahead log. Little-endian, each frame padded
/// with zeros to a multiple of 8 so that headers are aligned:
///
///     offset  size  field
///          0     4  length: header and payload, without padding
///          4     4  CRC-32C of bytes 8 ..< length
///          8     8  index
///         16     8  term
///         24     1  kind
///         25     7  reserved, zero
///         32     n  payload
///
/// The length is not under the checksum: a wrong length makes the checksum cover other bytes, which fails it.
public enum EntryFrame {
  /// Size of the header in bytes.
  public static var headerBytes: Int { 32 }

  /// The largest payload of one entry, in bytes (16 MiB).
  public static var maximumPayloadBytes: Int { 16 << 20 }

  /// What a frame with `payloadBytes` of payload occupies, padding included, in bytes.
  @inlinable
  public static func occupiedBytes(payloadBytes: Int) -> Int { (headerBytes + payloadBytes + 7) & ~7 }

  /// Frames one entry at the start of `destination`, whose payload is already at offset `headerBytes` there.
  @inlinable
  @unsafe
  static func seal(_ destination: UnsafeMutableRawPointer, header: EntryHeader) {
    let length = headerBytes + header.payloadBytes
    let occupied = occupiedBytes(payloadBytes: header.payloadBytes)
    unsafe destination.storeBytes(of: UInt32(truncatingIfNeeded: length).littleEndian, as: UInt32.self)
    unsafe destination.storeBytes(of: header.index.littleEndian, toByteOffset: 8, as: UInt64.self)
    unsafe destination.storeBytes(of: header.term.littleEndian, toByteOffset: 16, as: UInt64.self)
    unsafe destination.storeBytes(of: UInt64(header.kind.rawValue).littleEndian, toByteOffset: 24, as: UInt64.self)
    for padding in length..<occupied {
      unsafe destination.storeBytes(of: 0, toByteOffset: padding, as: UInt8.self)
    }
    let checksum = unsafe cweir_crc32c(0, destination + 8, length - 8)
    unsafe destination.storeBytes(of: checksum.littleEndian, toByteOffset: 4, as: UInt32.self)
  }

  /// Reads a header that has been verified before.
  @inlinable
  @unsafe
  static func trustedHeader(_ source: UnsafeRawPointer) -> EntryHeader {
    let length = unsafe UInt32(littleEndian: source.loadUnaligned(as: UInt32.self))
    let index = unsafe UInt64(littleEndian: source.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    let term = unsafe UInt64(littleEndian: source.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
    let kind = unsafe source.loadUnaligned(fromByteOffset: 24, as: UInt8.self)
    return EntryHeader(
      index: index, term: term, kind: EntryKind(rawValue: kind) ?? .normal, payloadBytes: Int(length) - headerBytes)
  }

  /// Checks the frame at the start of `bytes`: length, kind, reserved bytes, checksum.
  /// - Returns: its header; the frame occupies `occupiedBytes(payloadBytes:)`, which lie within `bytes`.
  @unsafe
  public static func verify(_ bytes: UnsafeRawBufferPointer) throws(EntryFrameError) -> EntryHeader {
    guard bytes.count >= headerBytes, let base = bytes.baseAddress else { throw .truncated }
    let length = unsafe UInt32(littleEndian: base.loadUnaligned(as: UInt32.self))
    guard length >= UInt32(headerBytes), length <= UInt32(headerBytes + maximumPayloadBytes) else {
      throw .invalidLength(length)
    }
    guard occupiedBytes(payloadBytes: Int(length) - headerBytes) <= bytes.count else { throw .truncated }
    let checksum = unsafe UInt32(littleEndian: base.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
    guard unsafe cweir_crc32c(0, base + 8, Int(length) - 8) == checksum else { throw .checksumMismatch }
    let kind = unsafe UInt64(littleEndian: base.loadUnaligned(fromByteOffset: 24, as: UInt64.self))
    guard kind <= UInt64(UInt8.max), EntryKind(rawValue: UInt8(truncatingIfNeeded: kind)) != nil else {
      throw .invalidKind(UInt8(truncatingIfNeeded: kind))
    }
    return unsafe trustedHeader(base)
  }
}
