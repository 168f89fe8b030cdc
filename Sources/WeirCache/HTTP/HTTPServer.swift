import CWeir
import Glibc
import HTTPWire
import Logging
import Synchronization
import WeirTransport

/// Answers requests.
public protocol HTTPHandler: Sendable {
  /// Calls `completion` exactly once, from any thread, before it returns or later. Called on the server's queue; must
  /// not block.
  func answer(_ request: HTTPRequest, completion: @escaping @Sendable (HTTPResponse) -> Void)
}

/// Settings of an HTTP server.
public struct HTTPServerConfiguration: Sendable {
  /// Where to listen; port 0 lets the system choose.
  public var listenAddress: SocketAddress
  public var eventLoop: EventLoopConfiguration
  public var limits = HTTPLimits()
  /// Connections that are served at once; more are closed at once.
  public var maximumConnections = 1024
  /// Requests of one connection that may wait for their answers; a client that sends more is disconnected.
  public var maximumPipelinedRequests = 1024
  /// Answers that may wait for one connection, in bytes; a client that does not read is disconnected.
  public var maximumPendingBytes = 16 << 20
  /// How long a connection may be idle between requests.
  public var idleTimeoutNanoseconds: UInt64 = 120_000_000_000
  /// How long a request may take to arrive.
  public var requestTimeoutNanoseconds: UInt64 = 30_000_000_000

  public init(listenAddress: SocketAddress, eventLoop: EventLoopConfiguration = .init()) {
    self.listenAddress = listenAddress
    self.eventLoop = eventLoop
  }
}

/// A small HTTP/1.1 server on an event loop of its own: keep-alive, pipelining with answers in order, bounded
/// everything, and no chunked bodies, no TLS and no upgrade.
public final class HTTPServer: Sendable {
  private let shell: ServingShell<HTTPConnection>
  private let counters = HTTPAnswerCounters()

  /// Begins to listen and to serve.
  /// - Throws: `TransportError` if it cannot listen.
  public init(
    handler: any HTTPHandler, configuration: HTTPServerConfiguration, log: Logger
  ) throws(TransportError) {
    let counters = counters
    shell = try ServingShell(
      label: "weir.http", listenAddress: configuration.listenAddress, eventLoop: configuration.eventLoop
    ) {
      HTTPServing(handler: handler, configuration: configuration, counters: counters, loop: $0, listener: $1, log: log)
    }
  }

  /// Where it listens, with the port that the system chose.
  public var address: SocketAddress { shell.address }

  /// Ends it: no thread or socket of it remains when this returns. What is answered afterwards goes nowhere.
  public func stop() { shell.stop() }

  /// Requests answered so far, by the first digit of their status: the third is that of 2xx.
  public var answersByClass: [UInt64] { counters.byClass.withLock(\.self) }
}

private final class HTTPAnswerCounters: Sendable {
  let byClass = Mutex([UInt64](repeating: 0, count: 6))
}

/// The server's part on its queue.
private final class HTTPServing: Serving<HTTPConnection> {
  /// Answers on their way to the server's queue.
  private final class Arrivals: Sendable {
    private let waiting = Mutex<[(channel: Int, number: UInt64, response: HTTPResponse)]>([])

    func add(_ channel: Int, _ number: UInt64, _ response: HTTPResponse) {
      waiting.withLock { $0.append((channel, number, response)) }
    }

    func take() -> [(channel: Int, number: UInt64, response: HTTPResponse)] {
      waiting.withLock { waiting in
        let taken = waiting
        waiting = []
        return taken
      }
    }
  }

  private let handler: any HTTPHandler
  private let configuration: HTTPServerConfiguration
  private let arrivals = Arrivals()
  private let counters: HTTPAnswerCounters
  private var nextSweep: UInt64 = 0
  private var date = (second: Int64(-1), text: "")
  private var scratch = [UInt8](repeating: 0, count: 64 << 10)

  private static let sweepNanoseconds: UInt64 = 1_000_000_000

  init(
    handler: any HTTPHandler, configuration: HTTPServerConfiguration, counters: HTTPAnswerCounters,
    loop: any EventLoop, listener: Int32, log: Logger
  ) {
    self.handler = handler
    self.configuration = configuration
    self.counters = counters
    super.init(loop: loop, listener: listener, maximumConnections: configuration.maximumConnections, log: log)
  }

  // MARK: Event loop

  override func readable(_ connection: HTTPConnection) {
    switch unsafe scratch.withUnsafeMutableBytes({ unsafe Socket.receive(connection.descriptor, into: $0) }) {
    case .moved(let count):
      // A client that goes on talking after its last request is not listened to.
      guard !connection.isEnding else { return }
      connection.reader.append(scratch[..<count])
      readRequests(connection)
    case .wouldBlock: break
    case .closed where connection.hasUnanswered && !connection.hasHalfClosed: halfClose(connection)
    case .closed, .failed: drop(connection)
    }
  }

  override func writable(_ connection: HTTPConnection) { flush(connection) }

  override func turn() -> UInt64 {
    for (channel, number, response) in arrivals.take() {
      guard let connection = connections[channel] else { continue }
      connection.settle(number, response)
      deliver(connection)
    }
    let now = cweir_monotonic_nanoseconds()
    if now >= nextSweep { sweep(now) }
    return connections.isEmpty ? .max : nextSweep
  }

  // MARK: Connections

  override func makeConnection(channel: Int, descriptor: Int32) -> HTTPConnection? {
    HTTPConnection(
      channel: channel, descriptor: descriptor, limits: configuration.limits,
      deadline: cweir_monotonic_nanoseconds() &+ configuration.idleTimeoutNanoseconds)
  }

  override func release(_ connection: HTTPConnection) {
    if connection.hasHalfClosed { Socket.close(connection.descriptor) } else { super.release(connection) }
  }

  /// The client has said all it wanted to, and still listens (`printf … | nc`). The loop would report its end of stream
  /// again and again, so it gives the descriptor up; the answers leave by a duplicate.
  private func halfClose(_ connection: HTTPConnection) {
    guard connection.keepSendingSide() else { return drop(connection) }
    loop.close(channel: connection.channel)
  }

  /// Ends what has waited too long: idle connections, requests that arrive by the byte, clients that do not read.
  private func sweep(_ now: UInt64) {
    nextSweep = now &+ Self.sweepNanoseconds
    for connection in Array(connections.values) {
      if connection.hasHalfClosed { flush(connection) }
      guard now >= connection.deadline else { continue }
      if connection.hasUnanswered, connection.unsentBytes == 0 { continue }
      if connection.reader.pendingBytes > 0, connection.unsentBytes == 0, !connection.isEnding {
        refuse(connection, HTTPResponse(.requestTimeout, text: "the request did not arrive in time"))
      } else {
        drop(connection)
      }
    }
  }

  // MARK: Requests

  private func readRequests(_ connection: HTTPConnection) {
    do throws(HTTPError) {
      while !connection.isEnding, let request = try connection.reader.next() {
        guard connection.unanswered < configuration.maximumPipelinedRequests else {
          log.warning("an HTTP client was disconnected: it does not wait for its answers")
          return drop(connection)
        }
        let number = connection.begin(isHead: request.method == .head, isLast: !request.keepsAlive)
        let (arrivals, bell, channel) = (arrivals, bell, connection.channel)
        handler.answer(request) { response in
          arrivals.add(channel, number, response)
          bell.ring()
        }
      }
    } catch {
      return refuse(connection, HTTPResponse(error.status, text: error.description))
    }
    if connection.reader.takeContinue() {
      connection.promiseContinue()
      deliver(connection)
    }
    let isWithinRequest = connection.reader.pendingBytes > 0
    if isWithinRequest != connection.isWithinRequest || !isWithinRequest {
      connection.isWithinRequest = isWithinRequest
      connection.deadline =
        cweir_monotonic_nanoseconds()
        &+ (isWithinRequest ? configuration.requestTimeoutNanoseconds : configuration.idleTimeoutNanoseconds)
    }
  }

  /// Answers in the server's own name, after what was asked before, and ends the connection.
  private func refuse(_ connection: HTTPConnection, _ response: HTTPResponse) {
    let number = connection.begin(isHead: false, isLast: true)
    connection.settle(number, response)
    deliver(connection)
  }

  // MARK: Answers

  /// Sends the answers whose turn it is.
  private func deliver(_ connection: HTTPConnection) {
    connection.writeSettled(date: dateText()) { status in
      counters.byClass.withLock { $0[min(max(status.code / 100, 0), 5)] += 1 }
    }
    flush(connection)
  }

  private func flush(_ connection: HTTPConnection) {
    if connection.unsentBytes > 0 {
      switch connection.send() {
      case .moved, .wouldBlock: break
      case .closed, .failed: return drop(connection)
      }
    }
    guard connection.unsentBytes <= configuration.maximumPendingBytes else {
      log.warning("an HTTP client was disconnected: it does not read its answers")
      return drop(connection)
    }
    if connection.unsentBytes == 0, connection.isFinished { return end(connection) }
    let isBlocked = connection.unsentBytes > 0
    if isBlocked != connection.isBlocked {
      connection.isBlocked = isBlocked
      if isBlocked {
        connection.deadline = cweir_monotonic_nanoseconds() &+ configuration.requestTimeoutNanoseconds
      }
      if !connection.hasHalfClosed { loop.setWriteInterest(channel: connection.channel, isBlocked) }
    }
  }

  /// The last answer is out. Closing at once could reset the connection while the client still sends, and take the
  /// answer with it (RFC 9112 section 9.6): its side is awaited, for a while.
  private func end(_ connection: HTTPConnection) {
    guard !connection.hasHalfClosed else { return drop(connection) }
    guard !connection.isLingering else { return }
    connection.isLingering = true
    connection.deadline = cweir_monotonic_nanoseconds() &+ Self.sweepNanoseconds
    shutdown(connection.descriptor, Int32(SHUT_WR))
  }

  private func dateText() -> String {
    let second = Int64(time(nil))
    if second != date.second { date = (second, HTTPDate.text(epochSeconds: second)) }
    return date.text
  }
}
