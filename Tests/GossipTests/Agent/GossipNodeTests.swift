import Foundation
import Testing

@testable import Gossip

@Suite("Gossip node on real sockets", .serialized)
struct GossipNodeTests {
  @Test("Three nodes find each other, see metadata and its changes")
  func membership() async throws {
    var first = testConfiguration("a")
    first.metadata = Array("role=leader".utf8)
    try await withCluster([first, testConfiguration("b"), testConfiguration("c")]) { nodes in
      for node in nodes {
        #expect(node.members.map(\.name) == ["a", "b", "c"])
        #expect(node.members.first?.metadata == Array("role=leader".utf8))
      }
      let isTold = try await nodes[0].update(metadata: [1, 2, 3])
      #expect(isTold)
      for node in nodes {
        await eventually("\(node.name) sees the new metadata") { node.members.first?.metadata == [1, 2, 3] }
      }
      #expect(nodes.allSatisfy { $0.healthScore == 0 })
    }
  }

  @Test("Messages: broadcast to all, one packet, one stream, ping")
  func messages() async throws {
    let recorders = (0..<3).map { _ in RecordingHooks() }
    let names: [NodeName] = ["a", "b", "c"]
    try await withCluster(names.map { testConfiguration($0) }, hooks: recorders.map(\.hooks)) { nodes in
      try await nodes[0].broadcast([7, 7])
      try await nodes[0].sendBestEffort([1], to: "b")
      let large = [UInt8](repeating: 9, count: 300_000)
      try await nodes[0].sendReliable(large, to: "c")
      await eventually("b has both") { Set(recorders[1].messages) == [[7, 7], [1]] }
      await eventually("c has both") { Set(recorders[2].messages) == [[7, 7], large] }
      // An answer may come too late on a machine that is overrun; not each of many.
      var roundTrip: Duration?
      for _ in 0..<50 where roundTrip == nil { roundTrip = try await nodes[0].ping("b") }
      #expect(roundTrip != nil)
      await #expect(throws: GossipNodeError.membership(.unknownMember("nobody"))) {
        try await nodes[0].sendReliable([1], to: "nobody")
      }
      await #expect(throws: GossipNodeError.membership(.unknownMember("nobody"))) {
        try await nodes[0].sendBestEffort([1], to: "nobody")
      }
      // Each broadcast is delivered once although it was transmitted several times.
      #expect(recorders[1].messages.filter { $0 == [7, 7] }.count == 1)
      #expect(recorders[0].messages.isEmpty)
    }
  }

  @Test("Hooks: state exchange, events, ack payload, the application's own broadcasts")
  func hooks() async throws {
    let recorders = [RecordingHooks(state: [1]), RecordingHooks(state: [2])]
    try await withCluster([testConfiguration("a"), testConfiguration("b")], hooks: recorders.map(\.hooks)) { nodes in
      await eventually("states are exchanged") {
        recorders[0].record.withLock { $0.remoteStates.contains([2]) }
          && recorders[1].record.withLock { $0.remoteStates.contains([1]) }
      }
      recorders[0].record.withLock { $0.toBroadcast = [[5, 5, 5]] }
      await eventually("the delegate's broadcast arrives") { recorders[1].messages.contains([5, 5, 5]) }
      await eventually("pings carry the payload") {
        recorders[0].record.withLock { $0.pings.contains { $0.0 == "b" && $0.1 == [4, 2] } }
      }
      let names = recorders[0].events.compactMap { if case .joined(let member) = $0 { member.name } else { nil } }
      #expect(names == ["a", "b"])
    }
  }

  @Test("A silent death is detected and announced, and the name can come back")
  func death() async throws {
    let names: [NodeName] = ["a", "b", "c", "d"]
    try await withCluster(names.map { testConfiguration($0) }) { nodes in
      let events = nodes[0].events()
      let address = nodes[3].address
      await nodes[3].shutdown()
      var left: Member?
      for await event in events {
        if case .left(let member) = event, member.name == "d" {
          left = member
          break
        }
      }
      #expect(left?.name == "d")
      #expect(left?.state == .dead)
      for node in nodes.dropLast() {
        await eventually("\(node.name) knows") { node.members.map(\.name) == ["a", "b", "c"] }
      }
      var configuration = testConfiguration("d")
      configuration.bind = address
      let again = try GossipNode(configuration)
      try await again.join([nodes[0].address.description])
      for node in nodes.dropLast() {
        await eventually("\(node.name) sees d again") { node.members.map(\.name) == names }
      }
      await again.shutdown()
    }
  }

  @Test("Leaving is seen as leaving, and a node that left can rejoin")
  func leaveAndRejoin() async throws {
    let recorder = RecordingHooks()
    try await withCluster(
      [testConfiguration("a"), testConfiguration("b"), testConfiguration("c")], hooks: [recorder.hooks]
    ) { nodes in
      let isTold = try await nodes[2].leave(timeout: .seconds(20))
      #expect(isTold)
      await eventually("a sees c leave") { nodes[0].members.count == 2 }
      let states = recorder.events.compactMap { if case .left(let member) = $0 { member.state } else { nil } }
      #expect(states == [.left])
      try await nodes[2].rejoin()
      for node in nodes { await eventually("\(node.name) sees c again") { node.members.count == 3 } }
    }
  }

  @Test("Without a word from anybody a cut-off node is found again")
  func healing() async throws {
    // b is cut off by being given a key that nobody else has: to a and c it is silent, and they to it.
    let key = [UInt8](repeating: 1, count: 16)
    let keyring = try Keyring(primary: key)
    let foreign = try Keyring(primary: [UInt8](repeating: 2, count: 16))
    var timings = testTimings
    timings.gossipToTheDeadNanoseconds = 500_000_000
    let configurations = (["a", "b", "c"] as [NodeName]).map { name in
      var configuration = testConfiguration(name)
      configuration.membership = timings
      configuration.wire.keyring = keyring
      return configuration
    }
    try await withCluster(configurations) { nodes in
      await nodes[1].setKeyring(foreign)
      await eventually("b is alone") { nodes[1].members.count == 1 }
      await eventually("a has lost b") { nodes[0].members.count == 2 }
      // Long enough that nobody gossips to the other side any more.
      try await Task.sleep(for: .seconds(2))
      await nodes[1].setKeyring(keyring)
      for node in nodes { await eventually("\(node.name) sees all") { node.members.count == 3 } }
    }
  }

  @Test("Encryption with key rotation, and labels")
  func keys() async throws {
    let old = [UInt8](repeating: 1, count: 32)
    let new = [UInt8](repeating: 2, count: 16)
    let recorder = RecordingHooks()
    let configurations = try (["a", "b"] as [NodeName]).map { name in
      var configuration = testConfiguration(name)
      configuration.wire.keyring = try Keyring(primary: old)
      configuration.wire.label = Array("cacheA".utf8)
      return configuration
    }
    try await withCluster(configurations, hooks: [recorder.hooks]) { nodes in
      for node in nodes { await node.setKeyring(try Keyring(primary: old, others: [new])) }
      for node in nodes { await node.setKeyring(try Keyring(primary: new, others: [old])) }
      for node in nodes { await node.setKeyring(try Keyring(primary: new)) }
      try await nodes[1].sendReliable([1], to: "a")
      try await nodes[1].broadcast([2])
      await eventually("both arrive") { Set(recorder.messages) == [[1], [2]] }
      // A stranger without key or label is told so and not let in.
      let stranger = try GossipNode(testConfiguration("x"))
      await #expect(throws: GossipNodeError.self) {
        try await stranger.join([nodes[0].address.description])
      }
      #expect(stranger.members.count == 1)
      #expect(nodes[0].members.count == 2)
      await stranger.shutdown()
    }
  }

  @Test("A plaintext stream to an encrypting node is refused with memberlist's words")
  func refusalText() async throws {
    var configuration = testConfiguration("a")
    configuration.wire.keyring = try Keyring(primary: [UInt8](repeating: 1, count: 16))
    // The answer is encrypted: the stranger must have the key to read it, and only fail to use it.
    var stranger = testConfiguration("b")
    stranger.wire.keyring = configuration.wire.keyring
    stranger.wire.verifyOutgoing = false
    let nodes = [try GossipNode(configuration), try GossipNode(stranger)]
    await #expect(
      throws: GossipNodeError.refusedByPeer("encryption is configured but remote state is not encrypted")
    ) {
      try await nodes[1].join([nodes[0].address.description])
    }
    for node in nodes { await node.shutdown() }
  }

  @Test("IPv6, and IPv4 and IPv6 on one socket")
  func addressFamilies() async throws {
    guard let loopback = IPAddress("::1"), let all = IPAddress("::") else {
      Issue.record("addresses do not parse")
      return
    }
    guard let probe = try? GossipNode(testConfiguration("probe", ip: loopback)) else {
      print("skipped: this machine has no IPv6 loopback")
      return
    }
    await probe.shutdown()
    try await withCluster([testConfiguration("a", ip: loopback), testConfiguration("b", ip: loopback)]) { nodes in
      #expect(nodes[0].address.ip == loopback)
    }
    var dual = testConfiguration("dual", ip: all)
    dual.advertise = nil
    let node = try GossipNode(dual)
    let four = try GossipNode(testConfiguration("four"))
    try await four.join(["127.0.0.1:\(node.address.port)"])
    await eventually("the dual node sees the other") { node.members.count == 2 }
    await node.shutdown()
    await four.shutdown()
  }

  @Test("The application refuses a merge, a member, or sees a name conflict")
  func votes() async throws {
    let refusing = RecordingHooks(refusesMerges: true)
    let node = try GossipNode(testConfiguration("a"), hooks: GossipHooks(merges: refusing))
    let picky = RecordingHooks(refusedName: "c")
    let other = try GossipNode(
      testConfiguration("b"), hooks: GossipHooks(conflicts: picky, alive: picky))
    await #expect(throws: GossipNodeError.mergeRefused("Refusal()")) {
      try await node.join([other.address.description])
    }
    #expect(node.members.count == 1)
    // The other side merged what it was sent: each decides for itself.
    await eventually("b took a in") { other.members.count == 2 }
    let unwanted = try GossipNode(testConfiguration("c"))
    try await unwanted.join([other.address.description])
    try await Task.sleep(for: .milliseconds(300))
    #expect(!other.members.map(\.name).contains("c"))
    let imposter = try GossipNode(testConfiguration("b"))
    try await imposter.join([other.address.description])
    await eventually("the conflict is reported") { picky.record.withLock { !$0.conflicts.isEmpty } }
    #expect(other.members.first { $0.name == "b" }?.address == other.address)
    for node in [node, other, unwanted, imposter] { await node.shutdown() }
  }

  @Test("A join names whom it wants; nobody there is an error in time")
  func joinErrors() async throws {
    let a = try GossipNode(testConfiguration("a"))
    var configuration = testConfiguration("b")
    configuration.retriesJoin = false
    let b = try GossipNode(configuration)
    await #expect(throws: GossipNodeError.wrongMember(expected: "z")) { try await b.join(["z/\(a.address)"]) }
    // What it was sent a has merged all the same, and may have said so by gossip already: but it is no z.
    #expect(b.members.allSatisfy { $0.name == "a" || $0.name == "b" })
    try await b.join(["a/\(a.address)"])
    #expect(b.members.count == 2)
    await #expect(throws: GossipNodeError.self) { try await b.join(["127.0.0.1:1"]) }
    await #expect(throws: GossipNodeError.wire(.invalidText)) { try await b.join(["a/b/c"]) }
    await #expect(throws: GossipNodeError.unresolvable("no-such-host.invalid")) {
      try await b.join(["no-such-host.invalid:1"])
    }
    let result = try await b.join(["127.0.0.1:1", "\(a.address)"])
    #expect(result.contacted == 1 && result.failures.count == 1)
    configuration.name = "c"
    configuration.requiresNodeNames = true
    let c = try GossipNode(configuration)
    await #expect(throws: GossipNodeError.nameRequired(address: "127.0.0.1:1")) { try await c.join(["127.0.0.1:1"]) }
    try await c.join(["a/\(a.address)"])
    await c.shutdown()
    await a.shutdown()
    await b.shutdown()
    await #expect(throws: GossipNodeError.isShutDown) { try await b.broadcast([1]) }
    await #expect(throws: GossipNodeError.isShutDown) { try await b.leave() }
  }

  @Test("A node that listens at several addresses is reached at each, of both kinds")
  func severalAddresses() async throws {
    let v6 = IPAddress(v6High: 0, low: 1)
    let hasIPv6 = (try? Sockets.openPair(at: GossipAddress(ip: v6, port: 0))).map { $0.close() } != nil
    if !hasIPv6 { print("without IPv6: this machine has none") }
    var configuration = testConfiguration("a")
    configuration.additionalBinds = [IPAddress(127, 0, 0, 2)] + (hasIPv6 ? [v6] : [])
    let a = try GossipNode(configuration)
    #expect(a.address.ip == configuration.bind.ip)
    for (index, ip) in ([configuration.bind.ip] + configuration.additionalBinds).enumerated() {
      let other = try GossipNode(testConfiguration(NodeName("b\(index)"), ip: ip))
      try await other.join([GossipAddress(ip: ip, port: a.address.port).description])
      await eventually("a sees \(other.name)") { a.members.contains { $0.name == other.name } }
      // Answers go to the address that a tells, which an IPv6 socket bound to one address cannot send to.
      var roundTrip: Duration?
      for _ in 0..<50 where roundTrip == nil && ip.isIPv4 { roundTrip = try await a.ping(other.name) }
      #expect(roundTrip != nil || !ip.isIPv4)
      await other.shutdown()
    }
    await a.shutdown()
    // Every socket is free again.
    configuration.bind = a.address
    try await GossipNode(configuration).shutdown()
  }

  @Test("A node that cannot reach its seed when it starts joins it later")
  func lateSeed() async throws {
    let placeholder = try GossipNode(testConfiguration("seed"))
    let address = placeholder.address
    await placeholder.shutdown()
    let early = try GossipNode(testConfiguration("early"))
    await #expect(throws: GossipNodeError.self) { try await early.join([address.description]) }
    var configuration = testConfiguration("seed")
    configuration.bind = address
    let seed = try GossipNode(configuration)
    await eventually("they meet") { early.members.count == 2 && seed.members.count == 2 }
    await early.shutdown()
    await seed.shutdown()
  }
}
