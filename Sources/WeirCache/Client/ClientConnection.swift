import CWeir
import Glibc
import WeirCore
import WeirTransport

/// A client's pipelined connection to one node, for one thread: operations are gathered and leave with `flush`, answers
/// come in any order with `receive`. Nothing blocks but `init` and `wait`.
public final class ClientConnection {
  private let descriptor: Int32
  private var reader = ClientFrameReader()
  private var writer = ClientFrameWriter()
  /// Who leads as far as the node knew when it last answered; 0 if nobody.
  public private(set) var leaderHint = NodeID.none
  /// Operations that were not answered.
  public private(set) var inFlight = 0

  /// Connects, and waits until the node has welcomed this client.
  /// - Parameter deadlineNanoseconds: until when (CLOCK_MONOTONIC).
  /// - Throws: `ClientError`: nobody there, another cluster, no answer in time.
  public init(
    to address: SocketAddress, clusterID: UInt64, deadlineNanoseconds: UInt64
  ) throws(ClientError) {
    do throws(TransportError) { descriptor = try Socket.connect(to: address) } catch { throw .system(error) }
    writer.addEmpty(.greeting, number: clusterID)
    try awaitWelcome(address, deadlineNanoseconds)
  }

  deinit { Socket.close(descriptor) }

  private func awaitWelcome(_ address: SocketAddress, _ deadline: UInt64) throws(ClientError) {
    while Self.wait(for: [(descriptor, Int16(POLLOUT))], until: deadline) == 0 {
      guard cweir_monotonic_nanoseconds() < deadline else { throw .timeout }
    }
    let code = Socket.pendingError(descriptor)
    guard code == 0 else { throw .system(.systemCall("connect to \(address)", errno: code)) }
    try flush()
    while true {
      if try receiveOnce(), let frame = try reader.next() {
        guard frame.kind == .welcome, frame.count == 0 else { throw .malformed("no welcome") }
        leaderHint = frame.number
        return
      }
      guard cweir_monotonic_nanoseconds() < deadline else { throw .timeout }
      Self.wait(for: [(descriptor, Int16(POLLIN))], until: deadline)
    }
  }

  // MARK: Operations

  /// Adds a command (`Command.encode`).
  public func write(token: UInt32, command: RawSpan) {
    add(token, .write, command)
  }

  /// Adds a read. `stale` reads are asked of a node's own process only, and sent as Lease reads here.
  public func read(token: UInt32, key: RawSpan, consistency: ReadConsistency) {
    add(token, consistency == .safe ? .safeRead : .leaseRead, key)
  }

  private func add(_ token: UInt32, _ operation: ClientOperation, _ payload: RawSpan) {
    writer.add(token: token, code: operation.rawValue, payload: payload)
    inFlight += 1
    if writer.isFull { writer.seal(.operations, number: 0) }
  }

  /// Sends what was added, as far as the socket takes it at once; the rest goes with the next call.
  public func flush() throws(ClientError) {
    writer.seal(.operations, number: 0)
    guard writer.pendingBytes > 0 else { return }
    switch writer.send(to: descriptor) {
    case .moved, .wouldBlock: break
    case .closed, .failed(EPIPE), .failed(ECONNRESET): throw .closed
    case .failed(let code): throw .system(.systemCall("send", errno: code))
    }
  }

  /// Whether `flush` has something left to do.
  public var hasUnsent: Bool { writer.pendingBytes > 0 }

  // MARK: Answers

  /// Calls `body` with every answer that has arrived: the operation's token, what became of it, and the value that a read
  /// found. A read that was answered has the outcome `appliedExisting`, with or without a value. Does not wait for more.
  /// - Returns: how many there were.
  @discardableResult
  public func receive(_ body: (UInt32, Outcome, RawSpan?) -> Void) throws(ClientError) -> Int {
    var total = 0
    // Bounded, so that a fast node does not keep the caller from sending.
    for _ in 0..<8 {
      let isMore = try receiveOnce()
      while let frame = try reader.next() {
        guard frame.kind == .answers else { throw .malformed("a frame of kind \(frame.kind) out of turn") }
        leaderHint = frame.number
        try reader.forEachItem(frame) { token, code, value in
          total += 1
          body(token, Outcome(rawValue: code) ?? .leadershipLost, value)
        }
      }
      if !isMore || wasShort { break }
    }
    inFlight -= total
    return total
  }

  private var wasShort = false

  /// Reads once from the socket. Returns whether something came.
  private func receiveOnce() throws(ClientError) -> Bool {
    let (result, isShort) = reader.receive(from: descriptor)
    wasShort = isShort
    switch result {
    case .moved: return true
    case .wouldBlock: return false
    // A reset is what a close looks like to whom it still owed something.
    case .closed, .failed(ECONNRESET): throw .closed
    case .failed(let code): throw .system(.systemCall("recv", errno: code))
    }
  }

  /// Waits until one of the connections has answers, or can take more of what is unsent, or until the deadline
  /// (CLOCK_MONOTONIC).
  public static func wait(_ connections: [ClientConnection], until deadlineNanoseconds: UInt64) {
    wait(
      for: connections.map { ($0.descriptor, Int16($0.hasUnsent ? POLLIN | POLLOUT : POLLIN)) },
      until: deadlineNanoseconds)
  }

  @discardableResult
  private static func wait(for descriptors: [(Int32, Int16)], until deadline: UInt64) -> Int32 {
    let now = cweir_monotonic_nanoseconds()
    guard deadline > now else { return 0 }
    var polls = descriptors.map { pollfd(fd: $0.0, events: $0.1, revents: 0) }
    return unsafe cweir_poll(&polls, polls.count, Int64(min(deadline - now, 60_000_000_000)))
  }
}
