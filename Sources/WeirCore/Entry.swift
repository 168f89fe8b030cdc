// Cost: a header is 32 bytes (three words, a byte) without a reference, passed in registers; making or copying one touches
// no memory.

/// What a log entry carries; the numbers are those of etcd's raftpb, and go onto the wire and the disk.
@frozen
public enum EntryKind: UInt8, Sendable, Hashable, CaseIterable {
  /// A command for the state machine; empty for a new leader's first entry.
  case normal = 0
  /// A single-member configuration change.
  case configurationChange = 1
  /// A configuration change that may go through a joint configuration.
  case configurationChangeV2 = 2
}

/// What an entry's frame says about it.
@frozen
public struct EntryHeader: Sendable, Hashable {
  public var index: LogIndex
  public var term: Term
  public var kind: EntryKind
  /// Size of the payload in bytes.
  public var payloadBytes: Int

  @inlinable
  public init(index: LogIndex, term: Term, kind: EntryKind, payloadBytes: Int) {
    self.index = index
    self.term = term
    self.kind = kind
    self.payloadBytes = payloadBytes
  }
}

/// Why bytes are not the frame of an entry.
public enum EntryFrameError: Error, Sendable, Hashable {
  /// Fewer bytes than the frame's header or its stated length.
  case truncated
  /// The stated length is outside of what a frame can be.
  case invalidLength(UInt32)
  /// The kind or a reserved byte has no meaning in this version.
  case invalidKind(UInt8)
  /// The checksum does not match the bytes.
  case checksumMismatch
  /// The bytes between the payload and the end of the frame are not zero.
  case invalidPadding
}
