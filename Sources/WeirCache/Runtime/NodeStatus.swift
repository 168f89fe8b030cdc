import Raft
import Synchronization
import WeirCore
import WeirTransport

/// What a node was at a moment, as it last published it.
public struct NodeStatus: Sendable, Hashable {
  public var id: NodeID
  public var role: Role
  /// The leader as far as this node knows; 0 if it knows none.
  public var leader: NodeID
  public var term: Term
  public var commitIndex: LogIndex
  public var appliedIndex: LogIndex
  public var lastIndex: LogIndex
}

/// Counts since a node started.
public struct NodeCounters: Sendable, Hashable {
  public var messagesSent: UInt64 = 0
  public var bytesSent: UInt64 = 0
  public var messagesReceived: UInt64 = 0
  public var writeCalls: UInt64 = 0
  public var readCalls: UInt64 = 0
  public var messagesDropped: UInt64 = 0
  /// Turns of the event loop.
  public var turns: UInt64 = 0
  /// Times that the event loop went from sleeping to running.
  public var wakeups: UInt64 = 0
  public var proposals: UInt64 = 0
  /// Batches that were proposed; proposals divided by it is how many travel together.
  public var proposalBatches: UInt64 = 0
  /// Rounds of ReadIndex.
  public var readRounds: UInt64 = 0
  public var electionsWon: UInt64 = 0
  /// Times that the log was made durable.
  public var syncs: UInt64 = 0
  /// System calls of the event loop beside reading and writing; nil where they cannot be counted.
  public var loopSystemCalls: EventLoopSystemCalls?
  /// CPU time of the event loop's thread, where it is always the same.
  public var cpuNanoseconds: UInt64?

  public init() {}
}

/// What a node's queue publishes for other threads to read without a lock. Everything in it is atomic.
final class PublishedState: Sendable {
  let role = Atomic<UInt8>(0)
  let leader = Atomic<UInt64>(0)
  let term = Atomic<UInt64>(0)
  let commitIndex = Atomic<UInt64>(0)
  let appliedIndex = Atomic<UInt64>(0)
  let lastIndex = Atomic<UInt64>(0)
  /// Until when this node may answer Lease reads (CLOCK_MONOTONIC); 0: not at all.
  let leaseExpiryNanoseconds = Atomic<UInt64>(0)
  let messagesSent = Atomic<UInt64>(0)
  let bytesSent = Atomic<UInt64>(0)
  let messagesReceived = Atomic<UInt64>(0)
  let writeCalls = Atomic<UInt64>(0)
  let readCalls = Atomic<UInt64>(0)
  let messagesDropped = Atomic<UInt64>(0)
  let turns = Atomic<UInt64>(0)
  let proposals = Atomic<UInt64>(0)
  let proposalBatches = Atomic<UInt64>(0)
  let readRounds = Atomic<UInt64>(0)
  let electionsWon = Atomic<UInt64>(0)
  let syncs = Atomic<UInt64>(0)
  let isOutOfSpace = Atomic<Bool>(false)
  let failure = Mutex<String?>(nil)
  let stateRefusal = Mutex<String?>(nil)
}
