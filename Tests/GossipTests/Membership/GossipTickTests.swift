import Testing

@testable import Gossip

@Suite("Dissemination")
struct GossipTickTests {
  @Test("News goes to at most the configured number of members in each interval")
  func fanout() throws {
    let harness = try MembershipHarness()
    harness.addPeers(12)
    harness.perform { membership, _ in membership.broadcasts = BroadcastStore(membership.configuration, hashSeed: 0) }
    harness.receive(.dead(Dead(incarnation: 1, node: "p1", from: "p2")))
    harness.advance(by: 200 * millisecond)
    let told = harness.sent.filter { $0.messages.contains(.dead(Dead(incarnation: 1, node: "p1", from: "p2"))) }
    #expect((1...4).contains(told.count))
    #expect(Set(told.map(\.to)).count == told.count)
    #expect(!told.contains { $0.to == MembershipHarness.address })
  }

  @Test("Each piece of news is transmitted exactly as often as the formula says, then no packet is sent for it")
  func transmitLimit() throws {
    let harness = try MembershipHarness { $0.probeIntervalNanoseconds = 3600 * second }
    harness.addPeers(12)
    harness.perform { membership, _ in membership.broadcasts = BroadcastStore(membership.configuration, hashSeed: 0) }
    let obituary = GossipMessage.dead(Dead(incarnation: 1, node: "p1", from: "p2"))
    harness.receive(obituary)
    harness.advance(by: 20 * second)
    // 13 members: 4 × ceil(log10 14).
    #expect(harness.sentMessages.filter { $0 == obituary }.count == 8)
    harness.forgetHistory()
    harness.advance(by: 5 * second)
    #expect(harness.sent.isEmpty)
  }

  @Test("The recently dead are gossiped to, the long dead and those that left are not")
  func audience() throws {
    let harness = try MembershipHarness { $0.probeIntervalNanoseconds = 3600 * second }
    harness.addPeers(2)
    harness.receive(.dead(Dead(incarnation: 1, node: "p1", from: "p9")))
    harness.receive(.dead(Dead(incarnation: 1, node: "p2", from: "p2")))
    harness.advance(by: second)
    #expect(harness.sent.contains { $0.to == MembershipHarness.peerAddress(1) })
    #expect(!harness.sent.contains { $0.to == MembershipHarness.peerAddress(2) })
    harness.advance(by: 40 * second)
    harness.forgetHistory()
    try harness.perform { membership, now in try membership.broadcast([1], nowNanoseconds: now) }
    harness.advance(by: second)
    #expect(harness.sent.isEmpty)
  }

  @Test("Later news of a member replaces what is still queued of it")
  func replacement() throws {
    let harness = try MembershipHarness()
    harness.addPeers(5)
    harness.perform { membership, _ in membership.broadcasts = BroadcastStore(membership.configuration, hashSeed: 0) }
    harness.receive(.suspect(Suspect(incarnation: 1, node: "p1", from: "p2")))
    harness.receive(.alive(harness.alive("p1", incarnation: 2, address: MembershipHarness.peerAddress(1))))
    harness.advance(by: 3 * second)
    #expect(!harness.sentMessages.contains(.suspect(Suspect(incarnation: 1, node: "p1", from: "p2"))))
  }

  @Test("No packet body exceeds the configured size", arguments: [600, 1400])
  func packetSize(limit: Int) throws {
    let harness = try MembershipHarness {
      $0.packetSizeBytes = limit
      $0.packetOverheadBytes = 31
    }
    for number in 1...60 as ClosedRange<UInt8> {
      harness.receive(
        .alive(
          harness.alive(
            NodeName("member-with-a-long-name-\(number)"), incarnation: 1,
            address: MembershipHarness.peerAddress(number), meta: Array(repeating: 0xAB, count: Int(number)))))
    }
    harness.advance(by: 4 * second)
    let sizes = harness.sent.map { packet in
      2 + packet.messages.reduce(0) { $0 + 2 + $1.encoded().count }
    }
    #expect(!sizes.isEmpty)
    #expect(sizes.allSatisfy { $0 <= limit - 31 })
    #expect((sizes.max() ?? 0) > limit * 3 / 4)
  }

  // MARK: User broadcasts

  @Test("A user broadcast is delivered once and passed on, its echo is dropped")
  func userBroadcast() throws {
    let sender = try MembershipHarness(seed: 5)
    sender.addPeers(2)
    try sender.perform { membership, now in try membership.broadcast([1, 2, 3], nowNanoseconds: now) }
    sender.advance(by: second)
    let messages = sender.sentMessages.filter { if case .user = $0 { true } else { false } }
    let message = try #require(messages.first)
    #expect(sender.delivered.isEmpty)
    sender.receive(message)
    #expect(sender.delivered.isEmpty)

    let receiver = try MembershipHarness(name: "other", seed: 6)
    receiver.addPeers(2)
    receiver.receive(message)
    receiver.receive(message)
    #expect(receiver.delivered == [[1, 2, 3]])
    receiver.advance(by: second)
    #expect(receiver.sentMessages.contains(message))
    #expect(receiver.membership.counters.userBroadcastDuplicates == 1)
  }

  @Test("Plain messages of others are delivered as they come and not passed on")
  func plainMessages() throws {
    let harness = try MembershipHarness()
    harness.addPeers(2)
    harness.receive(.user([3, 1, 4]))
    harness.receive(.user([3, 1, 4]))
    #expect(harness.delivered == [[3, 1, 4], [3, 1, 4]])
    harness.advance(by: second)
    #expect(!harness.sentMessages.contains(.user([3, 1, 4])))
  }

  @Test("Without identities a broadcast goes out exactly as given")
  func plainBroadcast() throws {
    let harness = try MembershipHarness { $0.identifiesUserBroadcasts = false }
    harness.addPeers(2)
    try harness.perform { membership, now in try membership.broadcast([9, 9], nowNanoseconds: now) }
    harness.advance(by: second)
    #expect(harness.sentMessages.contains(.user([9, 9])))
  }

  @Test("A broadcast that fits no packet is refused; the largest that is accepted is sent")
  func largestBroadcast() throws {
    let harness = try MembershipHarness()
    harness.addPeers(2)
    let limit = harness.membership.configuration.maximumUserBroadcastBytes - BroadcastIdentity.encodedSizeBytes
    #expect(throws: MembershipError.broadcastTooLong(byteCount: limit + 1, limitBytes: limit)) {
      try harness.perform { membership, now in
        try membership.broadcast(Array(repeating: 1, count: limit + 1), nowNanoseconds: now)
      }
    }
    try harness.perform { membership, now in
      try membership.broadcast(Array(repeating: 1, count: limit), nowNanoseconds: now)
    }
    harness.advance(by: 5 * second)
    let isSent = harness.sentMessages.contains { if case .user(let bytes) = $0 { bytes.count > limit } else { false } }
    #expect(isSent)
  }

  @Test("User broadcasts keep their share of each packet however much news of members there is")
  func share() throws {
    let harness = try MembershipHarness { $0.probeIntervalNanoseconds = 3600 * second }
    harness.addPeers(100)
    try harness.perform { membership, now in
      try membership.broadcast(Array(repeating: 5, count: 100), nowNanoseconds: now)
    }
    // The queue is full of announcements of 100 members, each to be sent before anything sent once.
    harness.advance(by: 250 * millisecond)
    let hasUserMessage = harness.sent.map { packet in
      packet.messages.contains { if case .user = $0 { true } else { false } }
    }
    #expect(hasUserMessage.first == true)
    let newsCount = harness.sent.first?.messages.count ?? 0
    #expect(newsCount > 5)
  }

  @Test("Queued user broadcasts are bounded")
  func queueLimit() throws {
    let harness = try MembershipHarness { $0.maximumQueuedUserBroadcasts = 10 }
    for number in 0..<25 {
      try harness.perform { membership, now in try membership.broadcast([UInt8(number)], nowNanoseconds: now) }
    }
    #expect(harness.membership.counters.droppedUserBroadcasts == 15)
    harness.perform { membership, now in
      membership.offer(Array(repeating: Array(repeating: 0, count: 1000), count: 100), nowNanoseconds: now)
    }
    #expect(harness.membership.counters.droppedUserBroadcasts == 15 + 35)
  }
}
