import Foundation
import Raft
import Testing
import WeirCore
import WeirTransport

@testable import WeirCache

@Suite struct ClientServerTests {
  /// What came back for each token.
  private struct Answers {
    var outcomes: [UInt32: Outcome] = [:]
    var values: [UInt32: [UInt8]] = [:]
  }

  private func withServer(
    _ nodeCount: Int = 3, mechanism: ReadinessMechanism = .pollLoop,
    adjust: (inout ClientServerConfiguration) -> Void = { _ in },
    _ body: (EmbeddedCluster, Node, ClientServer) throws -> Void
  ) throws {
    try withCluster(nodeCount, seed: 31, adjust: { $0.eventLoop.mechanism = mechanism }) { cluster, leader in
      var configuration = ClientServerConfiguration(
        listenAddress: try SocketAddress(host: "127.0.0.1", port: 0),
        eventLoop: EventLoopConfiguration(mechanism: mechanism))
      adjust(&configuration)
      let server = try ClientServer(node: leader, configuration: configuration, log: quietLog())
      defer { server.stop() }
      try body(cluster, leader, server)
    }
  }

  private func connect(_ server: ClientServer, clusterID: UInt64 = 31) throws(ClientError) -> ClientConnection {
    try ClientConnection(to: server.address, clusterID: clusterID, deadlineNanoseconds: deadline(inSeconds: 60))
  }

  private func set(_ connection: ClientConnection, _ token: UInt32, _ key: String, _ value: [UInt8]) throws {
    let command = try Command.encode(.set, key: Array(key.utf8), value: value)
    connection.write(token: token, command: command.span.bytes)
  }

  private func get(_ connection: ClientConnection, _ token: UInt32, _ key: String, _ mode: ReadConsistency) {
    let key = Array(key.utf8)
    connection.read(token: token, key: key.span.bytes, consistency: mode)
  }

  /// Sends, and waits until everything is answered.
  private func finish(_ connection: ClientConnection) throws -> Answers {
    var answers = Answers()
    let end = deadline(inSeconds: 60)
    while connection.inFlight > 0 {
      try connection.flush()
      ClientConnection.wait([connection], until: end)
      try connection.receive { token, outcome, value in
        #expect(answers.outcomes[token] == nil, "one answer for each operation")
        answers.outcomes[token] = outcome
        if let value { answers.values[token] = value.withUnsafeBytes { [UInt8]($0) } }
      }
      if connection.inFlight > 0, deadline(inSeconds: 0) > end { throw HarnessError("no answer within a minute") }
    }
    return answers
  }

  @Test(arguments: ReadinessMechanism.allCases)
  func operationsOfOtherProcessesAreServed(mechanism: ReadinessMechanism) throws {
    try withServer(mechanism: mechanism) { cluster, leader, server in
      let connection = try connect(server)
      #expect(connection.leaderHint == leader.id)
      for token in 0..<2000 as Range<UInt32> { try set(connection, token, "key\(token)", Array("value\(token)".utf8)) }
      let written = try finish(connection)
      #expect(written.outcomes.count == 2000 && written.outcomes.values.allSatisfy { $0 == .appliedFresh })
      for token in 0..<2000 as Range<UInt32> {
        get(connection, token, "key\(token)", token.isMultiple(of: 2) ? .safe : .lease)
      }
      get(connection, 2000, "absent", .safe)
      get(connection, 2001, "absent", .lease)
      let read = try finish(connection)
      #expect(read.outcomes.values.allSatisfy { $0 == .appliedExisting } && read.outcomes.count == 2002)
      #expect((0..<2000).allSatisfy { read.values[$0] == Array("value\($0)".utf8) })
      #expect(read.values[2000] == nil && read.values[2001] == nil)
      let delete = try Command.encode(.delete, key: Array("key7".utf8))
      connection.write(token: 1, command: delete.span.bytes)
      #expect(try finish(connection).outcomes == [1: .appliedExisting])
      #expect(cluster.waitUntilEven(deadlineNanoseconds: deadline(inSeconds: 60)))
      #expect(Set(cluster.nodes.map(\.store.stateHash)).count == 1)
    }
  }

  @Test func valuesOfAMegabytePassInBothDirections() throws {
    try withServer(1) { _, _, server in
      let connection = try connect(server)
      let values = (0..<12).map { number in [UInt8](repeating: UInt8(number), count: 1 << 20) }
      for (number, value) in values.enumerated() { try set(connection, UInt32(number), "key\(number)", value) }
      #expect(try finish(connection).outcomes.values.allSatisfy { $0 == .appliedFresh })
      for number in 0..<24 as Range<UInt32> {
        get(connection, number, "key\(number % 12)", number < 12 ? .safe : .lease)
      }
      let read = try finish(connection)
      #expect((0..<24).allSatisfy { read.values[UInt32($0)] == values[$0 % 12] })
    }
  }

  @Test func whatIsNoCommandIsRefusedAndTheRestOfItsFrameServed() throws {
    try withServer(1) { _, _, server in
      let connection = try connect(server)
      try set(connection, 1, "a", [1])
      let nonsense: [UInt8] = [9, 9, 9]
      connection.write(token: 2, command: nonsense.span.bytes)
      try set(connection, 3, "b", [2])
      #expect(try finish(connection).outcomes == [1: .appliedFresh, 2: .refused, 3: .appliedFresh])
    }
  }

  @Test func aFollowerRefusesAndSaysWhoLeads() throws {
    try withCluster(3, seed: 31) { cluster, leader in
      let follower = try #require(cluster.nodes.first { $0 !== leader })
      #expect(eventually { follower.status.leader == leader.id })
      let server = try ClientServer(
        node: follower,
        configuration: ClientServerConfiguration(listenAddress: try SocketAddress(host: "127.0.0.1", port: 0)),
        log: quietLog())
      defer { server.stop() }
      let connection = try connect(server)
      try set(connection, 1, "a", [1])
      get(connection, 2, "a", .safe)
      get(connection, 3, "a", .lease)
      #expect(try finish(connection).outcomes == [1: .notLeader, 2: .notLeader, 3: .notLeader])
      #expect(connection.leaderHint == leader.id)
    }
  }

  @Test func strangersAndBrokenFramesEndTheConnection() throws {
    try withServer(1) { _, _, server in
      #expect(throws: ClientError.closed) { _ = try connect(server, clusterID: 99) }
      let good = try connect(server)
      for damage in 0..<6 {
        var writer = ClientFrameWriter()
        writer.addEmpty(.greeting, number: 31)
        let key: [UInt8] = [1, 2, 3]
        writer.add(token: 1, code: ClientOperation.leaseRead.rawValue, payload: key.span.bytes)
        writer.seal(.operations, number: 0)
        var bytes = writer.takeBytes()
        let second = ClientFrame.headerBytes
        switch damage {
        case 0: bytes[second] = 10
        case 1: bytes[second + 3] = 0x7F
        case 2: bytes[second + 4] ^= 1
        case 3: bytes[second + 10] = 9
        case 4: bytes[bytes.count - 1] ^= 1
        default: bytes.removeFirst(second)
        }
        let socket = try BareSocket(server.address)
        socket.write(bytes)
        #expect(socket.readsToTheEnd(), "damage \(damage)")
      }
      try set(good, 1, "a", [1])
      #expect(try finish(good).outcomes == [1: .appliedFresh])
    }
  }

  @Test func whoDoesNotReadItsAnswersIsDisconnected() throws {
    try withServer(1, adjust: { $0.maximumPendingBytes = 1 << 20 }) { _, _, server in
      let writer = try connect(server)
      try set(writer, 1, "large", [UInt8](repeating: 7, count: 1 << 20))
      #expect(try finish(writer).outcomes == [1: .appliedFresh])
      let silent = try connect(server)
      var token: UInt32 = 0
      let isGone = eventually {
        for _ in 0..<1000 {
          get(silent, token, "large", .lease)
          token += 1
        }
        return (try? silent.flush()) == nil
      }
      #expect(isGone)
      // Others are served as before.
      get(writer, 2, "large", .lease)
      #expect(try finish(writer).values[2]?.count == 1 << 20)
    }
  }

  @Test func connectionsBeyondTheLimitAreClosed() throws {
    try withServer(1, adjust: { $0.maximumConnections = 2 }) { _, _, server in
      let kept = [try connect(server), try connect(server)]
      #expect(throws: ClientError.closed) { _ = try connect(server) }
      try set(kept[0], 1, "a", [1])
      #expect(try finish(kept[0]).outcomes == [1: .appliedFresh])
    }
  }
}

/// A blocking socket.
private final class BareSocket {
  private let descriptor: Int32

  init(_ address: SocketAddress) throws {
    descriptor = try Socket.connect(to: address)
    _ = fcntl(descriptor, F_SETFL, 0)
    var timeout = timeval(tv_sec: 30, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    var polls = [pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)]
    guard poll(&polls, 1, 30_000) == 1 else { throw HarnessError("no connection") }
  }

  deinit { close(descriptor) }

  func write(_ bytes: [UInt8]) { _ = send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }

  /// Whether the other side closes the connection.
  func readsToTheEnd() -> Bool {
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = recv(descriptor, &buffer, buffer.count, 0)
      if count == 0 { return true }
      if count < 0 { return errno == ECONNRESET }
    }
  }
}
