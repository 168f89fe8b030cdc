import Logging
import Synchronization
import WeirTransport

/// A client's connection, as far as the shell around its protocol has to know it.
protocol ServedConnection: AnyObject {
  /// The loop's number for it.
  var channel: Int { get }
  var descriptor: Int32 { get }
}

/// What a server for clients is made of besides its protocol: where it listens, the loop it runs on, and how it ends.
///
/// Sendable: `serving` belongs to the loop's queue while that runs, and to `stop` afterwards; the rest is immutable.
final class ServingShell<Connection: ServedConnection>: @unchecked Sendable {
  /// Where it listens, with the port that the system chose.
  let address: SocketAddress
  private let loop: any EventLoop
  private let serving: Serving<Connection>

  /// Begins to listen and to serve.
  /// - Parameter makeServing: the protocol's part, on a loop that does not run yet and a descriptor that listens.
  /// - Throws: `TransportError` if it cannot listen.
  init(
    label: String, listenAddress: SocketAddress, eventLoop: EventLoopConfiguration,
    makeServing: (any EventLoop, Int32) -> Serving<Connection>
  ) throws(TransportError) {
    let loop = try eventLoop.makeLoop(label: label)
    let (descriptor, port) = try Socket.listen(on: listenAddress)
    address = listenAddress.withPort(port)
    self.loop = loop
    serving = makeServing(loop, descriptor)
    nonisolated(unsafe) let handler: any EventLoopHandler = serving
    unsafe loop.start(handler)
  }

  /// Ends it: no thread or socket of it remains when this returns.
  func stop() {
    loop.stop()
    // The queue has stopped: what was confined to it is ours now.
    serving.close()
  }
}

/// A server's part on its queue: accepts up to a limit, knows who is connected, and leaves what is said to the protocol, a
/// subclass.
class Serving<Connection: ServedConnection>: EventLoopHandler {
  let loop: any EventLoop
  let log: Logger
  /// Rung by other threads when there is something for `turn` to look at.
  let bell: ServingBell
  private let listener: Int32
  private let maximumConnections: Int
  /// Everyone who is connected, by channel.
  private(set) var connections: [Int: Connection] = [:]
  private var nextChannel = listenerChannel + 1

  private static var listenerChannel: Int { 0 }

  init(loop: any EventLoop, listener: Int32, maximumConnections: Int, log: Logger) {
    self.loop = loop
    self.listener = listener
    self.maximumConnections = maximumConnections
    self.log = log
    bell = ServingBell(loop: loop)
    loop.register(descriptor: listener, channel: Self.listenerChannel)
  }

  /// Ends every connection, and listening. Once the loop has stopped.
  final func close() {
    for connection in Array(connections.values) { drop(connection) }
    loop.close(channel: Self.listenerChannel)
  }

  // MARK: The protocol's part

  /// Somebody has connected; nil sends them away.
  func makeConnection(channel: Int, descriptor: Int32) -> Connection? {
    preconditionFailure("a protocol makes its connections")
  }

  /// There is something to read, or an end, or an error.
  func readable(_ connection: Connection) {}

  /// The socket can take more.
  func writable(_ connection: Connection) {}

  /// Everything that was ready has been handed over; the bell may have rung.
  /// - Returns: when to be called again at the latest, CLOCK_MONOTONIC in nanoseconds.
  func turn() -> UInt64 { .max }

  /// The connection is no longer one of `connections`: what it holds is given back, its descriptor first of all.
  func release(_ connection: Connection) { loop.close(channel: connection.channel) }

  // MARK: Connections

  final func drop(_ connection: Connection) {
    guard connections.removeValue(forKey: connection.channel) != nil else { return }
    release(connection)
  }

  final func isConnected(_ connection: Connection) -> Bool { connections[connection.channel] != nil }

  private func acceptAll() {
    while let descriptor = Socket.accept(on: listener) {
      guard connections.count < maximumConnections,
        let connection = makeConnection(channel: nextChannel, descriptor: descriptor)
      else {
        log.warning("a client was refused: \(connections.count) are served already, or the node is stopping")
        Socket.close(descriptor)
        continue
      }
      nextChannel += 1
      connections[connection.channel] = connection
      loop.register(descriptor: descriptor, channel: connection.channel)
    }
  }

  // MARK: Event loop

  final var eventLoopHasWork: Bool { bell.hasRung }

  final func eventLoopReadable(channel: Int) {
    guard channel != Self.listenerChannel else { return acceptAll() }
    if let connection = connections[channel] { readable(connection) }
  }

  final func eventLoopWritable(channel: Int) {
    if let connection = connections[channel] { writable(connection) }
  }

  final func eventLoopTurn() -> UInt64 {
    // Silenced before looking: what comes from here on rings again.
    bell.silence()
    return turn()
  }
}

/// How other threads tell a server's queue that there is something for it.
final class ServingBell: Sendable {
  private let isRinging = Atomic<Bool>(false)
  private let loop: any EventLoop

  init(loop: any EventLoop) { self.loop = loop }

  /// From any thread, after what it announces was put where `turn` finds it.
  func ring() {
    isRinging.store(true, ordering: .sequentiallyConsistent)
    loop.wake()
  }

  var hasRung: Bool { isRinging.load(ordering: .sequentiallyConsistent) }

  func silence() { isRinging.store(false, ordering: .sequentiallyConsistent) }
}

extension Node {
  /// A lane whose news ring `bell`; nil once the node has stopped.
  func openLane(capacity: Int, bell: ServingBell) -> SessionLane? {
    try? openLane(capacity: capacity) { bell.ring() }
  }
}
