import CWeir
import Logging
import WeirCore

/// Raft messages over TCP: one pipelined connection in both directions between each pair of nodes, and one more for
/// the time of a snapshot.
///
/// Either side may make the connection; where both do at once, that of the lower id stays. One connection instead of
/// one for each direction lets the answers carry the acknowledgements of TCP, which saves a packet and its interrupt
/// for each batch.
///
/// Confined to the event loop's queue (before the loop starts, to whoever builds the node).
public final class TCPTransport: PeerTransport {
  let configuration: TransportConfiguration
  let loop: any EventLoop
  let log: Logger
  public weak var delegate: (any TransportDelegate)?
  public internal(set) var counters = TransportCounters()
  /// Where this node listens, with the port that the system chose.
  public let address: SocketAddress

  var links: [PeerLink] = []
  var connections: [Int: Connection] = [:]
  private let listenerChannel = 0
  private let listener: Int32
  private var nextChannel = 1
  private var random: SplitMix64
  /// Random for each start: tells a node that connected twice from two nodes that claim one id.
  let instance: UInt64
  private var isClosed = false
  /// Snapshots that were being sent, or were arriving, on connections that are gone.
  var interruptedSenders: [SnapshotSender] = []
  var interruptedArrivals: [SnapshotArrival] = []
  private var now: UInt64 = 0
  /// When the first held back commit notice has to leave.
  private var noticeDeadline = UInt64.max

  /// Begins to listen.
  /// - Throws: `TransportError.cannotListen`.
  public init(configuration: TransportConfiguration, loop: any EventLoop, log: Logger) throws(TransportError) {
    self.configuration = configuration
    self.loop = loop
    self.log = log
    let (descriptor, port) = try Socket.listen(on: configuration.listenAddress)
    listener = descriptor
    address = configuration.listenAddress.withPort(port)
    random = SplitMix64(seed: configuration.seed ^ (configuration.nodeID &* 0x9E37_79B9_7F4A_7C15))
    instance = random.next() | 1
    loop.register(descriptor: descriptor, channel: listenerChannel)
  }

  // MARK: Peers

  public func addPeer(_ peer: NodeID, address: SocketAddress) {
    precondition(peer != .none && peer != configuration.nodeID, "a peer is another node")
    if let link = link(of: peer) {
      link.address = address
      return
    }
    // The lower id connects at once, the other only if that has not happened after a while: that spares most pairs
    // the second connection, and still connects a pair of which only one side knows the other's address.
    let now = cweir_monotonic_nanoseconds()
    let patience = configuration.nodeID < peer ? 0 : jittered(150_000_000)
    links.append(
      PeerLink(
        peer: peer, address: address, maximumQueuedBytes: configuration.maximumQueuedBytesPerPeer,
        nextAttemptNanoseconds: now + patience))
  }

  public func removePeer(_ peer: NodeID) {
    guard let position = links.firstIndex(where: { $0.peer == peer }) else { return }
    let link = links.remove(at: position)
    for connection in connections.values where connection.peer == peer {
      discard(connection)
      guard connection.snapshotSender != nil else { continue }
      connection.snapshotSender = nil
      delegate?.transportSnapshotSent(peer, succeeded: false)
    }
    interruptedArrivals.removeAll { $0.peer == peer }
    link.outbound.removeAll()
  }

  public func isConnected(_ peer: NodeID) -> Bool { link(of: peer)?.connection != nil }

  func link(of peer: NodeID) -> PeerLink? {
    for link in links where link.peer == peer { return link }
    return nil
  }

  // MARK: Sending

  public func send(_ message: Message) {
    guard let link = link(of: message.to), link.connection != nil else {
      counters.messagesDropped += 1
      if message.type == .append { self.link(of: message.to)?.isUnreachable = true }
      return
    }
    if !link.outbound.enqueue(message) {
      counters.messagesDropped += 1
      link.isUnreachable = true
    }
  }

  public func flush() {
    noticeDeadline = .max
    for link in links {
      guard let connection = link.connection, !connection.isBlocked, !link.outbound.isEmpty else { continue }
      if holdsBack(link) { continue }
      link.noticeDeadlineNanoseconds = 0
      writeMessages(link, connection)
    }
  }

  /// Whether all that waits is a commit notice whose time has not come.
  private func holdsBack(_ link: PeerLink) -> Bool {
    guard configuration.commitNoticeDelayNanoseconds > 0, link.outbound.holdsOnlyNotice else { return false }
    if link.noticeDeadlineNanoseconds == 0 {
      link.noticeDeadlineNanoseconds = now + configuration.commitNoticeDelayNanoseconds
    }
    noticeDeadline = min(noticeDeadline, link.noticeDeadlineNanoseconds)
    return link.noticeDeadlineNanoseconds > now
  }

  private func writeMessages(_ link: PeerLink, _ connection: Connection) {
    while true {
      if connection.writer.isEmpty {
        let merged = link.outbound.mergedCount
        let taken = connection.writer.fill(
          from: &link.outbound, clusterID: configuration.clusterID, sender: configuration.nodeID)
        counters.messagesSent += UInt64(taken)
        counters.messagesMerged = max(counters.messagesMerged, merged)
        if taken == 0 { break }
      }
      guard write(connection) else { return }
    }
    unblock(connection)
  }

  /// One write. Returns whether the socket can take more.
  func write(_ connection: Connection) -> Bool {
    let result = connection.writer.write(to: connection.descriptor)
    counters.writeCalls += 1
    switch result {
    case .moved(let count):
      counters.bytesSent += UInt64(count)
      if connection.writer.isEmpty { return true }
      block(connection)
    case .wouldBlock: block(connection)
    case .closed: lose(connection, "closed by the peer")
    case .failed(let code): lose(connection, "\(TransportError.systemCall("send", errno: code))")
    }
    return false
  }

  private func block(_ connection: Connection) {
    guard !connection.isBlocked else { return }
    connection.isBlocked = true
    loop.setWriteInterest(channel: connection.channel, true)
  }

  func unblock(_ connection: Connection) {
    guard connection.isBlocked else { return }
    connection.isBlocked = false
    loop.setWriteInterest(channel: connection.channel, false)
  }

  // MARK: Readiness

  public func readable(channel: Int) {
    if channel == listenerChannel {
      acceptAll()
    } else if let connection = connections[channel] {
      if connection.state == .connecting { finishConnecting(connection) } else { read(connection) }
    }
  }

  public func writable(channel: Int) {
    guard let connection = connections[channel] else { return }
    switch connection.state {
    case .connecting: finishConnecting(connection)
    case .awaitingHello: break
    case .established:
      if connection.purpose == .snapshots {
        writeSnapshot(connection)
      } else if let link = link(of: connection.peer), link.connection === connection {
        writeMessages(link, connection)
      }
    }
  }

  private func read(_ connection: Connection) {
    // Bounded, so that one busy peer does not keep the others and the timers waiting.
    for _ in 0..<8 {
      let (result, isShort) = connection.receiveBuffer.receive(from: connection.descriptor)
      counters.readCalls += 1
      switch result {
      case .wouldBlock: return
      case .closed: return lose(connection, "closed by the peer")
      case .failed(let code): return lose(connection, "\(TransportError.systemCall("recv", errno: code))")
      case .moved(let count): counters.bytesReceived += UInt64(count)
      }
      connection.lastHeardNanoseconds = cweir_monotonic_nanoseconds()
      do { try handleReceived(connection) } catch {
        log.warning("connection to node \(connection.peer) ended: \(error)")
        return lose(connection, nil)
      }
      if isShort || connections[connection.channel] == nil { return }
    }
  }

  private func handleReceived(_ connection: Connection) throws(FrameError) {
    if connection.state == .awaitingHello {
      guard let bytes = connection.receiveBuffer.take(Hello.bytes) else { return }
      guard let hello = Hello(parsing: bytes) else { return refuseStranger(connection) }
      if connection.isDialer { receiveAnswer(hello, connection) } else { receiveGreeting(hello, connection) }
    }
    guard connection.state == .established else { return }
    while connections[connection.channel] != nil, let frame = try connection.receiveBuffer.nextFrame() {
      try handle(frame, connection)
    }
  }

  private func handle(_ range: Range<Int>, _ connection: Connection) throws(FrameError) {
    let slab = connection.receiveBuffer.slab
    let header = unsafe try FrameHeader(parsing: slab.bytes(in: range))
    guard header.clusterID == configuration.clusterID else { throw .wrongCluster(header.clusterID) }
    guard header.sender == connection.peer else { throw .wrongSender(header.sender) }
    let body = range.lowerBound + FrameHeader.bytes..<range.upperBound
    switch (header.kind, connection.purpose) {
    case (.message, .messages):
      var message = try decode(slab, body)
      guard message.from == connection.peer, message.to == configuration.nodeID else {
        throw .wrongSender(message.from)
      }
      counters.messagesReceived += 1
      delegate?.transportReceived(&message)
    case (.snapshotStart, .snapshots)
    where connection.snapshotArrival == nil && header.coveredBytes == body.count && body.count > 8:
      let number = unsafe UInt64(littleEndian: slab.bytes(in: body).loadUnaligned(as: UInt64.self))
      let message = try decode(slab, body.dropFirst(8))
      guard message.from == connection.peer, message.to == configuration.nodeID else {
        throw .wrongSender(message.from)
      }
      try receiveSnapshotStart(message, number: number, connection)
    case (.snapshotChunk, .snapshots) where header.coveredBytes == body.count:
      try receiveSnapshotChunk(unsafe [UInt8](slab.bytes(in: body)), connection)
    case (.snapshotProgress, .snapshots) where connection.isDialer && header.coveredBytes == body.count:
      try receiveSnapshotProgress(unsafe [UInt8](slab.bytes(in: body)), connection)
    default: throw .invalidKind(header.kind.rawValue)
    }
  }

  private func decode(_ slab: Slab, _ body: Range<Int>) throws(FrameError) -> Message {
    do {
      return try MessageCodec.decode(slab: slab, offset: body.lowerBound, byteCount: body.count)
    } catch {
      throw .invalidMessage("\(error)")
    }
  }

  // MARK: Time

  public var nextFlushNanoseconds: UInt64 { noticeDeadline }

  public func advance(nowNanoseconds now: UInt64) -> UInt64 {
    self.now = now
    var next = UInt64.max
    for link in links {
      if link.isUnreachable {
        link.isUnreachable = false
        delegate?.transportUnreachable(link.peer)
      }
      guard link.connection == nil, link.dialing == nil, let address = link.address else { continue }
      if link.nextAttemptNanoseconds <= now {
        link.dialing = dial(link.peer, address, .messages, now)
        if link.dialing == nil { backOff(link, now) }
      }
      if link.dialing == nil { next = min(next, link.nextAttemptNanoseconds) }
    }
    if !interruptedSenders.isEmpty || !interruptedArrivals.isEmpty { next = min(next, advanceSnapshots(now)) }
    if connections.count > links.count || next != .max || hasPending { next = min(next, expire(now)) }
    return next
  }

  private var hasPending: Bool { links.contains { $0.dialing != nil } }

  /// Gives up on connections that did not come to their hello, and on snapshots that do not move.
  private func expire(_ now: UInt64) -> UInt64 {
    var next = UInt64.max
    for connection in Array(connections.values) {
      let deadline: UInt64
      if connection.state != .established {
        deadline = connection.helloDeadlineNanoseconds
      } else if let sender = connection.snapshotSender {
        deadline = sender.deadlineNanoseconds
      } else if connection.snapshotArrival != nil {
        deadline = connection.lastHeardNanoseconds + configuration.snapshotPatienceNanoseconds
      } else {
        deadline = .max
      }
      if deadline <= now { lose(connection, "it took too long") } else { next = min(next, deadline) }
    }
    return next
  }

  // MARK: Connecting

  func dial(
    _ peer: NodeID, _ address: SocketAddress, _ purpose: Hello.Channel, _ now: UInt64
  ) -> Connection? {
    guard !isClosed else { return nil }
    do {
      let descriptor = try Socket.connect(to: address)
      let connection = makeConnection(descriptor, purpose, isDialer: true, peer: peer, now)
      loop.setWriteInterest(channel: connection.channel, true)
      return connection
    } catch {
      log.debug("cannot connect to node \(peer): \(error)")
      return nil
    }
  }

  private func makeConnection(
    _ descriptor: Int32, _ purpose: Hello.Channel, isDialer: Bool, peer: NodeID, _ now: UInt64
  ) -> Connection {
    let connection = Connection(
      channel: nextChannel, descriptor: descriptor, purpose: purpose, isDialer: isDialer, peer: peer,
      helloDeadlineNanoseconds: now + configuration.helloTimeoutNanoseconds, configuration: configuration)
    nextChannel += 1
    connections[connection.channel] = connection
    loop.register(descriptor: descriptor, channel: connection.channel)
    return connection
  }

  private func acceptAll() {
    let now = cweir_monotonic_nanoseconds()
    while let descriptor = Socket.accept(on: listener) {
      let waiting = connections.values.reduce(0) { $0 + ($1.state == .awaitingHello && !$1.isDialer ? 1 : 0) }
      guard waiting < configuration.maximumPendingConnections else {
        counters.connectionsRefused += 1
        log.warning("refused a connection: \(HelloVerdict.tooManyConnections)")
        Socket.close(descriptor)
        continue
      }
      _ = makeConnection(descriptor, .messages, isDialer: false, peer: .none, now)
    }
  }

  private func finishConnecting(_ connection: Connection) {
    let code = Socket.pendingError(connection.descriptor)
    guard code == 0 else { return lose(connection, nil) }
    connection.state = .awaitingHello
    loop.setWriteInterest(channel: connection.channel, false)
    sendHello(
      Hello(
        channel: connection.purpose, clusterID: configuration.clusterID, from: configuration.nodeID,
        to: connection.peer, instance: instance), connection)
  }

  private func sendHello(_ hello: Hello, _ connection: Connection) {
    connection.writer.append(bytes: hello.encoded())
    // 64 bytes on a socket that has not been written to: if they do not fit, something is wrong with it.
    guard case .moved = connection.writer.write(to: connection.descriptor), connection.writer.isEmpty else {
      return lose(connection, nil)
    }
  }

  func answer(_ connection: Connection, _ verdict: HelloVerdict, to peer: NodeID) {
    sendHello(
      Hello(
        channel: connection.purpose, verdict: verdict, clusterID: configuration.clusterID,
        from: configuration.nodeID, to: peer, instance: instance), connection)
  }

  // MARK: Ends

  /// Takes a connection out of use, tells Raft, and plans the next attempt.
  func lose(_ connection: Connection, _ reason: String?) {
    guard connections[connection.channel] != nil else { return }
    discard(connection)
    let now = cweir_monotonic_nanoseconds()
    if let sender = connection.snapshotSender {
      connection.snapshotSender = nil
      interrupted(sender, now)
    }
    if let arrival = connection.snapshotArrival {
      connection.snapshotArrival = nil
      interrupted(arrival, now)
    }
    guard connection.purpose == .messages, let link = link(of: connection.peer) else { return }
    if link.dialing === connection {
      link.dialing = nil
      backOff(link, now)
    }
    if link.connection === connection {
      link.connection = nil
      link.outbound.removeAll()
      link.isUnreachable = true
      counters.connectionsLost += 1
      link.failedAttempts = 0
      backOff(link, now)
      if let reason, !isClosed { log.info("connection to node \(link.peer) lost: \(reason)") }
      delegate?.transportConnectionChanged(link.peer, isConnected: false)
    }
  }

  func discard(_ connection: Connection) {
    guard connections.removeValue(forKey: connection.channel) != nil else { return }
    connection.writer.reset()
    loop.close(channel: connection.channel)
  }

  func backOff(_ link: PeerLink, _ now: UInt64) {
    link.nextAttemptNanoseconds = now + backoff(afterAttempts: link.failedAttempts)
    link.failedAttempts += 1
  }

  /// How long to wait before the next attempt to connect.
  func backoff(afterAttempts attempts: Int) -> UInt64 {
    jittered(
      min(
        configuration.minimumBackoffNanoseconds << UInt64(min(attempts, 20)), configuration.maximumBackoffNanoseconds))
  }

  func makeTransferNumber() -> UInt64 { random.next() }

  /// Between one half and one and a half of `nanoseconds`: peers that lost each other together do not meet again in
  /// lockstep.
  private func jittered(_ nanoseconds: UInt64) -> UInt64 {
    nanoseconds / 2 + random.next() % max(nanoseconds, 1)
  }

  public func close() {
    guard !isClosed else { return }
    isClosed = true
    for connection in Array(connections.values) { discard(connection) }
    loop.close(channel: listenerChannel)
    links.removeAll()
    interruptedSenders.removeAll()
    interruptedArrivals.removeAll()
  }
}
