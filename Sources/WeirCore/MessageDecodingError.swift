// Cost: two words and a byte; thrown as a typed error, which allocates nothing. It ends a connection, so that it is rare.

/// Why bytes are not a Raft message of this version. The connection they came from is to be closed: behind a broken
/// message there is no telling where the next one begins.
public enum MessageDecodingError: Error, Sendable, Hashable {
  /// Fewer bytes than the message says it has.
  case truncated(neededBytes: Int, availableBytes: Int)
  /// More bytes than the message says it has.
  case trailingBytes(Int)
  /// Another version of the layout: the sender is to be brought to the same version, or its versions are to be negotiated.
  case unsupportedVersion(UInt8)
  /// No message has this number in this version.
  case unknownType(UInt8)
  /// Flags that have no meaning in this version.
  case unknownFlags(UInt8)
  /// A byte that must be zero in this version is not.
  case reservedBytesNotZero(byteOffset: Int)
  /// The stated size of the header is impossible.
  case invalidHeaderBytes(UInt32)
  /// The checksum does not match the header.
  case headerChecksumMismatch
  /// A list is longer than `MessageCodec` allows.
  case listTooLong(count: Int, maximumCount: Int)
  /// A list is announced and then empty: what is not there is left out.
  case emptyList
  /// A list of members is not ascending.
  case membersNotAscending
  /// Messages of this type carry no entries.
  case unexpectedEntries(MessageType)
  /// An append whose index leaves no room for its entries.
  case indexOverflow(LogIndex)
  /// The entries are not what they should be.
  case entries(EntryRunError)
  /// A response may not carry responses itself.
  case nestedResponses
}
