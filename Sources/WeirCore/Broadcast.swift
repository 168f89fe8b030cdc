// Cost: values of one to three words without a reference, passed in registers; a copy is as many moves.

/// Why a broadcast was not queued.
public enum BroadcastQueueError: Error, Sendable, Hashable {
  /// No packet could ever hold it: see `BroadcastQueue.maximumPayloadBytes`.
  case payloadTooLarge(byteCount: Int, maximumByteCount: Int)
  /// A name or key is longer than `BroadcastQueue.maximumNameBytes`.
  case nameTooLong(byteCount: Int, maximumByteCount: Int)
}

/// The three kinds of broadcast, which never invalidate each other.
@frozen
public enum BroadcastKind: UInt8, Sendable, Hashable {
  /// Invalidates earlier plain ones with the same key, or those that a predicate names.
  case plain = 0
  /// Replaces the queued one of the same name.
  case named = 1
  /// Invalidates nothing and is invalidated by nothing.
  case unique = 2
}

/// A broadcast that left the queue for good.
@frozen
public struct FinishedBroadcast: Sendable, Hashable {
  @frozen
  public enum Reason: Sendable, Hashable {
    /// Sent as often as the limit asks for.
    case transmitted
    /// A newer one took its place.
    case invalidated
    /// Dropped to keep the queue within its size.
    case pruned
    /// The queue was emptied.
    case reset
  }

  /// What the caller gave when it queued the broadcast.
  public var tag: UInt64
  public var kind: BroadcastKind
  public var reason: Reason

  public init(tag: UInt64, kind: BroadcastKind, reason: Reason) {
    self.tag = tag
    self.kind = kind
    self.reason = reason
  }
}
