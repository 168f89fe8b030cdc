import WeirCore

/// What a log entry's payload asks of the state machine. Little-endian, fixed header, then key and value:
///
///     offset  size  field
///          0     1  operation: 0 set, 1 delete
///          1     3  reserved, zero
///          4     4  key length in bytes
///          8     4  value length in bytes (0 for delete)
///         12     k  key
///       12+k     v  value
public enum Command {
  /// What a command does; the numbers go into the log.
  @frozen
  public enum Operation: UInt8, Sendable, CaseIterable {
    case set = 0
    case delete = 1
  }

  /// Size of the fixed header in bytes.
  public static var headerBytes: Int { 12 }
  /// The largest key in bytes (4 KiB).
  public static var maximumKeyBytes: Int { 4 << 10 }
  /// The largest value in bytes (1 MiB).
  public static var maximumValueBytes: Int { 1 << 20 }

  /// Size of an encoded command in bytes.
  @inlinable
  public static func encodedBytes(keyBytes: Int, valueBytes: Int) -> Int { headerBytes + keyBytes + valueBytes }

  /// A command as the payload of an entry.
  /// - Throws: `CommandError` if key or value exceed their limit, or the key is empty.
  public static func encode(
    _ operation: Operation, key: [UInt8], value: [UInt8] = []
  ) throws(CommandError) -> [UInt8] {
    guard !key.isEmpty else { throw .emptyKey }
    guard key.count <= maximumKeyBytes else { throw .keyTooLarge(bytes: key.count) }
    guard value.count <= maximumValueBytes else { throw .valueTooLarge(bytes: value.count) }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(encodedBytes(keyBytes: key.count, valueBytes: value.count))
    bytes.append(contentsOf: [operation.rawValue, 0, 0, 0])
    for length in [UInt32(key.count), UInt32(value.count)] {
      for shift in stride(from: UInt32(0), to: 32, by: 8) { bytes.append(UInt8(truncatingIfNeeded: length >> shift)) }
    }
    bytes.append(contentsOf: key)
    bytes.append(contentsOf: value)
    return bytes
  }

  /// Where a command's parts lie in its payload.
  @frozen
  public struct Layout: Sendable, Hashable {
    public var operation: Operation
    public var key: Range<Int>
    public var value: Range<Int>
  }

  /// Checks a payload and finds its parts.
  public static func decode(_ payload: RawSpan) throws(CommandError) -> Layout {
    guard payload.byteCount >= headerBytes else { throw .malformed }
    // Safe: the header's 12 bytes were just seen to be there.
    let head = unsafe payload.unsafeLoadUnaligned(as: UInt32.self)
    let keyBytes = Int(unsafe UInt32(littleEndian: payload.unsafeLoadUnaligned(fromByteOffset: 4, as: UInt32.self)))
    let valueBytes = Int(unsafe UInt32(littleEndian: payload.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt32.self)))
    let number = UInt32(littleEndian: head)
    guard number <= 0xFF, let operation = Operation(rawValue: UInt8(truncatingIfNeeded: number)) else {
      throw .malformed
    }
    guard keyBytes > 0 else { throw .emptyKey }
    guard keyBytes <= maximumKeyBytes else { throw .keyTooLarge(bytes: keyBytes) }
    guard valueBytes <= maximumValueBytes else { throw .valueTooLarge(bytes: valueBytes) }
    guard payload.byteCount == headerBytes + keyBytes + valueBytes else { throw .malformed }
    return Layout(
      operation: operation, key: headerBytes..<headerBytes + keyBytes,
      value: headerBytes + keyBytes..<headerBytes + keyBytes + valueBytes)
  }
}

/// Why a command is refused.
public enum CommandError: Error, Sendable, Hashable {
  /// The payload is not a command: replicas run different versions, or something else proposed it.
  case malformed
  /// A key has at least one byte.
  case emptyKey
  /// The key exceeds `Command.maximumKeyBytes`.
  case keyTooLarge(bytes: Int)
  /// The value exceeds `Command.maximumValueBytes`.
  case valueTooLarge(bytes: Int)
}

/// What applying a command did.
@frozen
public enum CommandResult: Sendable, Hashable {
  /// The key was set; whether it existed before.
  case set(existed: Bool)
  /// The key is gone; whether it existed before.
  case deleted(existed: Bool)
  /// The command changed nothing, on any replica, because it is not one.
  case refused(CommandError)
}
