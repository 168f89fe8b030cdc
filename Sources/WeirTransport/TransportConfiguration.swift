import WeirCore

/// Settings of a node's transport.
public struct TransportConfiguration: Sendable {
  /// The cluster; nodes of another one are refused.
  public var clusterID: UInt64
  public var nodeID: NodeID
  /// Where to listen; port 0 lets the system choose.
  public var listenAddress: SocketAddress
  /// Whether nodes that are not (yet) in the table of peers may connect: a node that joins knows nobody.
  public var admitsUnknownNodes = false
  /// Bytes that may wait for one peer. Beyond it a message is dropped and the peer reported unreachable.
  public var maximumQueuedBytesPerPeer = 16 << 20
  /// The largest frame accepted, in bytes.
  public var maximumFrameBytes = 32 << 20
  /// The largest snapshot accepted, in bytes.
  public var maximumSnapshotBytes = 1 << 30
  /// Bytes that one read of a connection can take.
  public var receiveBufferBytes = 256 << 10
  /// The first pause after a failed connection attempt; doubled for each further one, and jittered by half.
  public var minimumBackoffNanoseconds: UInt64 = 20_000_000
  public var maximumBackoffNanoseconds: UInt64 = 2_000_000_000
  /// How long a connection may take to come to its hello.
  public var helloTimeoutNanoseconds: UInt64 = 5_000_000_000
  /// How long a snapshot may make no progress, on a connection or without one, until both sides give it up.
  public var snapshotPatienceNanoseconds: UInt64 = 10_000_000_000
  /// A peer that has been heard of within this time is alive: who claims its id now is an impostor.
  public var impostorWindowNanoseconds: UInt64 = 1_000_000_000
  /// How long a notice that something is committed may wait for an append to travel with. Without it, every commit of a
  /// lone proposal wakes every follower once more, for news that nobody waits for.
  public var commitNoticeDelayNanoseconds: UInt64 = 0
  /// Connections that may wait for their hello at once.
  public var maximumPendingConnections = 64
  /// Seed of the jitter and of the instance number.
  public var seed: UInt64

  public init(clusterID: UInt64, nodeID: NodeID, listenAddress: SocketAddress, seed: UInt64) {
    self.clusterID = clusterID
    self.nodeID = nodeID
    self.listenAddress = listenAddress
    self.seed = seed
  }
}

/// What a transport has counted since it was made.
public struct TransportCounters: Sendable, Hashable {
  public var messagesSent: UInt64 = 0
  public var messagesReceived: UInt64 = 0
  public var bytesSent: UInt64 = 0
  public var bytesReceived: UInt64 = 0
  /// System calls that moved bytes.
  public var writeCalls: UInt64 = 0
  public var readCalls: UInt64 = 0
  /// Messages that a later one made superfluous while they waited.
  public var messagesMerged: UInt64 = 0
  /// Messages that were not sent: no connection, or a peer that does not keep up.
  public var messagesDropped: UInt64 = 0
  public var connectionsMade: UInt64 = 0
  public var connectionsLost: UInt64 = 0
  public var connectionsRefused: UInt64 = 0
  /// Snapshots that went on arriving on another connection than they had begun on.
  public var snapshotsResumed: UInt64 = 0

  public init() {}
}

/// What a transport reports, on the event loop's queue.
public protocol TransportDelegate: AnyObject {
  /// A message from a peer, which the delegate may use up.
  func transportReceived(_ message: inout Message)
  /// A message to `peer` was dropped: Raft should probe instead of assuming it arrives.
  func transportUnreachable(_ peer: NodeID)
  /// A connection to `peer` is up, or has gone down.
  func transportConnectionChanged(_ peer: NodeID, isConnected: Bool)
  /// A snapshot begins to arrive: where its data goes, or nil if none is wanted now. `message` comes without data; once
  /// the sink has finished, it is for the sink's owner to step it.
  func transportSnapshotBegan(_ message: Message) -> (any SnapshotSink)?
  /// Sending a snapshot to `peer` has ended.
  func transportSnapshotSent(_ peer: NodeID, succeeded: Bool)
}

/// Carries Raft messages between nodes. Confined to the event loop's queue.
public protocol PeerTransport: AnyObject {
  var delegate: (any TransportDelegate)? { get set }
  /// Makes `peer` known, or changes where it is.
  func addPeer(_ peer: NodeID, address: SocketAddress)
  func removePeer(_ peer: NodeID)
  /// Queues a message for `message.to`. Nothing leaves before `flush`.
  func send(_ message: Message)
  /// Sends what is queued: one vectored write a peer.
  func flush()
  /// When `flush` has to be called again although nothing more is sent.
  var nextFlushNanoseconds: UInt64 { get }
  /// Sends a snapshot message, whose data comes from `source`, beside the messages; the delegate hears how it ended.
  func sendSnapshot(_ message: Message, source: any SnapshotSource)
  /// Connects, reconnects, times out. Call it with each turn of the loop.
  /// - Returns: when to be called again at the latest, in nanoseconds of CLOCK_MONOTONIC.
  func advance(nowNanoseconds: UInt64) -> UInt64
  func isConnected(_ peer: NodeID) -> Bool
  /// A descriptor of the transport is ready.
  func readable(channel: Int)
  func writable(channel: Int)
  /// Whether something arrived that no descriptor reports.
  var hasWork: Bool { get }
  var counters: TransportCounters { get }
  /// Closes everything.
  func close()
}

extension PeerTransport {
  public func readable(channel: Int) {}
  public func writable(channel: Int) {}
  public var hasWork: Bool { false }
  public var nextFlushNanoseconds: UInt64 { .max }
}
