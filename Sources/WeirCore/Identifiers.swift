// Cost: names for whole numbers of 8 bytes; a copy is one move.

/// The identity of a Raft member; 0 is nobody.
public typealias NodeID = UInt64

/// A Raft term; 0 is the term of local messages and of an empty log.
public typealias Term = UInt64

/// A position in the replicated log; the first entry has index 1.
public typealias LogIndex = UInt64

extension NodeID {
  /// Nobody.
  public static var none: NodeID { 0 }

  /// The local thread that stores entries, as the address of asynchronous storage messages.
  public static var appendThread: NodeID { .max }

  /// The local thread that applies entries, as the address of asynchronous storage messages.
  public static var applyThread: NodeID { .max - 1 }
}
