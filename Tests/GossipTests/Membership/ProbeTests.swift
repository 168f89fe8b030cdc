import Testing

@testable import Gossip

@Suite("Failure detector")
struct ProbeTests {
  /// Runs until the first ping has gone out and returns it with its destination.
  private func firstPing(_ harness: MembershipHarness) throws -> (Ping, GossipAddress) {
    harness.advance(by: 3 * second) { !harness.sent.isEmpty && self.pings(harness).count > 0 }
    return try #require(pings(harness).first)
  }

  private func pings(_ harness: MembershipHarness) -> [(Ping, GossipAddress)] {
    harness.sent.flatMap { packet in
      packet.messages.compactMap { message -> (Ping, GossipAddress)? in
        guard case .ping(let ping) = message else { return nil }
        return (ping, packet.to)
      }
    }
  }

  private func requests(_ harness: MembershipHarness) -> [IndirectPing] {
    harness.sentMessages.compactMap { if case .indirectPing(let request) = $0 { request } else { nil } }
  }

  private func streamPings(_ harness: MembershipHarness) -> Int {
    harness.actions.count { if case .openStreamPing = $0 { true } else { false } }
  }

  private func quietHarness(
    peers: UInt8, configure: (inout MembershipConfiguration) -> Void = { _ in }
  ) throws -> MembershipHarness {
    let harness = try MembershipHarness(configure: configure)
    harness.addPeers(peers)
    harness.perform { membership, _ in membership.broadcasts = BroadcastStore(membership.configuration, hashSeed: 0) }
    return harness
  }

  @Test("An answered probe costs one ping and mends the local health")
  func answered() throws {
    let harness = try quietHarness(peers: 4)
    harness.perform { membership, _ in membership.health.apply(2) }
    let (ping, target) = try firstPing(harness)
    #expect(ping.sourceAddress == MembershipHarness.address.ip)
    #expect(ping.sourcePort == 7946)
    #expect(ping.sourceNode == "self")
    harness.advance(by: 100 * millisecond)
    harness.receive(.ack(Ack(sequenceNumber: ping.sequenceNumber, payload: [1, 2])), from: target)
    #expect(harness.membership.health.score == 1)
    let completed = harness.actions.contains {
      if case .pingCompleted(ping.node, roundTripNanoseconds: 100 * millisecond, payload: let payload) = $0 {
        payload.count == 2
      } else {
        false
      }
    }
    #expect(completed)
    #expect(requests(harness).isEmpty)
  }

  @Test("A silent target is asked for by three others and by stream, and suspected at the end of the interval")
  func escalation() throws {
    let harness = try quietHarness(peers: 6)
    let (ping, _) = try firstPing(harness)
    harness.advance(by: 500 * millisecond)
    let asked = requests(harness)
    #expect(asked.count == 3)
    #expect(asked.allSatisfy { $0.sequenceNumber == ping.sequenceNumber && $0.node == ping.node && $0.wantsNack })
    #expect(streamPings(harness) == 1)
    #expect(harness.state(of: ping.node) == .alive)
    harness.advance(by: 499 * millisecond)
    #expect(harness.state(of: ping.node) == .alive)
    harness.advance(by: 2 * millisecond)
    #expect(harness.state(of: ping.node) == .suspect)
  }

  @Test("Old members are asked for no nack and are not tried by stream")
  func oldPeers() throws {
    let harness = try MembershipHarness()
    for number in 1...5 as ClosedRange<UInt8> {
      var announcement = harness.alive(
        NodeName("p\(number)"), incarnation: 1, address: MembershipHarness.peerAddress(number))
      announcement.versions = ProtocolVersions(protocolMin: 1, protocolMax: 2, protocolCurrent: 2)
      harness.receive(.alive(announcement))
    }
    _ = try firstPing(harness)
    harness.advance(by: 600 * millisecond)
    #expect(requests(harness).count == 3)
    #expect(requests(harness).allSatisfy { !$0.wantsNack })
    #expect(streamPings(harness) == 0)
    #expect(harness.sent.allSatisfy { !$0.withChecksum })
  }

  // Of three expected nacks so many come: the local health suffers by the missing ones.
  @Test("Missing nacks count against the local health", arguments: 0...3)
  func nacks(received: Int) throws {
    let harness = try quietHarness(peers: 6)
    let (ping, _) = try firstPing(harness)
    harness.advance(by: 600 * millisecond)
    for _ in 0..<received { harness.receive(.nack(Nack(sequenceNumber: ping.sequenceNumber))) }
    harness.advance(by: 500 * millisecond)
    #expect(harness.state(of: ping.node) == .suspect)
    #expect(harness.membership.health.score == 3 - received)
  }

  @Test("Without helpers a failed probe costs one point of health")
  func alone() throws {
    let harness = try quietHarness(peers: 1)
    let (ping, _) = try firstPing(harness)
    harness.advance(by: second)
    #expect(harness.state(of: ping.node) == .suspect)
    #expect(harness.membership.health.score == 1)
  }

  @Test("A late acknowledgement counts until the interval ends")
  func lateAck() throws {
    let harness = try quietHarness(peers: 5)
    let (ping, target) = try firstPing(harness)
    harness.advance(by: 900 * millisecond)
    harness.receive(.ack(Ack(sequenceNumber: ping.sequenceNumber)), from: target)
    harness.advance(by: 200 * millisecond)
    #expect(harness.state(of: ping.node) == .alive)
  }

  @Test("An answer by stream keeps the target alive, with a notice")
  func streamAnswer() throws {
    let harness = try quietHarness(peers: 5)
    let (ping, _) = try firstPing(harness)
    harness.advance(by: 700 * millisecond)
    harness.perform { membership, now in
      membership.streamPingSucceeded(sequenceNumber: ping.sequenceNumber, nowNanoseconds: now)
    }
    harness.advance(by: 400 * millisecond)
    #expect(harness.state(of: ping.node) == .alive)
    let isNoticed = harness.actions.contains {
      if case .notice(.answeredByStreamOnly(ping.node)) = $0 { true } else { false }
    }
    #expect(isNoticed)
  }

  @Test("An address that refuses packets is not waited for")
  func refused() throws {
    let harness = try quietHarness(peers: 5)
    let (_, target) = try firstPing(harness)
    harness.perform { membership, now in membership.sendFailed(to: target, nowNanoseconds: now) }
    #expect(requests(harness).count == 3)
  }

  @Test("Bad health stretches the probe interval, and the next probe starts when the long one ends")
  func stretching() throws {
    let harness = try quietHarness(peers: 6)
    harness.perform { membership, _ in membership.health.apply(2) }
    let (ping, _) = try firstPing(harness)
    let start = harness.now
    harness.advance(by: 2900 * millisecond)
    #expect(harness.state(of: ping.node) == .alive)
    #expect(pings(harness).count == 1)
    harness.advance(by: 100 * millisecond)
    #expect(harness.state(of: ping.node) == .suspect)
    #expect(pings(harness).count == 2)
    #expect(harness.now == start + 3 * second)
  }

  @Test("Every member is probed once in a round, in an order that differs between members")
  func ring() throws {
    var orders: Set<[NodeName]> = []
    for seed in 1...5 as ClosedRange<UInt64> {
      let harness = try MembershipHarness(seed: seed)
      harness.addPeers(20)
      var order: [NodeName] = []
      // The first round may start anywhere: look at the second.
      for _ in 0..<60 {
        harness.advance(by: second) { !self.pings(harness).isEmpty }
        for (ping, target) in pings(harness) {
          order.append(ping.node)
          harness.receive(.ack(Ack(sequenceNumber: ping.sequenceNumber)), from: target)
        }
        harness.forgetHistory()
      }
      let firstRound = Array(order[..<20])
      let secondRound = Array(order[20..<40])
      #expect(Set(firstRound).count == 20)
      #expect(Set(secondRound).count == 20)
      #expect(firstRound != secondRound)
      orders.insert(secondRound)
    }
    #expect(orders.count == 5)
  }

  @Test("A suspect is told of its suspicion with the ping, in a packet of those two alone")
  func buddy() throws {
    let harness = try quietHarness(peers: 1)
    harness.receive(.suspect(Suspect(incarnation: 1, node: "p1", from: "p9")))
    harness.forgetHistory()
    _ = try firstPing(harness)
    let packet = try #require(
      harness.sent.first { $0.messages.contains { if case .ping = $0 { true } else { false } } })
    #expect(packet.messages.count == 2)
    #expect(packet.messages.last == .suspect(Suspect(incarnation: 1, node: "p1", from: "self")))
    #expect(packet.withChecksum)
  }

  @Test("A suspicion becomes a death at its time, sooner with confirmations")
  func suspicionRunsOut() throws {
    // 7 known members: minimum 4 s, maximum 24 s, two confirmations expected.
    for (confirmers, expected) in [(0, 24 * second), (1, 11_381 * millisecond), (2, 4 * second)] {
      let harness = try quietHarness(peers: 6)
      // Our own probes are answered, or we would confirm the suspicion ourselves.
      harness.answersPings = true
      harness.receive(.suspect(Suspect(incarnation: 1, node: "p1", from: "p2")))
      for confirmer in 0..<confirmers {
        harness.receive(.suspect(Suspect(incarnation: 1, node: "p1", from: NodeName("p\(3 + confirmer)"))))
      }
      let start = harness.now
      harness.advance(by: 60 * second) { harness.state(of: "p1") == .dead }
      let took = harness.now - start
      #expect(took == expected)
    }
  }

  @Test("A refutation in time ends the suspicion")
  func refutedInTime() throws {
    let harness = try quietHarness(peers: 6)
    harness.receive(.suspect(Suspect(incarnation: 1, node: "p1", from: "p2")))
    harness.receive(.alive(harness.alive("p1", incarnation: 2, address: MembershipHarness.peerAddress(1))))
    harness.advance(by: 60 * second) { harness.state(of: "p1") != .alive }
    // Later probes of p1 fail as well, as nobody answers here; the first death is not of the old suspicion.
    let deaths = harness.actions.compactMap { action -> NodeName? in
      if case .notice(.declaredDead(let name, _)) = action { name } else { nil }
    }
    #expect(!deaths.contains("p1"))
  }

  @Test("Without Lifeguard: no nacks, no buddy, fixed suspicion, unstretched interval")
  func plainSwim() throws {
    let harness = try quietHarness(peers: 6) { $0.usesLifeguard = false }
    let (ping, _) = try firstPing(harness)
    harness.advance(by: second)
    #expect(requests(harness).allSatisfy { !$0.wantsNack })
    #expect(harness.state(of: ping.node) == .suspect)
    #expect(harness.membership.health.score == 0)
    let start = harness.now
    harness.advance(by: 60 * second) { harness.state(of: ping.node) == .dead }
    #expect(harness.now - start == 4 * second)
  }

  // MARK: Answering

  @Test("A ping is acknowledged to its stated source, with the payload; one for another name is not")
  func answering() throws {
    let harness = try quietHarness(peers: 1)
    harness.perform { membership, _ in membership.ackPayload = [7] }
    let stated = GossipAddress(ip: IPAddress(10, 9, 9, 9), port: 1)
    harness.receive(
      .ping(Ping(sequenceNumber: 5, node: "self", sourceAddress: stated.ip, sourcePort: 1, sourceNode: "x")))
    #expect(harness.sent.last?.to == stated)
    #expect(harness.sentMessages.last == .ack(Ack(sequenceNumber: 5, payload: [7])))
    harness.receive(.ping(Ping(sequenceNumber: 6, node: .unnamed)), from: MembershipHarness.peerAddress(50))
    #expect(harness.sent.last?.to == MembershipHarness.peerAddress(50))
    harness.forgetHistory()
    harness.receive(.ping(Ping(sequenceNumber: 7, node: "somebody")))
    #expect(harness.sent.isEmpty)
    #expect(harness.membership.answer(Ping(sequenceNumber: 1, node: "somebody")) == nil)
    #expect(harness.membership.answer(Ping(sequenceNumber: 1, node: "self")) == Ack(sequenceNumber: 1))
  }

  @Test("A relay passes an answer on, or sends a nack after the probe timeout", arguments: [true, false])
  func relay(isAnswered: Bool) throws {
    let harness = try quietHarness(peers: 1)
    let target = MembershipHarness.peerAddress(30)
    let asker = MembershipHarness.peerAddress(40)
    harness.receive(
      .indirectPing(
        IndirectPing(sequenceNumber: 77, target: target.ip, port: target.port, node: "t", wantsNack: true)),
      from: asker)
    let (ping, to) = try #require(pings(harness).first)
    #expect(to == target && ping.node == "t" && ping.sequenceNumber != 77)
    harness.forgetHistory()
    if isAnswered {
      harness.receive(.ack(Ack(sequenceNumber: ping.sequenceNumber, payload: [1])), from: target)
      #expect(harness.sentMessages == [.ack(Ack(sequenceNumber: 77))])
    } else {
      harness.advance(by: 500 * millisecond)
      #expect(harness.sentMessages.contains(.nack(Nack(sequenceNumber: 77))))
      harness.receive(.ack(Ack(sequenceNumber: ping.sequenceNumber)), from: target)
      #expect(!harness.sentMessages.contains(.ack(Ack(sequenceNumber: 77))))
    }
    #expect(harness.sent.contains { $0.to == asker })
  }

  @Test("Relays under way are bounded")
  func relayLimit() throws {
    let harness = try quietHarness(peers: 1)
    for number in 1...2000 as ClosedRange<UInt32> {
      harness.receive(
        .indirectPing(
          IndirectPing(
            sequenceNumber: number, target: IPAddress(10, 0, 9, 9), port: 1, node: "t", wantsNack: false)))
    }
    #expect(harness.membership.relays.count == 1024)
  }

  @Test("The application's ping reports the round trip, or that there was none")
  func userPing() throws {
    let harness = try quietHarness(peers: 2)
    let answered = try harness.perform { membership, now in try membership.ping("p1", nowNanoseconds: now) }
    let unanswered = try harness.perform { membership, now in try membership.ping("p2", nowNanoseconds: now) }
    harness.receive(.ack(Ack(sequenceNumber: answered)))
    harness.advance(by: second)
    var results: [UInt32: UInt64?] = [:]
    for case .userPingFinished(let number, let roundTrip) in harness.actions { results[number] = roundTrip }
    #expect(results[answered] == .some(.some(0)))
    #expect(results[unanswered] == .some(UInt64?.none))
    #expect(throws: MembershipError.unknownMember("nobody")) {
      try harness.perform { membership, now in _ = try membership.ping("nobody", nowNanoseconds: now) }
    }
  }

  // MARK: Round ends

  @Test("Members long dead or gone are forgotten at the end of a round, and looked for if they were lost")
  func reaping() throws {
    let harness = try quietHarness(peers: 3)
    harness.receive(.dead(Dead(incarnation: 1, node: "p1", from: "p2")))
    harness.receive(.dead(Dead(incarnation: 1, node: "p3", from: "p3")))
    for _ in 0..<80 {
      harness.advance(by: second)
      for (ping, _) in pings(harness) { harness.receive(.ack(Ack(sequenceNumber: ping.sequenceNumber))) }
      harness.forgetHistoryOfPackets()
    }
    #expect(harness.state(of: "p1") == nil)
    #expect(harness.state(of: "p3") == nil)
    #expect(harness.membership.lostPeerCount == 1)
    let lookedFor = harness.actions.compactMap { action -> NodeName? in
      if case .openPushPull(_, let name, isJoin: true) = action { name } else { nil }
    }
    #expect(Set(lookedFor) == ["p1"])
    harness.receive(.alive(harness.alive("p1", incarnation: 1, address: MembershipHarness.peerAddress(1))))
    #expect(harness.membership.lostPeerCount == 0)
  }
}
