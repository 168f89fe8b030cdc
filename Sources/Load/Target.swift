/// Something that serves operations: an embedded cluster, or a server at an address.
///
/// `makeSession`, `counters` and `replicaHashes` may be called from any thread.
public protocol Target: AnyObject, Sendable {
  /// What the results call it, e.g. `embedded`.
  var name: String { get }

  /// How its nodes wait for their sockets; nil where that is not known.
  var readiness: Readiness? { get }

  /// One conversation, for one worker thread. All calls of the session come from that thread.
  ///
  /// - Parameters:
  ///   - worker: the number of the worker, from 0.
  ///   - readMode: how every `.get` of the session is served.
  func makeSession(worker: Int, readMode: ReadMode) throws -> any TargetSession

  /// What the target has counted since it started; cheap enough to be asked once a second.
  func counters() -> TargetCounters

  /// One hash per replica over its whole state, taken once each replica has applied all that is committed. Called
  /// when no session has anything in flight.
  ///
  /// - Throws: `TargetError` if a replica does not get there before the deadline (CLOCK_MONOTONIC).
  func replicaHashes(deadlineNanoseconds: UInt64) throws -> [ReplicaHash]

  /// Ends it: no thread, socket or file of it remains when this returns. Called once, after every session's `close`.
  func shutdown()
}

extension Target {
  public var readiness: Readiness? { nil }
}

/// How the nodes of a target wait for their sockets: part of every result, since it decides about latency.
public struct Readiness: Sendable, Hashable {
  /// `poll` (an epoll loop on the node's queue) or `dispatch` (Dispatch sources).
  public var mechanism: String
  /// How long a node polls again before it sleeps; 0: not at all.
  public var repollMicroseconds: Double
  /// Whether threads that ask something of a sleeping node run its loop themselves.
  public var callersDrive: Bool

  public init(mechanism: String, repollMicroseconds: Double, callersDrive: Bool = false) {
    self.mechanism = mechanism
    self.repollMicroseconds = repollMicroseconds
    self.callersDrive = callersDrive
  }
}

/// One worker's conversation with a target. Calls carry batches, so that the dynamic dispatch is paid once a batch.
public protocol TargetSession: AnyObject {
  /// Takes over all of `batch`, in order. Each submission is answered by exactly one completion, in any order, from
  /// this or a later call. What can be answered at once on the calling thread (a read under the lease) is appended
  /// to `completions` here; what the session refuses (a limit is reached) is appended as `.failed`.
  ///
  /// Must not block on the network: back-pressure is the worker's, which holds no more in flight than it was told.
  func submit(_ batch: Span<Submission>, completions: inout [Completion])

  /// Appends every completion that is there. Where there is none, waits for the first, or until
  /// `deadlineNanoseconds` (CLOCK_MONOTONIC) has passed; a deadline in the past (0) means: do not wait.
  func poll(into completions: inout [Completion], until deadlineNanoseconds: UInt64)

  /// Ends the session. Nothing may be delivered after it returns; what is still in flight is the worker's to count
  /// as unknown.
  func close()
}

/// Counts since the target started; a run's share is the difference of two readings. Nil where the target cannot know.
public struct TargetCounters: Sendable, Equatable {
  /// Raft messages that all nodes together sent to peers (each AppendEntries, heartbeat and answer counts as one).
  public var peerMessages: UInt64?
  /// Bytes of those messages, framing included.
  public var peerBytes: UInt64?
  /// Times that a node's event loop woke from sleep.
  public var wakeups: UInt64?
  public var fsyncs: UInt64?
  /// Packets that gossip of all nodes together sent, and the bytes of its packets and streams.
  public var gossipPackets: UInt64?
  public var gossipBytes: UInt64?
  /// CPU time that gossip took for them. Where the nodes are processes of their own, it is among `nodeCPUNanoseconds`.
  public var gossipCPUNanoseconds: UInt64?
  /// CPU time (user and system) of the nodes' own threads.
  public var nodeCPUNanoseconds: UInt64?
  /// CPU time of other processes that serve it, which that of the generator's process does not contain.
  public var otherProcessCPUNanoseconds: UInt64?
  /// Elections won. A steady run must not add to it.
  public var elections: UInt64?

  public init(
    peerMessages: UInt64? = nil, peerBytes: UInt64? = nil, wakeups: UInt64? = nil, fsyncs: UInt64? = nil,
    gossipPackets: UInt64? = nil, gossipBytes: UInt64? = nil, gossipCPUNanoseconds: UInt64? = nil,
    nodeCPUNanoseconds: UInt64? = nil, otherProcessCPUNanoseconds: UInt64? = nil, elections: UInt64? = nil
  ) {
    self.peerMessages = peerMessages
    self.peerBytes = peerBytes
    self.wakeups = wakeups
    self.fsyncs = fsyncs
    self.gossipPackets = gossipPackets
    self.gossipBytes = gossipBytes
    self.gossipCPUNanoseconds = gossipCPUNanoseconds
    self.nodeCPUNanoseconds = nodeCPUNanoseconds
    self.otherProcessCPUNanoseconds = otherProcessCPUNanoseconds
    self.elections = elections
  }

  /// What was counted between `start` and `self`; nil stays nil.
  public func since(_ start: TargetCounters) -> TargetCounters {
    func difference(_ path: KeyPath<TargetCounters, UInt64?>) -> UInt64? {
      guard let end = self[keyPath: path], let begin = start[keyPath: path] else { return nil }
      return end >= begin ? end - begin : 0
    }
    return TargetCounters(
      peerMessages: difference(\.peerMessages), peerBytes: difference(\.peerBytes), wakeups: difference(\.wakeups),
      fsyncs: difference(\.fsyncs), gossipPackets: difference(\.gossipPackets),
      gossipBytes: difference(\.gossipBytes), gossipCPUNanoseconds: difference(\.gossipCPUNanoseconds),
      nodeCPUNanoseconds: difference(\.nodeCPUNanoseconds),
      otherProcessCPUNanoseconds: difference(\.otherProcessCPUNanoseconds), elections: difference(\.elections))
  }
}

/// The state of one replica, as one number.
public struct ReplicaHash: Sendable, Equatable {
  /// The replica's node number.
  public var node: UInt64
  /// The index up to which it has applied.
  public var appliedIndex: UInt64
  /// A hash over all keys and values that does not depend on the order in which they are stored.
  public var hash: UInt64
  /// How many keys it holds.
  public var keys: UInt64

  public init(node: UInt64, appliedIndex: UInt64, hash: UInt64, keys: UInt64) {
    self.node = node
    self.appliedIndex = appliedIndex
    self.hash = hash
    self.keys = keys
  }
}

/// Why a target could not do what was asked; the text says what to do about it.
public struct TargetError: Error, CustomStringConvertible, Sendable {
  public var description: String

  public init(_ description: String) {
    self.description = description
  }
}

/// When a node's log is on the disk, against when what depends on it is answered.
public enum Durability: Sendable, Hashable {
  /// The log lives in memory only.
  case memory
  /// On the disk before anything that depends on it is answered.
  case always
  /// Answered once it is written to a file, on the disk every so many milliseconds.
  case interval(milliseconds: Int)
  /// Answered once it is written to a file; the kernel decides when that reaches the disk.
  case off
}

extension Durability: CustomStringConvertible {
  /// Reads `memory`, `always`, `interval:<ms>` or `off`; nil for anything else.
  public init?(_ text: String) {
    switch text {
    case "memory": self = .memory
    case "always": self = .always
    case "off": self = .off
    default:
      guard text.hasPrefix("interval:"), let milliseconds = Int(text.dropFirst(9)),
        (1...86_400_000).contains(milliseconds)
      else { return nil }
      self = .interval(milliseconds: milliseconds)
    }
  }

  /// As `init` reads it.
  public var description: String {
    switch self {
    case .memory: "memory"
    case .always: "always"
    case .interval(let milliseconds): "interval:\(milliseconds)"
    case .off: "off"
    }
  }
}

/// What cluster to start. What a factory cannot do it refuses with a `TargetError`.
public struct ClusterConfiguration: Sendable, Equatable {
  public var nodes: Int
  public var durability: Durability
  /// Where the folder with the nodes' logs is made; nil: where temporary files go. It goes with the cluster.
  public var directory: String?
  /// Milliseconds between ticks.
  public var tickMilliseconds: Int
  /// Ticks without word from a leader after which a follower stands for election.
  public var electionTicks: Int
  public var heartbeatTicks: Int
  /// Seed of the nodes' own randomness (election timeouts).
  public var seed: UInt64

  public init(
    nodes: Int = 3, durability: Durability = .always, directory: String? = nil, tickMilliseconds: Int = 50,
    electionTicks: Int = 20, heartbeatTicks: Int = 1, seed: UInt64 = 1
  ) {
    self.nodes = nodes
    self.durability = durability
    self.directory = directory
    self.tickMilliseconds = tickMilliseconds
    self.electionTicks = electionTicks
    self.heartbeatTicks = heartbeatTicks
    self.seed = seed
  }
}

/// Starts targets.
public protocol TargetFactory: Sendable {
  /// Starts a cluster and returns once it has a leader that serves reads in both modes.
  func startCluster(_ configuration: ClusterConfiguration) throws -> any Target
}
