/// What a client asks of one key.
@frozen
public enum OperationKind: UInt8, Sendable, CaseIterable {
  case get = 0
  case set = 1
  case delete = 2
}

/// Which linearizable read path a session takes.
public enum ReadMode: String, Sendable, CaseIterable, Codable {
  /// ReadOnlySafe: the leader confirms itself by a heartbeat round that all reads waiting together share.
  case safe
  /// ReadOnlyLeaseBased: the leader answers alone while its lease runs.
  case lease
}

/// The name of one write, unique in a whole bench process. Every value begins with it, so that whoever reads the
/// value knows which write it sees; the linearizability checker stands on that.
@frozen
public struct ValueID: Hashable, Sendable {
  /// The run (or preload) that wrote it. Never 0.
  public var client: UInt32
  /// The number of the write within that run, from 1.
  public var sequence: UInt64

  @inlinable
  public init(client: UInt32, sequence: UInt64) {
    self.client = client
    self.sequence = sequence
  }

  /// Bytes that the encoded name takes at the front of each value; no value is shorter.
  public static let encodedBytes = 16

  /// The name as two words to be stored in little-endian order, `low` first: 16 bytes.
  @inlinable
  public var words: (low: UInt64, high: UInt64) { (UInt64(client), sequence) }

  /// The inverse of `words`; nil where the words are not a name that this program wrote.
  @inlinable
  public init?(low: UInt64, high: UInt64) {
    guard low != 0, low <= UInt64(UInt32.max), high != 0 else { return nil }
    self.init(client: UInt32(truncatingIfNeeded: low), sequence: high)
  }

  /// The name at the front of a stored value; nil where the value is shorter than 16 bytes or holds no name.
  public init?(value: [UInt8]) {
    guard value.count >= Self.encodedBytes else { return nil }
    var low: UInt64 = 0
    var high: UInt64 = 0
    for byte in 0..<8 {
      low |= UInt64(value[byte]) << UInt64(8 * byte)
      high |= UInt64(value[byte + 8]) << UInt64(8 * byte)
    }
    self.init(low: low, high: high)
  }

  /// A whole value of `valueBytes` bytes (at least 16): the name, then the filler byte.
  public func makeValue(valueBytes: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: Self.filler, count: max(valueBytes, Self.encodedBytes))
    let words = words
    for byte in 0..<8 {
      bytes[byte] = UInt8(truncatingIfNeeded: words.low >> UInt64(8 * byte))
      bytes[byte + 8] = UInt8(truncatingIfNeeded: words.high >> UInt64(8 * byte))
    }
    return bytes
  }

  /// What follows the name in a value.
  public static let filler: UInt8 = 0x2E
}

/// The one way a key number is spelled as bytes: 16 lower-case hexadecimal digits.
public enum KeySpelling {
  /// Bytes of every key.
  public static let keyBytes = 16

  /// The key as two words to be stored in little-endian order, `low` first. No memory is touched: hot paths store
  /// the two words where they need them.
  @inlinable
  public static func words(_ keyNumber: UInt64) -> (low: UInt64, high: UInt64) {
    (hexDigits(UInt32(truncatingIfNeeded: keyNumber >> 32)), hexDigits(UInt32(truncatingIfNeeded: keyNumber)))
  }

  /// The key as an array of 16 bytes.
  public static func bytes(_ keyNumber: UInt64) -> [UInt8] {
    let words = words(keyNumber)
    return (0..<8).map { UInt8(truncatingIfNeeded: words.low >> UInt64(8 * $0)) }
      + (0..<8).map { UInt8(truncatingIfNeeded: words.high >> UInt64(8 * $0)) }
  }

  /// Eight digits of `half`, the most significant in the lowest byte.
  @inlinable
  static func hexDigits(_ half: UInt32) -> UInt64 {
    var nibbles = UInt64(half.byteSwapped)
    nibbles = (nibbles | (nibbles << 16)) & 0x0000_FFFF_0000_FFFF
    nibbles = (nibbles | (nibbles << 8)) & 0x00FF_00FF_00FF_00FF
    // Each 16-bit lane holds one byte, whose high digit comes first.
    nibbles = ((nibbles >> 4) | (nibbles << 8)) & 0x0F0F_0F0F_0F0F_0F0F
    // 10...15 are carried past 15 by the 6, which marks the lanes that need a letter.
    let letters = ((nibbles &+ 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101
    return nibbles &+ 0x3030_3030_3030_3030 &+ letters &* 0x27
  }
}

/// One operation as the generator hands it out: plain numbers, nothing to allocate, retain or release.
@frozen
public struct Operation: Sendable, Equatable {
  public var keyNumber: UInt64
  /// The name of the value that a `.set` writes. For `.delete` it names the deletion; meaningless for `.get`.
  public var value: ValueID
  /// Size of the value that a `.set` writes, at least `ValueID.encodedBytes`; 0 for the other kinds.
  public var valueBytes: UInt32
  public var kind: OperationKind

  @inlinable
  public init(kind: OperationKind, keyNumber: UInt64, value: ValueID, valueBytes: UInt32) {
    self.keyNumber = keyNumber
    self.value = value
    self.valueBytes = valueBytes
    self.kind = kind
  }
}

/// An operation with the number that its completion will carry.
@frozen
public struct Submission: Sendable {
  public var operation: Operation
  /// Chosen by the worker, unique among what it has in flight in the session; tokens are small and dense, so a
  /// session may index an array by them.
  public var token: UInt32

  @inlinable
  public init(token: UInt32, operation: Operation) {
    self.operation = operation
    self.token = token
  }
}

/// How an operation ended.
@frozen
public enum OperationStatus: UInt8, Sendable {
  /// It took effect (or read) between its submission and its completion.
  case ok = 0
  /// It did not and never will take effect: refused before it entered the log.
  case failed = 1
  /// It may or may not have taken effect, or may yet: the leader was lost, or the time ran out.
  case unknown = 2
}

/// The end of one operation.
@frozen
public struct Completion: Sendable {
  /// Nanoseconds of CLOCK_MONOTONIC at which the answer was there for the caller, read after the operation took
  /// effect. One reading of the clock may serve a batch.
  public var doneNanoseconds: UInt64
  /// For an `.ok` get: the name at the front of the value, or nil where the key has no value. Nil otherwise.
  public var readValue: ValueID?
  public var token: UInt32
  public var status: OperationStatus

  @inlinable
  public init(token: UInt32, status: OperationStatus, readValue: ValueID? = nil, doneNanoseconds: UInt64) {
    self.doneNanoseconds = doneNanoseconds
    self.readValue = readValue
    self.token = token
    self.status = status
  }
}
