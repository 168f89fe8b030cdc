import WeirCore

/// One TCP connection to another node, from the first byte of its hello to its end.
final class Connection {
  enum State {
    /// The system is connecting.
    case connecting
    /// Connected; the other side's hello has not come yet.
    case awaitingHello
    /// Both sides have agreed.
    case established
  }

  let channel: Int
  let descriptor: Int32
  let purpose: Hello.Channel
  /// Whether this node made the connection.
  let isDialer: Bool
  var state: State
  /// Whom it leads to; nobody before the hello of an accepted connection.
  var peer: NodeID
  /// The other side's instance, once known.
  var instance: UInt64 = 0
  /// When to give up waiting for the hello.
  let helloDeadlineNanoseconds: UInt64
  var lastHeardNanoseconds: UInt64 = 0
  /// Whether the socket takes nothing more until it is reported writable.
  var isBlocked = false
  var receiveBuffer: ReceiveBuffer
  let writer = VectoredWriter()
  var snapshotSender: SnapshotSender?
  var snapshotArrival: SnapshotArrival?

  init(
    channel: Int, descriptor: Int32, purpose: Hello.Channel, isDialer: Bool, peer: NodeID,
    helloDeadlineNanoseconds: UInt64, configuration: TransportConfiguration
  ) {
    self.channel = channel
    self.descriptor = descriptor
    self.purpose = purpose
    self.isDialer = isDialer
    self.peer = peer
    self.helloDeadlineNanoseconds = helloDeadlineNanoseconds
    state = isDialer ? .connecting : .awaitingHello
    receiveBuffer = ReceiveBuffer(
      capacity: configuration.receiveBufferBytes, maximumFrameBytes: configuration.maximumFrameBytes)
  }
}

/// A node that this one knows of: where it is, the connection to it, and what waits for it.
final class PeerLink {
  let peer: NodeID
  var address: SocketAddress?
  /// The established connection for messages.
  var connection: Connection?
  /// The attempt under way.
  var dialing: Connection?
  var outbound: OutboundQueue
  var nextAttemptNanoseconds: UInt64
  var failedAttempts = 0
  /// Why the peer last refused us, so that the log says it once.
  var lastRefusal: HelloVerdict?
  /// When a waiting commit notice leaves, if no append has taken it along; 0 if none waits.
  var noticeDeadlineNanoseconds: UInt64 = 0
  /// Whether a message was dropped since Raft was last told.
  var isUnreachable = false

  init(peer: NodeID, address: SocketAddress?, maximumQueuedBytes: Int, nextAttemptNanoseconds: UInt64) {
    self.peer = peer
    self.address = address
    self.nextAttemptNanoseconds = nextAttemptNanoseconds
    outbound = OutboundQueue(maximumBytes: maximumQueuedBytes)
  }
}
