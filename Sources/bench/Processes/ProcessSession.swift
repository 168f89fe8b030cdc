import CWeir
import Load
import WeirCache
import WeirCore
import WeirTransport

/// One worker's conversation with the leader's process, over one or more connections of its own.
///
/// A batch travels on one connection, and the next batch on the next one. Where a connection breaks, what was under way on
/// it is answered as unknown, and the next submission looks for the leader again.
final class ProcessSession: TargetSession {
  private struct InFlight {
    /// The position of its connection; -1: the token is free.
    var way = -1
    var isRead = false
  }

  private let target: ProcessTarget
  private let readMode: Load.ReadMode
  private let connectionCount: Int
  /// Whom to talk to, whoever leads; nil: ask the nodes.
  private let fixedLeader: ChildNode?
  private var connections: [ClientConnection?] = []
  private var nextWay = 0
  private var inFlight: [InFlight] = []
  private var template: CommandTemplate
  /// A node has said that it does not lead: move once everything under way is answered.
  private var wantsLeader = false

  init(
    target: ProcessTarget, readMode: Load.ReadMode, connectionCount: Int, leader: ChildNode? = nil
  ) throws {
    self.target = target
    fixedLeader = leader
    self.readMode = readMode
    self.connectionCount = connectionCount
    template = try CommandTemplate()
    try connect()
  }

  private func connect() throws {
    let deadline = cweir_monotonic_nanoseconds() + 5_000_000_000
    guard let leader = try fixedLeader ?? target.leader(deadlineNanoseconds: deadline) else {
      throw TargetError("nobody leads")
    }
    let address = try SocketAddress(parsing: leader.clientAddress)
    connections = try (0..<connectionCount).map { _ in
      try ClientConnection(to: address, clusterID: target.clusterID, deadlineNanoseconds: deadline)
    }
    wantsLeader = false
  }

  func submit(_ batch: Span<Submission>, completions: inout [Completion]) {
    let first = completions.count
    defer { stamp(&completions, from: first) }
    nextWay = (nextWay + 1) % connectionCount
    guard let connection = usableConnection() else {
      for index in batch.indices {
        completions.append(Completion(token: batch[index].token, status: .failed, doneNanoseconds: 0))
      }
      return
    }
    for index in batch.indices { add(batch[index], to: connection) }
    do { try connection.flush() } catch { lose(nextWay, &completions) }
  }

  func poll(into completions: inout [Completion], until deadlineNanoseconds: UInt64) {
    let first = completions.count
    while true {
      for way in connections.indices { collect(way, &completions) }
      if completions.count > first { return stamp(&completions, from: first) }
      if deadlineNanoseconds == 0 || cweir_monotonic_nanoseconds() >= deadlineNanoseconds { return }
      ClientConnection.wait(connections.compactMap(\.self), until: deadlineNanoseconds)
    }
  }

  func close() { connections.removeAll() }

  // MARK: Operations

  /// The connection whose turn it is; a new one where there is none, or where the node it led to does not lead any more.
  private func usableConnection() -> ClientConnection? {
    let isIdle = connections.allSatisfy { $0?.inFlight ?? 0 == 0 }
    if connections[nextWay] == nil || wantsLeader {
      guard isIdle, (try? connect()) != nil else { return nil }
    }
    return connections[nextWay]
  }

  private func add(_ submission: Submission, to connection: ClientConnection) {
    let token = submission.token
    while inFlight.count <= Int(token) { inFlight.append(InFlight()) }
    let isRead = submission.operation.kind == .get
    inFlight[Int(token)] = InFlight(way: nextWay, isRead: isRead)
    guard isRead else {
      return template.withCommand(submission.operation) { connection.write(token: token, command: $0) }
    }
    let (low, high) = KeySpelling.words(submission.operation.keyNumber)
    let key: [2 of UInt64] = [low.littleEndian, high.littleEndian]
    connection.read(token: token, key: key.span.bytes, consistency: readMode == .lease ? .lease : .safe)
  }

  // MARK: Answers

  private func collect(_ way: Int, _ completions: inout [Completion]) {
    guard let connection = connections[way] else { return }
    do {
      if connection.hasUnsent { try connection.flush() }
      try connection.receive { token, outcome, value in
        guard Int(token) < inFlight.count, inFlight[Int(token)].way == way else { return }
        inFlight[Int(token)].way = -1
        if outcome == .notLeader { wantsLeader = true }
        completions.append(
          Completion(
            token: token, status: Self.status(of: outcome), readValue: Self.name(of: value), doneNanoseconds: 0))
      }
    } catch {
      lose(way, &completions)
    }
  }

  private func lose(_ way: Int, _ completions: inout [Completion]) {
    connections[way] = nil
    for token in inFlight.indices where inFlight[token].way == way {
      let status = inFlight[token].isRead ? OperationStatus.failed : .unknown
      inFlight[token].way = -1
      completions.append(Completion(token: UInt32(token), status: status, doneNanoseconds: 0))
    }
  }

  private func stamp(_ completions: inout [Completion], from first: Int) {
    guard completions.count > first else { return }
    let now = cweir_monotonic_nanoseconds()
    for index in first..<completions.count { completions[index].doneNanoseconds = now }
  }

  private static func name(of value: RawSpan?) -> ValueID? {
    guard let value, value.byteCount >= ValueID.encodedBytes else { return nil }
    let low = value.unsafeLoadUnaligned(as: UInt64.self)
    let high = value.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt64.self)
    return ValueID(low: UInt64(littleEndian: low), high: UInt64(littleEndian: high))
  }

  private static func status(of outcome: Outcome) -> OperationStatus {
    switch outcome {
    case .appliedFresh, .appliedExisting, .appliedNumber: .ok
    case .notLeader, .overloaded, .refused, .outOfSpace, .conditionUnmet, .notANumber, .overflow: .failed
    case .leadershipLost, .shutdown: .unknown
    }
  }
}
