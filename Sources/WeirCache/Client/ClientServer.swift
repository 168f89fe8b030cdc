import Logging
import WeirCore
import WeirTransport

/// Settings of a node's door for clients in other processes.
public struct ClientServerConfiguration: Sendable {
  /// Where to listen; port 0 lets the system choose.
  public var listenAddress: SocketAddress
  public var eventLoop: EventLoopConfiguration
  /// Connections that are served at once; more are closed at once.
  public var maximumConnections = 1024
  /// Writes of one connection that may be under way; more are answered as overload.
  public var maximumInFlight = 1 << 16
  /// Answers that may wait for one connection, in bytes. Reads beyond it are answered as overload, and a client that still
  /// goes on asking without reading is disconnected.
  public var maximumPendingBytes = 64 << 20

  public init(listenAddress: SocketAddress, eventLoop: EventLoopConfiguration = .init()) {
    self.listenAddress = listenAddress
    self.eventLoop = eventLoop
  }
}

/// Serves clients in other processes, on a serial queue of its own beside that of the node.
///
/// What has arrived on a connection is framed once, as it will lie in the log, and handed to the node as one batch; Lease
/// reads are answered on the server's queue without entering the node's. All answers of a turn leave in one write for
/// each connection.
public final class ClientServer: Sendable {
  private let shell: ServingShell<ServedClient>

  /// Begins to listen and to serve.
  /// - Throws: `TransportError` if it cannot listen.
  public init(node: Node, configuration: ClientServerConfiguration, log: Logger) throws(TransportError) {
    shell = try ServingShell(
      label: "weir.clients.\(node.id)", listenAddress: configuration.listenAddress, eventLoop: configuration.eventLoop
    ) { ClientServing(node: node, configuration: configuration, loop: $0, listener: $1, log: log) }
  }

  /// Where it listens, with the port that the system chose.
  public var address: SocketAddress { shell.address }

  /// Ends it: no thread or socket of it remains when this returns. Before its node is stopped.
  public func stop() { shell.stop() }
}

/// The server's part on its queue.
private final class ClientServing: Serving<ServedClient> {
  private let node: Node
  private let configuration: ClientServerConfiguration
  private var builder = EntryBatchBuilder(capacity: 256 << 10)
  private var tokens: [UInt32] = []

  init(
    node: Node, configuration: ClientServerConfiguration, loop: any EventLoop, listener: Int32, log: Logger
  ) {
    self.node = node
    self.configuration = configuration
    super.init(loop: loop, listener: listener, maximumConnections: configuration.maximumConnections, log: log)
  }

  override func makeConnection(channel: Int, descriptor: Int32) -> ServedClient? {
    node.openLane(capacity: configuration.maximumInFlight, bell: bell)
      .map { ServedClient(channel: channel, descriptor: descriptor, lane: $0) }
  }

  override func release(_ client: ServedClient) {
    super.release(client)
    node.close(client.lane)
  }

  // MARK: Event loop

  override func readable(_ client: ServedClient) {
    // Bounded, so that one busy client does not keep the others waiting.
    for _ in 0..<8 {
      let (result, isShort) = client.reader.receive(from: client.descriptor)
      guard case .moved = result else {
        if result != .wouldBlock { drop(client) }
        break
      }
      do throws(ClientError) {
        while let frame = try client.reader.next() { try handle(frame, client) }
      } catch {
        log.warning("a client of node \(node.id) was disconnected: \(error)")
        drop(client)
        break
      }
      if isShort { break }
    }
    submit(client)
  }

  override func writable(_ client: ServedClient) { flush(client) }

  /// Looks at every connection: there are few of them, and each look is a few loads.
  override func turn() -> UInt64 {
    for client in connections.values {
      collect(client)
      flush(client)
    }
    return .max
  }

  // MARK: Requests

  private func handle(_ frame: ClientFrameReader.Frame, _ client: ServedClient) throws(ClientError) {
    switch frame.kind {
    case .greeting:
      guard frame.number == node.clusterID, frame.count == 0 else {
        throw .malformed("it looks for cluster \(frame.number)")
      }
      client.isWelcome = true
      client.writer.seal(.answers, number: leader)
      client.writer.addEmpty(.welcome, number: leader)
    case .operations where client.isWelcome: try handleOperations(frame, client)
    default: throw .malformed("a frame of kind \(frame.kind) out of turn")
    }
  }

  private var leader: NodeID { node.status.leader }

  private func handleOperations(_ frame: ClientFrameReader.Frame, _ client: ServedClient) throws(ClientError) {
    let mark = client.writer.mark
    var hasLeaseReads = false
    try client.reader.forEachItem(frame) { token, code, payload in
      switch (ClientOperation(rawValue: code), payload) {
      case (.write, let command?): frameWrite(token, command, client)
      case (.safeRead, let key?): client.addRead(token, key)
      case (.leaseRead, let key?):
        hasLeaseReads = true
        answerRead(token, key, client)
      default: client.answer(token, .refused)
      }
    }
    guard hasLeaseReads, !node.leaseHeldDuringReads() else { return }
    // The values were read without a lease that covers the reading: nothing of this frame's answers may leave. Its reads
    // take a round instead, and its refusals are said again.
    client.writer.rewind(to: mark)
    try client.reader.forEachItem(frame) { token, code, payload in
      switch (ClientOperation(rawValue: code), payload) {
      case (.leaseRead, let key?): client.addRead(token, key)
      case (.safeRead, _?): break
      case (.write, let command?): if !Self.isCommand(command) { client.answer(token, .refused) }
      default: client.answer(token, .refused)
      }
    }
  }

  private static func isCommand(_ payload: RawSpan) -> Bool { (try? Command.decode(payload)) != nil }

  private func frameWrite(_ token: UInt32, _ command: RawSpan, _ client: ServedClient) {
    guard Self.isCommand(command) else { return client.answer(token, .refused) }
    builder.append(payload: command)
    tokens.append(token)
  }

  private func answerRead(_ token: UInt32, _ key: RawSpan, _ client: ServedClient) {
    // Checked for each value: a small frame of reads may ask for a thousand large ones.
    guard client.writer.pendingBytes <= configuration.maximumPendingBytes else {
      return client.answer(token, .overloaded)
    }
    if client.writer.isFull { client.writer.seal(.answers, number: leader) }
    let answered: Void? = node.store.read(key) { value in
      client.writer.add(token: token, code: Outcome.appliedExisting.rawValue, payload: value)
    }
    // Since it was given leave to read, the node has followed another leader and is loading a state from it.
    if answered == nil { client.answer(token, .notLeader) }
  }

  /// Hands what has gathered of one connection to the node.
  private func submit(_ client: ServedClient) {
    if !tokens.isEmpty {
      let batch = builder.finish()
      if client.inFlight + tokens.count <= client.lane.capacity, isConnected(client),
        node.submit(batch, tokens: tokens, lane: client.lane)
      {
        client.inFlight += tokens.count
      } else {
        for token in tokens { client.answer(token, .overloaded) }
      }
      tokens.removeAll(keepingCapacity: true)
    }
    if client.newReads > 0 {
      _ = node.requestReads(UInt64(client.newReads), lane: client.lane)
      client.newReads = 0
    }
  }

  // MARK: Answers

  private func collect(_ client: ServedClient) {
    client.inFlight -= client.lane.drain { client.answer($0.token, $0.outcome) }
    let (settled, failed) = client.lane.settledReads
    client.settleReads(through: settled) { token, ticket, key in
      if ticket <= failed { client.answer(token, .notLeader) } else { answerRead(token, key, client) }
    }
  }

  private func flush(_ client: ServedClient) {
    client.writer.seal(.answers, number: leader)
    guard client.writer.pendingBytes > 0 else { return }
    switch client.writer.send(to: client.descriptor) {
    case .moved: setBlocked(client, false)
    case .wouldBlock:
      guard client.writer.pendingBytes <= 2 * configuration.maximumPendingBytes else {
        log.warning("a client of node \(node.id) was disconnected: it does not read its answers")
        return drop(client)
      }
      setBlocked(client, true)
    case .closed, .failed: drop(client)
    }
  }

  private func setBlocked(_ client: ServedClient, _ isBlocked: Bool) {
    guard client.isBlocked != isBlocked else { return }
    client.isBlocked = isBlocked
    loop.setWriteInterest(channel: client.channel, isBlocked)
  }
}

/// One client's connection.
private final class ServedClient: ServedConnection {
  private struct Read {
    var token: UInt32
    var key: Range<Int>
  }

  let channel: Int
  let descriptor: Int32
  let lane: SessionLane
  var reader = ClientFrameReader()
  var writer = ClientFrameWriter()
  var isWelcome = false
  var isBlocked = false
  /// Writes that the node has not answered.
  var inFlight = 0
  /// Reads that the node has not been asked about.
  var newReads = 0
  private var reads: [Read] = []
  private var firstRead = 0
  private var firstTicket: UInt64 = 1
  private var keys: [UInt8] = []

  init(channel: Int, descriptor: Int32, lane: SessionLane) {
    self.channel = channel
    self.descriptor = descriptor
    self.lane = lane
  }

  func answer(_ token: UInt32, _ outcome: Outcome) {
    writer.add(token: token, code: outcome.rawValue, payload: nil)
  }

  /// Keeps a read until the node says that it may be answered.
  func addRead(_ token: UInt32, _ key: RawSpan) {
    let start = keys.count
    unsafe key.withUnsafeBytes { unsafe keys.append(contentsOf: $0) }
    reads.append(Read(token: token, key: start..<keys.count))
    newReads += 1
  }

  /// Calls `body` with each read up to a ticket, and forgets it.
  func settleReads(through settled: UInt64, _ body: (UInt32, UInt64, RawSpan) -> Void) {
    guard firstRead < reads.count, settled >= firstTicket else { return }
    do {
      let keys = keys
      let bytes = unsafe keys.span.bytes
      while firstRead < reads.count, firstTicket <= settled {
        let read = reads[firstRead]
        body(read.token, firstTicket, bytes.extracting(read.key))
        firstRead += 1
        firstTicket += 1
      }
    }
    if firstRead == reads.count {
      reads.removeAll(keepingCapacity: true)
      keys.removeAll(keepingCapacity: true)
      firstRead = 0
    }
  }
}
