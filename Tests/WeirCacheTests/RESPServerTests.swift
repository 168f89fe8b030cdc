import Foundation
import Raft
import Synchronization
import Testing
import WeirCore
import WeirTransport

@testable import WeirCache

/// Cache clients over real sockets, in front of three nodes.
@Suite struct RESPServerTests {
  private typealias Reply = RawRESPClient.Reply

  /// Every node with a server in front; the first is the leader's.
  private func withServers(
    _ nodeCount: Int = 3, mechanism: ReadinessMechanism = .pollLoop,
    adjust: (inout RESPServerConfiguration) -> Void = { _ in },
    _ body: (EmbeddedCluster, Node, [RESPServer]) throws -> Void
  ) throws {
    try withCluster(nodeCount, seed: 47, adjust: { $0.eventLoop.mechanism = mechanism }) { cluster, leader in
      let addresses = Addresses()
      var servers: [RESPServer] = []
      defer { for server in servers { server.stop() } }
      for node in [leader] + cluster.nodes.filter({ $0 !== leader }) {
        var configuration = RESPServerConfiguration(
          listenAddress: try SocketAddress(host: "127.0.0.1", port: 0),
          eventLoop: EventLoopConfiguration(mechanism: mechanism))
        adjust(&configuration)
        let server = try RESPServer(node: node, configuration: configuration, log: quietLog()) {
          addresses.byNode.withLock { $0 }
        }
        addresses.byNode.withLock { $0[node.id] = "\(server.address)" }
        servers.append(server)
      }
      try body(cluster, leader, servers)
    }
  }

  private final class Addresses: Sendable {
    let byNode = Mutex<[NodeID: String]>([:])
  }

  @Test(arguments: ReadinessMechanism.allCases, [ReadConsistency.safe, .lease])
  func commandsAreAnsweredAsRedisAnswersThem(mechanism: ReadinessMechanism, consistency: ReadConsistency) throws {
    try withServers(mechanism: mechanism, adjust: { $0.consistency = consistency }) { cluster, leader, servers in
      let client = try RawRESPClient(servers[0].address)
      for (command, reply) in Self.conversation {
        try client.send(RawRESPClient.encode(command))
        #expect(try client.receive() == reply, "\(command)")
      }
      #expect(cluster.waitUntilEven(deadlineNanoseconds: deadline(inSeconds: 60)))
      #expect(Set(cluster.nodes.map(\.store.stateHash)).count == 1)
      guard case .bulk(let info) = try client.ask("INFO") else { throw HarnessError("INFO is no text") }
      let size = try #require(leader.store.size)
      #expect(size.keys > 0)
      #expect(info.hasSuffix("# Keyspace\r\ndb0:keys=\(size.keys),expires=\(size.deadlines)\r\n"))
      #expect(info.contains("\r\nloading:0\r\n"))
    }
  }

  /// The same at once: each command sees those before it, and none behind it.
  @Test(arguments: [ReadConsistency.safe, .lease])
  func aPipelineKeepsItsOrder(consistency: ReadConsistency) throws {
    try withServers(adjust: { $0.consistency = consistency }) { _, _, servers in
      let client = try RawRESPClient(servers[0].address)
      let replies = try client.pipeline(Self.conversation.map(\.0))
      for (position, reply) in replies.enumerated() {
        #expect(reply == Self.conversation[position].1, "\(Self.conversation[position].0)")
      }
      var commands: [[String]] = []
      for number in 0..<3000 {
        commands += [["SET", "k", "\(number)"], ["GET", "k"], ["INCR", "k"], ["INCR", "n"], ["MGET", "k", "n"]]
      }
      let answers = try client.pipeline(commands)
      for number in 0..<3000 {
        let (next, count) = (Int64(number + 1), Int64(number + 1))
        let expected: [Reply] = [
          .ok, .bulk("\(number)"), .integer(next), .integer(count), .array([.bulk("\(next)"), .bulk("\(count)")]),
        ]
        #expect(Array(answers[5 * number..<5 * number + 5]) == expected)
      }
    }
  }

  private static let conversation: [([String], Reply)] = [
    (["PING"], .simple("PONG")), (["ping", "x"], .bulk("x")), (["ECHO", "a b"], .bulk("a b")),
    (["GET", "a"], .null), (["SET", "a", "1"], .ok), (["get", "a"], .bulk("1")), (["STRLEN", "a"], .integer(1)),
    (["INCR", "a"], .integer(2)), (["INCRBY", "a", "40"], .integer(42)), (["DECR", "a"], .integer(41)),
    (["DECRBY", "a", "50"], .integer(-9)), (["GET", "a"], .bulk("-9")), (["INCR", "fresh"], .integer(1)),
    (["SET", "t", "no number"], .ok), (["INCR", "t"], .error("ERR value is not an integer or out of range")),
    (["GET", "t"], .bulk("no number")), (["SET", "big", "9223372036854775807"], .ok),
    (["INCR", "big"], .error("ERR increment or decrement would overflow")),
    (["INCRBY", "a", "1x"], .error("ERR value is not an integer or out of range")),
    (["SET", "n", "1", "NX"], .ok), (["SET", "n", "2", "NX"], .null), (["GET", "n"], .bulk("1")),
    (["SET", "n", "3", "XX"], .ok), (["SET", "absent", "3", "XX"], .null), (["EXISTS", "absent"], .integer(0)),
    (["SETNX", "n", "4"], .integer(0)), (["SETNX", "n2", "4"], .integer(1)),
    (["MSET", "m1", "a", "m2", "b", "m1", "c"], .ok),
    (["MGET", "m1", "absent", "m2", "m1"], .array([.bulk("c"), .null, .bulk("b"), .bulk("c")])),
    (["EXISTS", "m1", "m2", "absent", "m1"], .integer(3)), (["TYPE", "m1"], .simple("string")),
    (["TYPE", "absent"], .simple("none")), (["DEL", "m1"], .integer(1)), (["DEL", "m1"], .integer(0)),
    (["DEL", "m1", "m2", "m2", "n"], .integer(2)), (["UNLINK", "n2"], .integer(1)),
    (["TTL", "a"], .integer(-1)), (["TTL", "absent"], .integer(-2)), (["EXPIRE", "a", "100"], .integer(1)),
    (["EXPIREAT", "a", "9999999999"], .integer(1)), (["EXPIRETIME", "a"], .integer(9_999_999_999)),
    (["PERSIST", "a"], .integer(1)), (["PERSIST", "a"], .integer(0)),
    (["TTL", "a"], .integer(-1)), (["EXPIRE", "absent", "100"], .integer(0)),
    (["EXPIRE", "a", "-1"], .integer(1)), (["GET", "a"], .null), (["SETEX", "e", "100", "v"], .ok),
    (["SET", "e", "w", "EXAT", "9999999999"], .ok), (["SET", "e", "w", "KEEPTTL"], .ok),
    (["EXPIRETIME", "e"], .integer(9_999_999_999)),
    (["INCR", "e2"], .integer(1)), (["PEXPIREAT", "e2", "99999999999999"], .integer(1)), (["INCR", "e2"], .integer(2)),
    (["PEXPIRETIME", "e2"], .integer(99_999_999_999_999)), (["SET", "e2", "1"], .ok), (["TTL", "e2"], .integer(-1)),
    (["SETEX", "e", "0", "v"], .error("ERR invalid expire time")),
    (["SET", "e", "v", "EX"], .error("ERR syntax error")),
    (["SET", "e", "v", "NX", "XX"], .error("ERR syntax error")),
    (["EXPIRE", "e", "9223372036854775807"], .error("ERR invalid expire time")),
    (["GET"], .error("ERR wrong number of arguments for 'get' command")),
    (["MSET", "a", "1", "b"], .error("ERR wrong number of arguments for 'mset' command")),
    (["FLUSHALL"], .error("ERR unknown command 'FLUSHALL'")), (["SELECT", "0"], .ok),
    (["SELECT", "1"], .error("ERR there is database 0 only")),
    (["HELLO", "3"], .error("NOPROTO this node speaks protocol version 2")),
    (["CLIENT", "SETNAME", "tester"], .ok), (["CLIENT", "GETNAME"], .bulk("tester")),
    (["CLIENT", "SETINFO", "LIB-NAME", "x"], .ok), (["CONFIG", "GET", "save"], .array([.bulk("save"), .bulk("")])),
    (["CONFIG", "GET", "nothing"], .array([])), (["COMMAND", "DOCS"], .array([])),
    (["READONLY"], .ok), (["READWRITE"], .ok), (["RESET"], .simple("RESET")), (["CLIENT", "GETNAME"], .bulk("")),
    (["CLUSTER", "KEYSLOT", "foo"], .integer(12_182)),
    (["SET", "", "x"], .error("ERR a key has at least one byte")),
  ]

  /// A key that was there is gone after its time, on all replicas; nothing that nobody reads stays.
  @Test(arguments: [ReadConsistency.safe, .lease])
  func keysEndWhenTheirTimeHasPassed(consistency: ReadConsistency) throws {
    try withServers(adjust: { $0.consistency = consistency }) { cluster, leader, servers in
      let client = try RawRESPClient(servers[0].address)
      for number in 0..<500 { #expect(try client.ask("SET", "unread\(number)", "v", "PX", "40") == .ok) }
      #expect(try client.ask("SET", "a", "1", "PX", "40") == .ok)
      #expect(try client.ask("MSET", "b", "1", "c", "2") == .ok)
      #expect(try client.ask("PEXPIRE", "b", "40") == .integer(1))
      usleep(60_000)
      let replies = try client.pipeline([
        ["GET", "a"], ["MGET", "a", "b", "c"], ["EXISTS", "b"], ["TTL", "a"], ["SET", "a", "2", "XX"], ["INCR", "b"],
        ["GET", "b"], ["DEL", "a"],
      ])
      #expect(
        replies == [
          .null, .array([.null, .null, .bulk("2")]), .integer(0), .integer(-2), .null, .integer(1), .bulk("1"),
          .integer(0),
        ])
      // What nobody reads goes as well; how soon depends on how busy the machine is.
      #expect(eventually { leader.store.count == 2 && leader.store.size?.deadlines == 0 })
      #expect(cluster.waitUntilEven(deadlineNanoseconds: deadline(inSeconds: 60)))
      #expect(Set(cluster.nodes.map(\.store.stateHash)).count == 1)
    }
  }

  @Test func aNodeThatDoesNotLeadSaysWhoDoes() throws {
    try withServers { _, leader, servers in
      let follower = try RawRESPClient(servers[1].address)
      let moved = Reply.error("MOVED 12182 \(servers[0].address)")
      #expect(eventually { (try? follower.ask("GET", "foo")) == moved })
      #expect(try follower.ask("SET", "foo", "1") == moved)
      #expect(try RawRESPClient(servers[0].address).ask("SET", "foo", "1") == .ok)
      // Who says that a stale answer will do gets one.
      #expect(try follower.ask("READONLY") == .ok)
      #expect(eventually { (try? follower.ask("GET", "foo")) == .bulk("1") })
      #expect(try follower.ask("SET", "foo", "2") == moved)
      guard case .array(let slots) = try follower.ask("CLUSTER", "SLOTS"), case .array(let range)? = slots.first else {
        Issue.record("no slots")
        return
      }
      #expect(range.count == 5 && range[0] == .integer(0) && range[1] == .integer(16_383))
      #expect(range[2] == .array([.bulk("127.0.0.1"), .integer(Int64(servers[0].address.port)), .bulk(name(leader))]))
    }
  }

  private func name(_ node: Node) -> String {
    String(repeating: "0", count: 39) + String(node.id, radix: 16)
  }

  /// Writes and reads of several connections at once while the leadership moves: what was acknowledged is there.
  @Test func nothingAcknowledgedIsLostWhenTheLeadershipMoves() throws {
    try withServers { cluster, leader, servers in
      let client = try RawRESPClient(servers[0].address)
      var acknowledged = 0
      var end: Reply?
      for number in 0..<100_000 where end == nil {
        if number == 50 {
          let other = cluster.nodes.first { $0 !== leader }
          leader.transferLeadership(to: other?.id ?? 0, timeoutNanoseconds: 10_000_000_000) { _ in }
        }
        let reply = try client.ask("INCR", "n")
        if case .integer = reply { acknowledged += 1 } else { end = reply }
      }
      let code = end?.code ?? ""
      #expect(["MOVED", "CLUSTERDOWN", "TRYAGAIN", "OUTCOMEUNKNOWN"].contains(code), "\(code)")
      // Each of those counted once, and at most the last, whose outcome was unknown, beside them.
      var found: Int64?
      #expect(
        eventually {
          for server in servers {
            guard let other = try? RawRESPClient(server.address), case .bulk(let text)? = try? other.ask("GET", "n")
            else { continue }
            found = Int64(text)
            return true
          }
          return false
        })
      #expect(found == Int64(acknowledged) || code == "OUTCOMEUNKNOWN" && found == Int64(acknowledged + 1))
    }
  }

  @Test func severalSetsAreSeenTogether() throws {
    try withServers(1) { _, leader, servers in
      let state = ReaderState()
      try withReader(leader.store, state) {
        let client = try RawRESPClient(servers[0].address)
        for round in 0..<30 {
          let commands = (0..<100).map { number in
            ["MSET"] + (0..<8).flatMap { ["key\($0)", "\(round * 100 + number)"] }
          }
          #expect(try client.pipeline(commands).allSatisfy { $0 == .ok })
        }
      }
      #expect(state.torn.load(ordering: .relaxed) == 0)
      #expect(state.reads.load(ordering: .relaxed) > 0)
    }
  }

  /// Reads eight keys together on another thread while `body` runs.
  private func withReader(_ store: KeyValueStore, _ state: ReaderState, _ body: () throws -> Void) rethrows {
    let finished = DispatchSemaphore(value: 0)
    Thread {
      let bytes = (0..<8).flatMap { Array("key\($0)".utf8) }
      let places = (0..<8).map { 4 * $0..<4 * $0 + 4 }
      while !state.isDone.load(ordering: .relaxed) {
        var values: [[UInt8]] = []
        let isReadable = store.lookUpTogether(places, in: bytes.span.bytes) { _, value, _ in
          if let value { values.append(value.withUnsafeBytes { [UInt8]($0) }) }
        }
        #expect(isReadable)
        let isWhole = values.isEmpty || values.count == 8 && Set(values).count == 1
        if !isWhole { state.torn.wrappingAdd(1, ordering: .relaxed) }
        state.reads.wrappingAdd(1, ordering: .relaxed)
      }
      finished.signal()
    }.start()
    defer {
      state.isDone.store(true, ordering: .relaxed)
      finished.wait()
    }
    try body()
  }

  private final class ReaderState: Sendable {
    let isDone = Atomic<Bool>(false)
    let torn = Atomic<Int>(0)
    let reads = Atomic<Int>(0)
  }

  @Test(arguments: ReadinessMechanism.allCases)
  func aClientThatDoesNotReadIsHeldBack(mechanism: ReadinessMechanism) throws {
    try withServers(
      1, mechanism: mechanism,
      adjust: {
        $0.maximumPendingBytes = 1 << 20
        $0.maximumWaitingBytes = 1 << 20
        $0.limits.maximumCommandBytes = 2 << 20
      }
    ) { _, _, servers in
      let other = try RawRESPClient(servers[0].address)
      #expect(try other.ask("SET", "large", String(repeating: "x", count: 1 << 20)) == .ok)
      // A terabyte of answers, if anybody took them: the socket stops taking requests instead.
      let block = Array(repeatElement(RawRESPClient.encode(["GET", "large"]), count: 4096).joined())
      let most = 250 * block.count
      let greedy = try RawRESPClient(servers[0].address)
      var sent = 0
      var idleRounds = 0
      while sent < most, idleRounds < 300 {
        let count = try greedy.sendSome(block[(sent % block.count)...])
        sent += count
        idleRounds = count == 0 ? idleRounds + 1 : 0
        if count == 0 { usleep(1000) }
      }
      // The limits, a command's own, and the system's buffers on both sides.
      #expect(sent < most)
      #expect(try other.ask("PING") == .simple("PONG"), "others are served meanwhile")
      // And it goes on once it reads.
      for _ in 0..<20 {
        guard case .bulk(let text) = try greedy.receive() else {
          Issue.record("not the value")
          return
        }
        #expect(text.utf8.count == 1 << 20)
      }
    }
  }

  @Test func whatIsNoCommandEndsTheConnectionAfterItsAnswers() throws {
    try withServers(1) { _, _, servers in
      let client = try RawRESPClient(servers[0].address)
      try client.send(RawRESPClient.encode(["SET", "a", "1"]) + Array("*1\r\n:5\r\n".utf8))
      #expect(try client.receive() == .ok)
      #expect(try client.receive() == .error("ERR Protocol error: expected '$', got ':'"))
      #expect(try client.isAtEnd())
      let polite = try RawRESPClient(servers[0].address)
      try polite.send(RawRESPClient.encode(["QUIT"]) + RawRESPClient.encode(["PING"]))
      #expect(try polite.receive() == .ok)
      #expect(try polite.isAtEnd())
    }
  }

  @Test func connectionsBeyondTheLimitAreClosed() throws {
    try withServers(1, adjust: { $0.maximumConnections = 2 }) { _, _, servers in
      let first = try RawRESPClient(servers[0].address)
      let second = try RawRESPClient(servers[0].address)
      #expect(try first.ask("PING") == .simple("PONG") && second.ask("PING") == .simple("PONG"))
      #expect(try RawRESPClient(servers[0].address).isAtEnd())
    }
  }

  // MARK: Redis' own programs

  static let cli = tool("redis-cli")
  static let benchmark = tool("redis-benchmark")

  private static func tool(_ name: String) -> String? {
    ["/usr/bin/\(name)", "/usr/local/bin/\(name)"].first { FileManager.default.isExecutableFile(atPath: $0) }
  }

  private func run(_ path: String, _ arguments: [String]) throws -> String {
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    process.standardOutput = output
    process.standardError = output
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return text
  }

  @Test(.enabled(if: cli != nil, "redis-cli is not installed (Debian: redis-tools)"))
  func redisCliIsServedAndFollowsTheLeader() throws {
    let cli = try #require(Self.cli)
    try withServers { _, _, servers in
      let leader = ["-h", "127.0.0.1", "-p", "\(servers[0].address.port)"]
      let follower = ["-h", "127.0.0.1", "-p", "\(servers[1].address.port)"]
      let set = try run(cli, leader + ["SET", "a", "1"])
      let increment = try run(cli, leader + ["INCR", "a"])
      #expect(set == "OK\n" && increment == "2\n")
      #expect(eventually { (try? run(cli, follower + ["-c", "GET", "a"]))?.hasSuffix("2\n") == true })
      let info = try run(cli, leader + ["INFO"])
      #expect(info.contains("role:master"))
    }
  }

  @Test(.enabled(if: benchmark != nil, "redis-benchmark is not installed (Debian: redis-tools)"))
  func redisBenchmarkIsServed() throws {
    let benchmark = try #require(Self.benchmark)
    try withServers { cluster, _, servers in
      let text = try run(
        benchmark,
        [
          "-h", "127.0.0.1", "-p", "\(servers[0].address.port)", "-t", "ping,set,get,incr,mset", "-n", "2000", "-c",
          "20",
          "-P", "16", "-q", "-r", "100",
        ])
      #expect(!text.contains("rror"), "\(text)")
      for name in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"] {
        #expect(text.contains("\(name): "), "\(text)")
      }
      #expect(cluster.waitUntilEven(deadlineNanoseconds: deadline(inSeconds: 60)))
      #expect(Set(cluster.nodes.map(\.store.stateHash)).count == 1)
    }
  }
}
