import Foundation
import Testing

@testable import Gossip

/// A node of ours among agents of serf, which embed memberlist: what they do with us is the proof of the protocol.
@Suite("Live serf agents", .serialized)
struct SerfTests {
  static let key = [UInt8](0..<16)

  /// Whether serf is there and wanted; says so where not. Starting and killing agents takes a minute, and depends on
  /// ports that other programs may take, so it is asked for: `WEIR_LIVE_PEERS=1`.
  static var isAvailable: Bool {
    guard ProcessInfo.processInfo.environment["WEIR_LIVE_PEERS"] == "1" else {
      print("skipped: live serf agents are tried with WEIR_LIVE_PEERS=1")
      return false
    }
    if SerfAgent.program == nil {
      print("skipped: serf is not installed (apt-get install serf), so live peers are not tried")
    }
    return SerfAgent.program != nil
  }

  private func configuration(_ name: NodeName, key: [UInt8]?) throws -> GossipNodeConfiguration {
    var configuration = GossipNodeConfiguration(
      name: name, bind: GossipAddress(ip: IPAddress(127, 0, 0, 1), port: 0), membership: .local)
    configuration.membership.versions = .serf
    // serf has identities of its own in its events.
    configuration.membership.identifiesUserBroadcasts = false
    configuration.metadata = SerfMessage.metadata(tags: [("role", "weir")])
    if let key { configuration.wire.keyring = try Keyring(primary: key) }
    return configuration
  }

  @Test("Join, metadata, events both ways, kill -9, leave", arguments: [false, true])
  func interoperability(isEncrypted: Bool) async throws {
    guard Self.isAvailable else { return }
    let key = isEncrypted ? Self.key : nil
    let host: UInt8 = isEncrypted ? 40 : 20
    let agents = [
      try await SerfAgent("s1", host: host, key: key, tags: ["role": "db"]),
      try await SerfAgent("s2", host: host + 1, key: key), try await SerfAgent("s3", host: host + 2, key: key),
    ]
    defer { for agent in agents { agent.stop() } }
    for agent in agents.dropFirst() { try agent.command("join", agents[0].address.description) }

    let recorder = RecordingHooks()
    let node = try GossipNode(
      try configuration("weir", key: key), hooks: GossipHooks(delegate: recorder, events: recorder))
    try await node.join([agents[0].address.description])

    // We see them, with their tags, and all of them see us alive with our metadata.
    await eventually("we see three agents") { node.members.count == 4 }
    #expect(node.members.first { $0.name == "s1" }?.metadata == SerfMessage.metadata(tags: [("role", "db")]))
    for agent in agents {
      await eventually("\(agent.name) sees us") {
        (try? agent.members()["weir"]) == SerfAgent.MemberStatus(status: "alive", tags: ["role": "weir"])
      }
    }

    // An event of ours is handled by every agent, an event of theirs reaches us.
    try await node.broadcast(SerfMessage.userEvent(name: "hello", payload: "from-weir", lamportTime: 9))
    for agent in agents {
      await eventually("\(agent.name) handles our event") { agent.handledPayloads == ["from-weir"] }
    }
    try agents[1].command("event", "greeting", "from-serf")
    await eventually("their event reaches us") {
      recorder.messages.contains { SerfMessage.isEvent($0, name: "greeting", payload: "from-serf") }
    }
    let roundTrip = try await node.ping("s2")
    #expect(roundTrip != nil)

    // New metadata spreads.
    try await node.update(metadata: SerfMessage.metadata(tags: [("role", "new")]))
    await eventually("s3 sees the new tags") { (try? agents[2].members()["weir"]?.tags) == ["role": "new"] }

    // Time passes without a false suspicion.
    try await Task.sleep(for: .seconds(ProcessInfo.processInfo.environment["WEIR_LONG_TESTS"] == "1" ? 120 : 8))
    #expect(recorder.events.allSatisfy { if case .left = $0 { false } else { true } })
    for agent in agents {
      #expect(try agent.members().values.allSatisfy { $0.status == "alive" })
      #expect(!agent.log.contains("Suspect weir"))
      #expect(!agent.log.contains("[ERR] memberlist"))
    }
    let quiet = await node.statistics()
    #expect(quiet.suspicions == 0 && quiet.refutations == 0 && quiet.deathsDeclared == 0)
    #expect(quiet.refusedPackets == 0 && quiet.droppedMessages == 0)

    // One agent dies: detected by all and announced.
    agents[2].kill9()
    await eventually("we hear of the death", seconds: 60) {
      recorder.events.contains {
        if case .left(let member) = $0 { member.name == "s3" && member.state == .dead } else { false }
      }
    }
    for agent in agents.dropLast() {
      await eventually("\(agent.name) holds s3 failed", seconds: 60) {
        (try? agent.members()["s3"]?.status) == "failed"
      }
    }

    // An agent leaves: seen as left. We leave: seen as left, as serf's own intent goes ahead of ours.
    try agents[1].command("leave")
    await eventually("we see s2 leave") {
      recorder.events.contains {
        if case .left(let member) = $0 { member.name == "s2" && member.state == .left } else { false }
      }
    }
    try await node.broadcast(SerfMessage.leaveIntent(node: "weir", lamportTime: 60))
    await eventually("s1 knows that we want to leave") { (try? agents[0].members()["weir"]?.status) == "leaving" }
    try await node.leave()
    await eventually("s1 sees us left") { (try? agents[0].members()["weir"]?.status) == "left" }
    await node.shutdown()
  }

  @Test("An agent joins us as well as we join it")
  func joinedByAgent() async throws {
    guard Self.isAvailable else { return }
    let node = try GossipNode(try configuration("weir", key: nil))
    let agent = try await SerfAgent("s1", host: 60)
    defer { agent.stop() }
    try agent.command("join", node.address.description)
    await eventually("we see the agent") { node.members.count == 2 }
    await eventually("it sees us") { (try? agent.members()["weir"]?.status) == "alive" }
    await node.shutdown()
  }

  @Test("A member without serf's versions is not let in, and says why")
  func versions() async throws {
    guard Self.isAvailable else { return }
    var plain = try configuration("weir", key: nil)
    plain.membership.versions = ProtocolVersions()
    plain.retriesJoin = false
    let node = try GossipNode(plain)
    let agent = try await SerfAgent("s1", host: 70)
    defer { agent.stop() }
    await #expect(throws: GossipNodeError.self) { try await node.join([agent.address.description]) }
    #expect(node.members.count == 1)
    await node.shutdown()
  }
}
