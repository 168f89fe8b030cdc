/// Why bytes from the network, or a request to build some, were refused.
///
/// Plain numbers only, no strings: refusing a packet must not allocate, or a flood of bad packets costs more than one
/// of good ones.
public enum WireError: Error, Hashable, Sendable {
  /// The bytes end too early; with at least so many bytes in all it would go on.
  case truncated(neededBytes: Int)
  case empty
  case unknownMessageType(UInt8)
  /// A known message where it has no business: a stream message in a packet, a checksum inside a compound.
  case misplacedMessage(MessageType)
  /// A msgpack byte that does not start what the field needs.
  case unexpectedFormat(byte: UInt8, atByte: Int)
  /// An integer that does not fit its field, or is negative where that has no meaning.
  case integerOutOfRange(atByte: Int)
  /// An address that has neither 4 nor 16 bytes.
  case invalidAddress(byteCount: Int)
  /// More nested compounds and compressions than any sender makes.
  case nestedTooDeeply(limit: Int)
  case checksumMismatch(computed: UInt32, carried: UInt32)
  case unknownCompression(algorithm: UInt8)
  /// A code that the LZW table does not hold yet.
  case invalidLZWCode(UInt16)
  /// The end code is missing.
  case unterminatedLZW
  case decompressedTooLarge(limitBytes: Int)
  case labelMismatch
  /// A label header of no bytes, which no sender writes.
  case emptyLabel
  /// A label header where the configuration says that it has been taken off already.
  case unexpectedLabel
  case labelTooLong(byteCount: Int)
  /// No key of the keyring opens it, or it was altered on the way.
  case decryptionFailed
  case encryptionFailed
  case unknownEncryptionVersion(UInt8)
  case invalidPadding
  /// The peer does not encrypt and we do (memberlist sends this text to the peer).
  case notEncrypted
  /// The peer encrypts and we have no keyring.
  case encryptionNotConfigured
  case invalidKeyLength(byteCount: Int)
  case cannotRemovePrimaryKey
  case keyNotInstalled
  case tooManyNodes(count: Int, limit: Int)
  case tooLarge(byteCount: Int, limitBytes: Int)
  case negativeLength
  /// A compound holds at most 255 messages of at most 65,535 bytes.
  case tooManyMessages(count: Int)
  case incompatibleProtocol(speaks: UInt8, low: UInt8, high: UInt8)
  case incompatibleDelegate(speaks: UInt8, low: UInt8, high: UInt8)
  /// Text that is no address, port or address range.
  case invalidText
}

extension WireError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .truncated(let needed): "the bytes end too early: at least \(needed) are needed"
    case .empty: "no bytes"
    case .unknownMessageType(let type): "message type \(type) is unknown: is the peer newer, or encrypting?"
    case .misplacedMessage(let type): "a message of type \(type) does not belong here"
    case .unexpectedFormat(let byte, let offset):
      "msgpack format byte \(byte) at byte \(offset) is not what the field needs"
    case .integerOutOfRange(let offset): "the integer at byte \(offset) does not fit its field"
    case .invalidAddress(let count): "an address has 4 or 16 bytes, not \(count)"
    case .nestedTooDeeply(let limit): "messages are nested more than \(limit) deep"
    case .checksumMismatch(let computed, let carried):
      "checksum \(carried) was sent, \(computed) computed: altered on the way"
    case .unknownCompression(let algorithm): "compression algorithm \(algorithm) is unknown (0 is LZW)"
    case .invalidLZWCode(let code): "LZW code \(code) is not in the table"
    case .unterminatedLZW: "the compressed bytes lack their end code"
    case .decompressedTooLarge(let limit): "decompresses to more than \(limit) bytes"
    case .labelMismatch: "the label is not ours: give all members of the cluster the same label"
    case .emptyLabel: "a label header must name a label"
    case .unexpectedLabel: "a label header, although the configuration says that a proxy has taken it off"
    case .labelTooLong(let count): "a label has at most 255 bytes, not \(count)"
    case .decryptionFailed: "no installed key opens it: give all members of the cluster a common key"
    case .encryptionFailed: "the bytes could not be encrypted"
    case .unknownEncryptionVersion(let version): "encryption version \(version) is unknown (0 and 1 are)"
    case .invalidPadding: "the padding under the encryption is not PKCS#7"
    case .notEncrypted: "encryption is configured but remote state is not encrypted"
    case .encryptionNotConfigured: "remote state is encrypted and encryption is not configured"
    case .invalidKeyLength(let count): "a key has 16, 24 or 32 bytes, not \(count)"
    case .cannotRemovePrimaryKey: "the primary key cannot be removed: make another key the primary first"
    case .keyNotInstalled: "the key is not installed: add it before using it"
    case .tooManyNodes(let count, let limit): "\(count) nodes announced, at most \(limit) are taken"
    case .tooLarge(let count, let limit): "\(count) bytes announced, at most \(limit) are taken"
    case .negativeLength: "a negative length was announced"
    case .tooManyMessages(let count): "a packet holds at most 255 messages, not \(count)"
    case .incompatibleProtocol(let speaks, let low, let high):
      "speaks protocol \(speaks), but all members together understand \(low) to \(high)"
    case .incompatibleDelegate(let speaks, let low, let high):
      "the application speaks version \(speaks), but all members together understand \(low) to \(high)"
    case .invalidText: "not an address of the form [name/]host[:port], or not a range of the form address/bits"
    }
  }
}
