import Foundation
import Logging
import Synchronization
import TestSupport
import Testing
import WeirCore

@testable import WeirTransport

/// One transport on a loop of its own that records what it reports and runs blocks that a test gives it.
///
/// Sendable: what the loop's queue writes lies under the lock.
final class Endpoint: EventLoopHandler, TransportDelegate, @unchecked Sendable {
  struct Seen {
    var messages: [Message] = []
    var unreachable: [NodeID] = []
    var connected: Set<NodeID> = []
    var connectionChanges = 0
    var snapshotsSent: [Bool] = []
    var snapshotsBegun = 0
    var wantsSnapshots = true
    /// Whether sinks answer only when `answerOwed` is called, and how many answers they owe, and owed at most.
    var holdsAnswers = false
    var owedAnswers = 0
    var mostOwedAnswers = 0
    /// Behind how many bytes a sink refuses the rest.
    var refusesBytes: Int?
    var snapshots: [(message: Message, data: [UInt8])] = []
    var blocks: [@Sendable (PeerTransport) -> Void] = []
    var counters = TransportCounters()
  }

  let seen = Mutex(Seen())
  /// Called with how much of a snapshot has arrived, after each piece.
  let onSnapshotBytes = Mutex<(@Sendable (Int) -> Void)?>(nil)
  let lines = LogLines()
  let loop: any EventLoop
  let id: NodeID
  private(set) var transport: any PeerTransport
  let address: SocketAddress
  let keepsMessages: Bool

  init(
    _ id: NodeID, clusterID: UInt64 = 77, mechanism: ReadinessMechanism = .pollLoop, repoll: UInt64 = 0,
    port: UInt16 = 0, keepsMessages: Bool = true, _ adjust: (inout TransportConfiguration) -> Void = { _ in }
  ) throws {
    self.id = id
    self.keepsMessages = keepsMessages
    loop = try EventLoopConfiguration(mechanism: mechanism, repollNanoseconds: repoll).makeLoop(label: "test.\(id)")
    var configuration = TransportConfiguration(
      clusterID: clusterID, nodeID: id, listenAddress: try SocketAddress(host: "127.0.0.1", port: port), seed: 5)
    adjust(&configuration)
    let lines = lines
    let log = lines.logger(level: .debug)
    let tcp = try TCPTransport(configuration: configuration, loop: loop, log: log)
    address = tcp.address
    transport = tcp
    transport.delegate = self
  }

  func start() {
    nonisolated(unsafe) let handler: any EventLoopHandler = self
    loop.start(handler)
  }

  func stop() {
    perform { $0.close() }
    loop.stop()
  }

  /// Runs `block` on the loop's queue and waits until it has.
  func perform(_ block: @escaping @Sendable (PeerTransport) -> Void) {
    let done = DispatchSemaphore(value: 0)
    post { transport in
      block(transport)
      done.signal()
    }
    done.wait()
  }

  /// Sends a state of index 99 to node 2.
  func sendSnapshot(_ data: [UInt8]) {
    perform { transport in
      var message = Message(type: .snapshot, to: 2, from: 1, term: 4)
      let metadata = SnapshotMetadata(index: 99, term: 3, configuration: ConfigurationState(voters: [1, 2]))
      message.attachment = MessageAttachment(snapshot: Snapshot(metadata: metadata))
      transport.sendSnapshot(message, source: ArraySource(data))
    }
  }

  /// Runs `block` on the loop's queue, soon.
  func post(_ block: @escaping @Sendable (PeerTransport) -> Void) {
    seen.withLock { $0.blocks.append(block) }
    loop.wake()
  }

  var eventLoopHasWork: Bool { seen.withLock { !$0.blocks.isEmpty } || transport.hasWork }
  func eventLoopReadable(channel: Int) { transport.readable(channel: channel) }
  func eventLoopWritable(channel: Int) { transport.writable(channel: channel) }

  func eventLoopTurn() -> UInt64 {
    let now = DispatchTime.now().uptimeNanoseconds
    let next = transport.advance(nowNanoseconds: now)
    let blocks = seen.withLock { seen in
      let blocks = seen.blocks
      seen.blocks.removeAll()
      return blocks
    }
    for block in blocks { block(transport) }
    transport.flush()
    let counters = transport.counters
    seen.withLock { $0.counters = counters }
    return min(next, now + 20_000_000)
  }

  func transportReceived(_ message: inout Message) {
    guard keepsMessages else { return }
    let message = message
    seen.withLock { $0.messages.append(message) }
  }
  func transportUnreachable(_ peer: NodeID) { seen.withLock { $0.unreachable.append(peer) } }
  func transportConnectionChanged(_ peer: NodeID, isConnected: Bool) {
    seen.withLock {
      $0.connectionChanges += 1
      if isConnected { $0.connected.insert(peer) } else { $0.connected.remove(peer) }
    }
  }
  func transportSnapshotSent(_ peer: NodeID, succeeded: Bool) { seen.withLock { $0.snapshotsSent.append(succeeded) } }
  func transportSnapshotBegan(_ message: Message) -> (any SnapshotSink)? {
    let isWanted = seen.withLock { seen in
      seen.snapshotsBegun += 1
      return seen.wantsSnapshots
    }
    return isWanted ? Sink(self, message) : nil
  }

  /// Takes what comes at once, or answers for it in later turns.
  final class Sink: SnapshotSink {
    let endpoint: Endpoint
    let message: Message
    var data: [UInt8] = []
    init(_ endpoint: Endpoint, _ message: Message) {
      self.endpoint = endpoint
      self.message = message
    }
    func append(_ chunk: [UInt8], completion: @escaping Completion) {
      endpoint.answer { [self] in
        data.append(contentsOf: chunk)
        let count = data.count
        endpoint.onSnapshotBytes.withLock { $0 }?(count)
        let limit = endpoint.seen.withLock { $0.refusesBytes } ?? .max
        completion(count > limit ? .failure(Refusal()) : .success(()))
      }
    }
    func finish(completion: @escaping Completion) {
      endpoint.answer { [self] in
        endpoint.seen.withLock { $0.snapshots.append((message, data)) }
        completion(.success(()))
      }
    }
  }

  struct Refusal: Error {}

  /// Answers that sinks owe, in order. Used on the loop's queue only.
  private var owed: [() -> Void] = []

  private func answer(_ block: @escaping () -> Void) {
    let count = owed.count + 1
    let isHeld = seen.withLock { seen in
      seen.owedAnswers = count
      seen.mostOwedAnswers = max(seen.mostOwedAnswers, count)
      return seen.holdsAnswers
    }
    owed.append(block)
    if !isHeld { answerOwed(.max) }
  }

  /// Gives the first answers that are owed.
  func answerOwed(_ count: Int) {
    for _ in 0..<min(count, owed.count) { owed.removeFirst()() }
    let left = owed.count
    seen.withLock { $0.owedAnswers = left }
  }
}

/// Waits for a condition; false if it did not come true within a generous time.
func eventually(_ seconds: Double = 30, _ condition: () -> Bool) -> Bool {
  let end = Date().addingTimeInterval(seconds)
  while Date() < end {
    if condition() { return true }
    usleep(2000)
  }
  return condition()
}

/// An append with `count` entries of `payloadBytes` each, behind `index`.
func makeAppend(
  from: NodeID, to: NodeID, index: LogIndex, count: Int, payloadBytes: Int = 128, term: Term = 1
) -> Message {
  var log = LogBuffer(anchorIndex: index, anchorTerm: term)
  let payload = [UInt8](repeating: UInt8(truncatingIfNeeded: index), count: payloadBytes)
  for _ in 0..<count { log.append(term: term, payload: payload.span.bytes) }
  var message = Message(type: .append, to: to, from: from, term: term)
  message.index = index
  message.logTerm = term
  if count > 0 { message.entries = log.batch(from: index + 1, through: index + UInt64(count)) }
  return message
}

/// Connects two endpoints and starts both.
func connectPair(_ first: Endpoint, _ second: Endpoint) {
  first.transport.addPeer(second.id, address: second.address)
  second.transport.addPeer(first.id, address: first.address)
  first.start()
  second.start()
}

/// Connects two endpoints, waits until they are, and stops both after `body`.
func withConnectedPair(
  _ first: Endpoint, _ second: Endpoint, _ body: (_ first: Endpoint, _ second: Endpoint) throws -> Void
) rethrows {
  connectPair(first, second)
  defer {
    first.stop()
    second.stop()
  }
  #expect(eventually { first.seen.withLock { $0.connected == [second.id] } })
  try body(first, second)
}

/// Breaks the connections that snapshots travel on. On the loop's queue.
func loseTransfers(_ transport: any PeerTransport) {
  guard let transport = transport as? TCPTransport else { return }
  for connection in Array(transport.connections.values) where connection.purpose == .snapshots {
    transport.lose(connection, nil)
  }
}

/// How many transfers an endpoint has gone on with on another connection.
func snapshotsResumed(_ endpoint: Endpoint) -> UInt64 {
  let count = Mutex(UInt64(0))
  endpoint.perform { transport in count.withLock { $0 = transport.counters.snapshotsResumed } }
  return count.withLock { $0 }
}

/// A state of so many thousand bytes, of which no two pieces are equal.
func distinctData(kilobytes: Int) -> [UInt8] {
  var data = [UInt8](repeating: 0, count: kilobytes * 1000)
  for block in 0..<kilobytes {
    data[block * 1000] = UInt8(truncatingIfNeeded: block)
    data[block * 1000 + 1] = UInt8(truncatingIfNeeded: block >> 8)
  }
  return data
}
