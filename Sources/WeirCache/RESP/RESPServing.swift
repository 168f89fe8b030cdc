import CWeir
import Glibc
import Logging
import RESPWire
import WeirCore
import WeirTransport

/// The server's part on its queue: which command of which connection may begin, and what is answered to it.
final class RESPServing: Serving<RESPConnection> {
  /// Whose write a token stands for.
  private struct Proposal {
    var connection: RESPConnection
    /// Its number there; nil for a removal of what a read found past its deadline.
    var write: UInt32?
    var sizeBytes: Int
  }

  let node: Node
  let configuration: RESPServerConfiguration
  /// Where members serve RESP, `host:port`, as far as that is known.
  let directory: @Sendable () -> [NodeID: String]
  /// One for all connections; nil once the node has stopped.
  private(set) var lane: SessionLane?
  private var builder = EntryBatchBuilder(capacity: 256 << 10)
  private var encoder = RESPWriteEncoder()
  /// What the batch that is being filled has, and what is under way.
  private var batchTokens: [UInt32] = []
  private var proposals: [Proposal?] = []
  private var freeTokens: [UInt32] = []
  private var underWay = 0
  private var underWayBytes = 0
  /// Connections with something to look at in this turn.
  private var touched: [RESPConnection] = []
  private var starved: [RESPConnection] = []
  /// Connections whose reads want a ticket, and whose reads wait for one, in the order of the tickets.
  private var ticketless: [RESPConnection] = []
  private var waiting: [(ticket: UInt64, connection: RESPConnection)] = []
  private var scratch = [UInt8](repeating: 0, count: 64 << 10)
  private var nextID = 1
  private var endings: [RESPConnection] = []
  var knownLeader: (id: NodeID, address: String?, until: UInt64) = (.none, nil, 0)
  /// Milliseconds since 1970, as of this turn.
  private(set) var now: UInt64 = 0
  let startNanoseconds = cweir_monotonic_nanoseconds()
  private(set) var commandCount: UInt64 = 0

  init(
    node: Node, configuration: RESPServerConfiguration, directory: @escaping @Sendable () -> [NodeID: String],
    loop: any EventLoop, listener: Int32, log: Logger
  ) {
    self.node = node
    self.configuration = configuration
    self.directory = directory
    super.init(loop: loop, listener: listener, maximumConnections: configuration.maximumConnections, log: log)
    // Half of it for removals, which no client counts.
    lane = node.openLane(capacity: 2 * configuration.maximumInFlight, bell: bell)
  }

  deinit { if let lane { node.close(lane) } }

  // MARK: Event loop

  override func makeConnection(channel: Int, descriptor: Int32) -> RESPConnection? {
    guard lane != nil else { return nil }
    defer { nextID += 1 }
    return RESPConnection(channel: channel, descriptor: descriptor, id: nextID, limits: configuration.limits)
  }

  override func readable(_ connection: RESPConnection) {
    // Bounded, so that one busy client does not keep the others waiting.
    for _ in 0..<4 {
      switch unsafe scratch.withUnsafeMutableBytes({ unsafe Socket.receive(connection.descriptor, into: $0) }) {
      case .moved(let count):
        // A client that goes on talking after its last command is not listened to.
        if !connection.isEnding { connection.reader.append(scratch[..<count]) }
        touch(connection)
        guard count == scratch.count, !connection.isPaused else { return }
      case .wouldBlock: return
      case .closed, .failed: return drop(connection)
      }
    }
  }

  override func writable(_ connection: RESPConnection) {
    flush(connection)
    touch(connection)
  }

  override func turn() -> UInt64 {
    now = WallClock.milliseconds()
    collect()
    // A batch that the node does not take is answered at once, which may let more begin.
    while !touched.isEmpty || !batchTokens.isEmpty {
      let connections = touched
      touched.removeAll(keepingCapacity: true)
      for connection in connections {
        connection.isTouched = false
        if isConnected(connection) { advance(connection) }
      }
      submit()
      for connection in connections where isConnected(connection) { flush(connection) }
    }
    return endings.isEmpty ? .max : sweepEndings()
  }

  private func touch(_ connection: RESPConnection) {
    guard !connection.isTouched else { return }
    connection.isTouched = true
    touched.append(connection)
  }

  // MARK: What the node has answered

  private func collect() {
    guard let lane else { return }
    lane.drainNumbers { completion, number in settle(completion.token, completion.outcome, number) }
    let settled = lane.settledReads.settled
    let end = waiting.firstIndex { $0.ticket > settled } ?? waiting.count
    for position in 0..<end { touch(waiting[position].connection) }
    waiting.removeFirst(end)
    guard !isFull, !starved.isEmpty else { return }
    for connection in starved {
      connection.isStarved = false
      touch(connection)
    }
    starved.removeAll(keepingCapacity: true)
  }

  private func settle(_ token: UInt32, _ outcome: Outcome, _ number: Int64) {
    guard let proposal = proposals[Int(token)] else { preconditionFailure("a proposal is answered once") }
    proposals[Int(token)] = nil
    freeTokens.append(token)
    underWay -= 1
    underWayBytes -= proposal.sizeBytes
    let connection = proposal.connection
    if let write = proposal.write {
      connection.settle(write, outcome, number)
    } else {
      connection.removalsUnderWay -= 1
      if !outcome.isApplied { connection.removalFailure = outcome }
    }
    touch(connection)
  }

  // MARK: Commands

  /// Answers what is ready, begins what may begin, and so on until there is nothing of either.
  private func advance(_ connection: RESPConnection) {
    repeat {
      answerWrites(connection)
      answerReads(connection)
    } while begin(connection)
    updateReadInterest(connection)
  }

  /// Begins commands as far as their turn has come.
  /// - Returns: whether there are reads among them, which may be answered at once.
  private func begin(_ connection: RESPConnection) -> Bool {
    var hasReads = false
    do throws(RESPError) {
      while mayBegin(connection), try connection.reader.next(), let kind = beginNext(connection) {
        connection.reader.consume()
        if kind == .read { hasReads = true }
      }
    } catch {
      // In its turn: what was asked before is answered first.
      guard connection.isIdle else { return hasReads }
      RESPReply.appendError("ERR \(error)", to: &connection.output.bytes)
      connection.isEnding = true
    }
    return hasReads
  }

  /// Begins the command that the reader has found. A function of its own, so that nothing holds the reader's arrays when it
  /// goes on.
  /// - Returns: its kind, nil if its turn has not come.
  private func beginNext(_ connection: RESPConnection) -> RESPVerb.Kind? {
    let words = RESPWords(bytes: connection.reader.bytes, places: connection.reader.arguments)
    guard let verb = words.with(0, RESPVerb.named), verb.accepts(words.count) else {
      guard connection.isIdle else { return nil }
      appendUnknown(words, to: &connection.output.bytes)
      return .local
    }
    let kind = verb.shape.kind
    guard mayBegin(kind, connection) else { return nil }
    commandCount &+= 1
    switch kind {
    case .write: beginWrite(verb, words, connection)
    case .read: connection.begin(verb, words)
    case .local: answerLocally(verb, words, connection)
    }
    return kind
  }

  private func mayBegin(_ connection: RESPConnection) -> Bool {
    !connection.isEnding && connection.output.pendingBytes <= configuration.maximumPendingBytes
  }

  /// Whether a command's turn has come; see `RESPConnection`.
  private func mayBegin(_ kind: RESPVerb.Kind, _ connection: RESPConnection) -> Bool {
    switch kind {
    case .local: return connection.isIdle
    case .read:
      return connection.writesUnderWay == 0
        && connection.readsUnderWay < configuration.maximumInFlightPerConnection
        && connection.readKeyBytes <= configuration.limits.maximumCommandBytes
    case .write:
      guard connection.readsUnderWay == 0, connection.writesUnderWay < configuration.maximumInFlightPerConnection
      else { return false }
      guard isFull else { return true }
      starve(connection)
      return false
    }
  }

  /// Whether nothing more may begin. What this lets through the node takes: more would be refused there.
  private var isFull: Bool {
    underWay >= configuration.maximumInFlight || underWayBytes >= configuration.maximumInFlightBytes
  }

  /// Too much is under way: the connection is looked at again when there is less.
  private func starve(_ connection: RESPConnection) {
    guard !connection.isStarved else { return }
    connection.isStarved = true
    starved.append(connection)
  }

  private func beginWrite(_ verb: RESPVerb, _ words: RESPWords, _ connection: RESPConnection) {
    do throws(RESPRefusal) {
      let reply = try encoder.encode(verb, words, now: now)
      let slot = words.with(1) { RESPKeySlot.slot(of: $0) }
      propose(encoder.command, connection, connection.begin(reply, slot: slot))
    } catch {
      connection.refuse(error)
      touch(connection)
    }
  }

  private func propose(_ command: [UInt8], _ connection: RESPConnection, _ write: UInt32?) {
    let proposal = Proposal(connection: connection, write: write, sizeBytes: command.count)
    let token: UInt32
    if let free = freeTokens.popLast() {
      token = free
      proposals[Int(token)] = proposal
    } else {
      token = UInt32(proposals.count)
      proposals.append(proposal)
    }
    builder.append(payload: command)
    batchTokens.append(token)
    underWay += 1
    underWayBytes += command.count
  }

  /// Has keys removed that a read has found past their deadline. It is answered once they are: a key that was seen to be gone
  /// must not come back with the next leader, whose clock may be behind.
  func remove(_ keys: [[UInt8]], _ connection: RESPConnection) {
    guard let lane, !keys.isEmpty else { return }
    // Those that do not fit are found again.
    let room = lane.capacity - underWay
    if room == 0 { starve(connection) }
    for key in keys.prefix(room) {
      guard let command = RESPWriteEncoder.removal(of: key, now: now) else { continue }
      connection.removalsUnderWay += 1
      propose(command, connection, nil)
    }
  }

  /// Has the reads of a connection confirmed, with those of all others of this turn.
  func wantTicket(_ connection: RESPConnection) {
    guard !connection.wantsTicket else { return }
    connection.wantsTicket = true
    ticketless.append(connection)
  }

  /// Hands everything that has begun in this turn to the node.
  private func submit() {
    if !batchTokens.isEmpty {
      let batch = builder.finish()
      let tokens = batchTokens
      batchTokens.removeAll(keepingCapacity: true)
      if !(lane.map { node.submit(batch, tokens: tokens, lane: $0) } ?? false) {
        for token in tokens { settle(token, .overloaded, 0) }
      }
    }
    guard !ticketless.isEmpty, let lane else { return }
    let ticket = node.requestReads(1, lane: lane)
    for connection in ticketless {
      connection.wantsTicket = false
      connection.assign(ticket: ticket)
      waiting.append((ticket, connection))
    }
    ticketless.removeAll(keepingCapacity: true)
  }

  // MARK: Sending

  private func flush(_ connection: RESPConnection) {
    let wasFull = connection.output.pendingBytes > configuration.maximumPendingBytes
    if connection.output.pendingBytes > 0 {
      switch connection.output.send(to: connection.descriptor) {
      case .moved, .wouldBlock: break
      case .closed, .failed: return drop(connection)
      }
    }
    // What waited for room goes on.
    if wasFull, connection.output.pendingBytes <= configuration.maximumPendingBytes { touch(connection) }
    let isBlocked = connection.output.pendingBytes > 0
    if isBlocked != connection.isBlocked {
      connection.isBlocked = isBlocked
      loop.setWriteInterest(channel: connection.channel, isBlocked)
    }
    if connection.isEnding, connection.isIdle, !isBlocked { end(connection) }
  }

  /// The last answer is out. Closing at once could reset the connection while the client still sends, and take the answer
  /// with it: its side is awaited, for a while.
  private func end(_ connection: RESPConnection) {
    guard connection.endDeadline == nil else { return }
    connection.endDeadline = cweir_monotonic_nanoseconds() &+ 1_000_000_000
    shutdown(connection.descriptor, Int32(SHUT_WR))
    endings.append(connection)
  }

  private func sweepEndings() -> UInt64 {
    let time = cweir_monotonic_nanoseconds()
    endings.removeAll { connection in
      guard isConnected(connection) else { return true }
      guard let deadline = connection.endDeadline, deadline <= time else { return false }
      drop(connection)
      return true
    }
    return endings.first?.endDeadline ?? .max
  }

  /// Holds back a client that sends faster than it is served.
  private func updateReadInterest(_ connection: RESPConnection) {
    let limit = max(configuration.maximumWaitingBytes, configuration.limits.maximumCommandBytes + scratch.count)
    let isPaused = connection.reader.pendingBytes > limit
    guard isPaused != connection.isPaused else { return }
    connection.isPaused = isPaused
    loop.setReadInterest(channel: connection.channel, !isPaused)
  }
}
