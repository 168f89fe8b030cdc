import Testing

@testable import Gossip

/// One case of the member state machine: what is known, what is heard, what is known then.
struct TransitionCase: CustomTestStringConvertible, Sendable {
  enum Heard: String, Sendable { case alive, aliveNewMetadata, aliveElsewhere, suspect, dead, leave }
  var known: NodeStateKind
  var heard: Heard
  var incarnation: UInt32
  var state: NodeStateKind
  var newIncarnation: UInt32
  var event: String?
  var isPassedOn: Bool
  var isConflict = false

  var testDescription: String { "\(known) at 5 hears \(heard.rawValue) at \(incarnation)" }

  init(
    _ known: NodeStateKind, _ heard: Heard, _ incarnation: UInt32, gives state: NodeStateKind, _ newIncarnation: UInt32,
    event: String? = nil, passedOn: Bool, conflict: Bool = false
  ) {
    self.known = known
    self.heard = heard
    self.incarnation = incarnation
    self.state = state
    self.newIncarnation = newIncarnation
    self.event = event
    isPassedOn = passedOn
    isConflict = conflict
  }
}

@Suite("Member state machine")
struct TransitionTests {
  // The member p1 is known with incarnation 5.
  static let cases: [TransitionCase] = [
    .init(.alive, .alive, 4, gives: .alive, 5, passedOn: false),
    .init(.alive, .alive, 5, gives: .alive, 5, passedOn: false),
    .init(.alive, .alive, 6, gives: .alive, 6, passedOn: true),
    .init(.alive, .aliveNewMetadata, 5, gives: .alive, 5, passedOn: false),
    .init(.alive, .aliveNewMetadata, 6, gives: .alive, 6, event: "updated", passedOn: true),
    .init(.alive, .aliveElsewhere, 6, gives: .alive, 5, passedOn: false, conflict: true),
    .init(.alive, .suspect, 4, gives: .alive, 5, passedOn: false),
    .init(.alive, .suspect, 5, gives: .suspect, 5, passedOn: true),
    .init(.alive, .suspect, 7, gives: .suspect, 7, passedOn: true),
    .init(.alive, .dead, 4, gives: .alive, 5, passedOn: false),
    .init(.alive, .dead, 5, gives: .dead, 5, event: "left", passedOn: true),
    .init(.alive, .dead, 9, gives: .dead, 9, event: "left", passedOn: true),
    .init(.alive, .leave, 5, gives: .left, 5, event: "left", passedOn: true),
    .init(.suspect, .alive, 5, gives: .suspect, 5, passedOn: false),
    .init(.suspect, .alive, 6, gives: .alive, 6, passedOn: true),
    .init(.suspect, .aliveElsewhere, 6, gives: .suspect, 5, passedOn: false, conflict: true),
    .init(.suspect, .dead, 5, gives: .dead, 5, event: "left", passedOn: true),
    .init(.suspect, .leave, 5, gives: .left, 5, event: "left", passedOn: true),
    .init(.dead, .alive, 5, gives: .dead, 5, passedOn: false),
    .init(.dead, .alive, 6, gives: .alive, 6, event: "joined", passedOn: true),
    .init(.dead, .aliveElsewhere, 6, gives: .dead, 5, passedOn: false, conflict: true),
    .init(.dead, .suspect, 9, gives: .dead, 5, passedOn: false),
    .init(.dead, .dead, 9, gives: .dead, 5, passedOn: false),
    .init(.dead, .leave, 9, gives: .dead, 5, passedOn: false),
    .init(.left, .alive, 5, gives: .left, 5, passedOn: false),
    .init(.left, .alive, 6, gives: .alive, 6, event: "joined", passedOn: true),
    // A name that was left is free at once, even for an incarnation that is not higher.
    .init(.left, .aliveElsewhere, 1, gives: .alive, 1, event: "joined", passedOn: true),
    .init(.left, .suspect, 9, gives: .left, 5, passedOn: false),
    .init(.left, .dead, 9, gives: .left, 5, passedOn: false),
  ]

  @Test("What is heard of a known member", arguments: cases)
  func transition(_ test: TransitionCase) throws {
    let harness = try MembershipHarness()
    let home = MembershipHarness.peerAddress(1)
    harness.addPeers(6)
    harness.receive(.alive(harness.alive("p1", incarnation: 5, address: home, meta: [1])))
    switch test.known {
    case .alive: break
    case .suspect: harness.receive(.suspect(Suspect(incarnation: 5, node: "p1", from: "p2")))
    case .dead: harness.receive(.dead(Dead(incarnation: 5, node: "p1", from: "p2")))
    case .left: harness.receive(.dead(Dead(incarnation: 5, node: "p1", from: "p1")))
    }
    #expect(harness.state(of: "p1") == test.known)
    drainBroadcasts(harness)

    switch test.heard {
    case .alive:
      harness.receive(.alive(harness.alive("p1", incarnation: test.incarnation, address: home, meta: [1])))
    case .aliveNewMetadata:
      harness.receive(.alive(harness.alive("p1", incarnation: test.incarnation, address: home, meta: [2])))
    case .aliveElsewhere:
      let elsewhere = MembershipHarness.peerAddress(99)
      harness.receive(.alive(harness.alive("p1", incarnation: test.incarnation, address: elsewhere, meta: [1])))
    case .suspect: harness.receive(.suspect(Suspect(incarnation: test.incarnation, node: "p1", from: "p3")))
    case .dead: harness.receive(.dead(Dead(incarnation: test.incarnation, node: "p1", from: "p3")))
    case .leave: harness.receive(.dead(Dead(incarnation: test.incarnation, node: "p1", from: "p1")))
    }

    #expect(harness.state(of: "p1") == test.state)
    #expect(harness.incarnation(of: "p1") == test.newIncarnation)
    #expect(harness.events.map(name(of:)) == (test.event.map { [$0] } ?? []))
    let conflicts = harness.actions.count { if case .conflict = $0 { true } else { false } }
    #expect(conflicts == (test.isConflict ? 1 : 0))
    let passedOn = gossipedMessages(harness).contains { concerns($0, "p1") }
    #expect(passedOn == test.isPassedOn)
  }

  private func name(of event: MemberEvent) -> String {
    switch event {
    case .joined: "joined"
    case .left: "left"
    case .updated: "updated"
    }
  }

  @Test("Unknown members: an announcement admits them, accusations are ignored")
  func unknown() throws {
    let harness = try MembershipHarness()
    harness.receive(.suspect(Suspect(incarnation: 1, node: "x", from: "y")))
    harness.receive(.dead(Dead(incarnation: 1, node: "x", from: "y")))
    #expect(harness.state(of: "x") == nil)
    harness.receive(.alive(harness.alive("x", incarnation: 1, address: MembershipHarness.peerAddress(1))))
    #expect(harness.state(of: "x") == .alive)
    #expect(harness.events.count == 1)
  }

  @Test("Impossible protocol versions and forbidden addresses are refused")
  func refusals() throws {
    let network = try CIDR(parsing: "10.0.1.0/24")
    let harness = try MembershipHarness { $0.allowedAddresses = AddressAllowList(ranges: [network]) }
    for (low, high) in [(0, 5), (1, 0), (3, 2)] as [(UInt8, UInt8)] {
      var announcement = harness.alive("x", incarnation: 1, address: MembershipHarness.peerAddress(1))
      announcement.versions = ProtocolVersions(protocolMin: low, protocolMax: high, protocolCurrent: 2)
      harness.receive(.alive(announcement))
      #expect(harness.state(of: "x") == nil)
    }
    let outside = GossipAddress(ip: IPAddress(192, 168, 0, 1), port: 7946)
    harness.receive(.alive(harness.alive("x", incarnation: 1, address: outside)))
    #expect(harness.state(of: "x") == nil)
    harness.receive(.alive(harness.alive("x", incarnation: 1, address: MembershipHarness.peerAddress(1))))
    #expect(harness.state(of: "x") == .alive)
  }

  @Test("The member table is bounded")
  func tableLimit() throws {
    let harness = try MembershipHarness { $0.maximumMembers = 3 }
    for number in 1...9 as ClosedRange<UInt8> {
      harness.receive(
        .alive(harness.alive(NodeName("p\(number)"), incarnation: 1, address: MembershipHarness.peerAddress(number))))
    }
    #expect(harness.membership.knownMemberCount == 3)
  }

  @Test("A dead member's name is reclaimed from another address only after the configured time")
  func reclaim() throws {
    let harness = try MembershipHarness { $0.deadNodeReclaimNanoseconds = 10 * second }
    harness.addPeers(5)
    harness.receive(.dead(Dead(incarnation: 1, node: "p1", from: "p2")))
    let elsewhere = harness.alive("p1", incarnation: 1, address: MembershipHarness.peerAddress(77))
    harness.receive(.alive(elsewhere))
    #expect(harness.state(of: "p1") == .dead)
    harness.advance(by: 11 * second)
    harness.receive(.alive(elsewhere))
    #expect(harness.state(of: "p1") == .alive)
    #expect(harness.membership.member(named: "p1")?.address == MembershipHarness.peerAddress(77))
  }

  @Test("Accusations of ourselves are refuted with a higher incarnation", arguments: [1, 7] as [UInt32])
  func refutation(accused: UInt32) throws {
    for message in [
      GossipMessage.suspect(Suspect(incarnation: accused, node: "self", from: "p1")),
      .dead(Dead(incarnation: accused, node: "self", from: "p1")),
    ] {
      let harness = try MembershipHarness()
      harness.addPeers(5)
      harness.receive(message)
      #expect(harness.incarnation(of: "self") == accused + 1)
      #expect(harness.state(of: "self") == .alive)
      #expect(harness.membership.health.score == 1)
      let refutations = gossipedMessages(harness).compactMap { message -> UInt32? in
        guard case .alive(let announcement) = message, announcement.node == "self" else { return nil }
        return announcement.incarnation
      }
      #expect(refutations.contains(accused + 1))
    }
  }

  @Test("Our own announcement is refuted only when it says something else")
  func ownAnnouncement() throws {
    let harness = try MembershipHarness(metadata: [9])
    harness.receive(.alive(harness.alive("self", incarnation: 1, address: MembershipHarness.address, meta: [9])))
    #expect(harness.incarnation(of: "self") == 1)
    harness.receive(.alive(harness.alive("self", incarnation: 40, address: MembershipHarness.address, meta: [8])))
    #expect(harness.incarnation(of: "self") == 41)
    #expect(harness.membership.localMember.metadata == [9])
  }

  @Test("The highest incarnation cannot be exceeded and does not wrap")
  func highestIncarnation() throws {
    let harness = try MembershipHarness()
    harness.receive(.suspect(Suspect(incarnation: .max, node: "self", from: "p1")))
    #expect(harness.incarnation(of: "self") == .max)
  }

  @Test("What another member holds dead is only suspected, what it holds left has left")
  func merge() throws {
    let harness = try MembershipHarness()
    harness.addPeers(4)
    func state(_ number: UInt8, _ kind: NodeStateKind, incarnation: UInt32 = 1) -> PushPullNodeState {
      PushPullNodeState(
        name: NodeName("p\(number)"), address: MembershipHarness.peerAddress(number), incarnation: incarnation,
        state: kind)
    }
    let remote = PushPull(
      isJoin: false, nodes: [state(1, .dead), state(2, .suspect), state(3, .left), state(9, .alive, incarnation: 3)])
    harness.perform { membership, now in membership.mergeRemoteState(remote, nowNanoseconds: now) }
    #expect(harness.state(of: "p1") == .suspect)
    #expect(harness.state(of: "p2") == .suspect)
    #expect(harness.state(of: "p3") == .left)
    #expect(harness.state(of: "p9") == .alive)
    #expect(harness.incarnation(of: "p9") == 3)
  }

  @Test("Members that do not understand each other are not merged")
  func versions() throws {
    let harness = try MembershipHarness()
    let serf = PushPullNodeState(
      name: "s", address: MembershipHarness.peerAddress(1), incarnation: 1, state: .alive, versions: .serf)
    #expect(throws: WireError.incompatibleDelegate(speaks: 5, low: 2, high: 0)) {
      try harness.membership.verifyVersions(of: PushPull(isJoin: true, nodes: [serf]))
    }
    let speaking = try MembershipHarness { $0.versions = .serf }
    try speaking.membership.verifyVersions(of: PushPull(isJoin: true, nodes: [serf]))
  }

  @Test("The application may veto members")
  func veto() throws {
    let harness = try MembershipHarness { $0.asksBeforeAlive = true }
    let announcement = harness.alive("x", incarnation: 1, address: MembershipHarness.peerAddress(1))
    harness.receive(.alive(announcement))
    #expect(harness.state(of: "x") == nil)
    let asked = harness.actions.contains { if case .voteAlive(announcement) = $0 { true } else { false } }
    #expect(asked)
    harness.perform { membership, now in membership.handleAlive(announcement, nowNanoseconds: now) }
    #expect(harness.state(of: "x") == .alive)
  }

  // MARK: Leave, update, return

  @Test("Leaving is told to the others, is not refuted, and ends when it has been told")
  func leave() throws {
    let harness = try MembershipHarness()
    harness.addPeers(3)
    let number = try harness.perform { membership, now in
      try membership.leave(timeoutNanoseconds: 10 * second, nowNanoseconds: now)
    }
    harness.receive(.dead(Dead(incarnation: 1, node: "self", from: "self")))
    #expect(harness.state(of: "self") == .left)
    #expect(harness.incarnation(of: "self") == 1)
    harness.advance(by: 9 * second)
    let finished = harness.actions.contains {
      if case .announcementFinished(number, wasDelivered: true) = $0 { true } else { false }
    }
    #expect(finished)
    #expect(harness.sentMessages.contains(.dead(Dead(incarnation: 1, node: "self", from: "self"))))
    #expect(throws: MembershipError.hasLeft) {
      try harness.perform { membership, now in try membership.leave(timeoutNanoseconds: 1, nowNanoseconds: now) }
    }
  }

  @Test("A member that left can come back")
  func rejoinAfterLeave() throws {
    let harness = try MembershipHarness()
    harness.addPeers(3)
    _ = try harness.perform { membership, now in
      try membership.leave(timeoutNanoseconds: second, nowNanoseconds: now)
    }
    harness.receive(.alive(harness.alive("self", incarnation: 1, address: MembershipHarness.address)))
    #expect(harness.state(of: "self") == .left)
    harness.perform { membership, now in membership.rejoinAfterLeave(nowNanoseconds: now) }
    #expect(harness.state(of: "self") == .alive)
    #expect(harness.incarnation(of: "self") == 2)
    let announced = gossipedMessages(harness).contains {
      if case .alive(let announcement) = $0 {
        announcement.node == "self" && announcement.incarnation == 2
      } else {
        false
      }
    }
    #expect(announced)
  }

  @Test("New metadata is announced with a higher incarnation; too much is refused")
  func update() throws {
    let harness = try MembershipHarness()
    harness.addPeers(3)
    _ = try harness.perform { membership, now in
      try membership.update(metadata: [1, 2, 3], timeoutNanoseconds: second, nowNanoseconds: now)
    }
    #expect(harness.membership.localMember.metadata == [1, 2, 3])
    #expect(harness.incarnation(of: "self") == 2)
    #expect(throws: MembershipError.metadataTooLong(byteCount: 513, limitBytes: 512)) {
      try harness.perform { membership, now in
        _ = try membership.update(
          metadata: Array(repeating: 0, count: 513), timeoutNanoseconds: second, nowNanoseconds: now)
      }
    }
  }

  @Test("The first incarnation follows the configured start")
  func startIncarnation() throws {
    #expect(try MembershipHarness().incarnation(of: "self") == 1)
    let harness = try MembershipHarness { $0.startIncarnation = 1_700_000_000 }
    #expect(harness.incarnation(of: "self") == 1_700_000_001)
  }

  // MARK: Helpers

  /// Lets everything queued be transmitted as often as it will be, while every probe is answered.
  private func drainBroadcasts(_ harness: MembershipHarness) {
    harness.perform { membership, _ in membership.broadcasts = BroadcastStore(membership.configuration, hashSeed: 0) }
    harness.forgetHistory()
  }

  /// What the next gossip tick sends.
  private func gossipedMessages(_ harness: MembershipHarness) -> [GossipMessage] {
    harness.advance(by: 200 * millisecond)
    return harness.sentMessages
  }

  private func concerns(_ message: GossipMessage, _ name: NodeName) -> Bool {
    switch message {
    case .alive(let message): message.node == name
    case .dead(let message): message.node == name
    // The probe of a suspect carries the suspicion too; only what others hear is passed on.
    case .suspect(let message): message.node == name && message.from != "self"
    default: false
    }
  }
}
