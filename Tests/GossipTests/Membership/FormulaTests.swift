import Testing

@testable import Gossip

@Suite("The arithmetic of SWIM and Lifeguard")
struct FormulaTests {
  @Test(
    "A broadcast is transmitted multiplier × ceil(log10(n + 1)) times",
    arguments: [
      (4, 0, 0), (4, 1, 4), (4, 9, 4), (4, 10, 8), (4, 99, 8), (4, 100, 12), (4, 999, 12), (4, 1000, 16),
      (2, 5, 2), (0, 50, 0),
    ])
  func retransmitLimit(multiplier: Int, nodeCount: Int, expected: Int) {
    #expect(Formulas.retransmitLimit(multiplier: multiplier, nodeCount: nodeCount) == expected)
  }

  @Test("Absurd configurations saturate instead of trapping")
  func saturation() {
    #expect(Formulas.retransmitLimit(multiplier: .max, nodeCount: .max) == 255)
    #expect(
      Formulas.suspicionTimeoutNanoseconds(multiplier: .max, nodeCount: .max, probeIntervalNanoseconds: .max)
        == UInt64.max / 1000)
    #expect(Formulas.pushPullIntervalNanoseconds(baseNanoseconds: .max, nodeCount: 1_000_000) == .max)
  }

  @Test("User broadcasts are sent often enough that one in a thousand misses a member")
  func userBroadcastTransmissions() {
    #expect(Formulas.userBroadcastTransmissions(nodeCount: 0) == 1)
    #expect(Formulas.userBroadcastTransmissions(nodeCount: 1) == 1)
    #expect(Formulas.userBroadcastTransmissions(nodeCount: 3) == 9)
    #expect(Formulas.userBroadcastTransmissions(nodeCount: 9) == 10)
    #expect(Formulas.userBroadcastTransmissions(nodeCount: 256) == 13)
    #expect(Formulas.userBroadcastTransmissions(nodeCount: .max) == 51)
  }

  @Test(
    "The minimum suspicion time is multiplier × max(1, log10 n) × interval, the middle cut to three decimals",
    arguments: [
      (5, 1, 5000), (5, 5, 5000), (5, 10, 5000), (5, 50, 8490), (5, 500, 13490), (4, 128, 8428), (4, 0, 4000),
    ])
  func suspicionTimeout(multiplier: Int, nodeCount: Int, expectedMilliseconds: UInt64) {
    let timeout = Formulas.suspicionTimeoutNanoseconds(
      multiplier: multiplier, nodeCount: nodeCount, probeIntervalNanoseconds: second)
    #expect(timeout == expectedMilliseconds * millisecond)
  }

  // memberlist's own table: minimum 2 s, maximum 30 s, 3 expected confirmations.
  @Test(
    "Confirmations shorten a suspicion logarithmically",
    arguments: [(0, 30_000), (1, 16_000), (2, 7_810), (3, 2_000), (9, 2_000)])
  func suspicionDuration(confirmations: Int, expectedMilliseconds: UInt64) {
    let duration = Formulas.suspicionDurationNanoseconds(
      confirmations: confirmations, expectedConfirmations: 3, minimumNanoseconds: 2 * second,
      maximumNanoseconds: 30 * second)
    #expect(duration == expectedMilliseconds * millisecond)
  }

  @Test("Without expected confirmations the minimum holds at once")
  func suspicionDurationInATinyCluster() {
    let duration = Formulas.suspicionDurationNanoseconds(
      confirmations: 0, expectedConfirmations: 0, minimumNanoseconds: 2 * second, maximumNanoseconds: 30 * second)
    #expect(duration == 2 * second)
  }

  @Test(
    "Full exchanges become rarer by one interval for each doubling beyond 32 members",
    arguments: [(0, 1), (1, 1), (32, 1), (33, 2), (64, 2), (65, 3), (128, 3), (129, 4), (1024, 6), (1025, 7)])
  func pushPullInterval(nodeCount: Int, expectedFactor: UInt64) {
    let interval = Formulas.pushPullIntervalNanoseconds(baseNanoseconds: second, nodeCount: nodeCount)
    #expect(interval == expectedFactor * second)
  }

  @Test("Local health is clamped and scales the interval by score + 1")
  func localHealth() {
    var health = LocalHealth(maximumMultiplier: 8)
    #expect(health.scale(second) == second)
    health.apply(-1)
    #expect(health.score == 0)
    health.apply(3)
    #expect(health.score == 3)
    #expect(health.scale(second) == 4 * second)
    health.apply(.max)
    #expect(health.score == 7)
    health.apply(.min)
    #expect(health.score == 0)
    #expect(LocalHealth(maximumMultiplier: 0).maximumScore == 0)
  }
}

@Suite("Suspicions")
struct SuspicionTests {
  private func suspicion(expected: Int) -> Suspicion {
    Suspicion(
      number: 1, accuser: "a", startNanoseconds: 10 * second, expectedConfirmations: expected,
      minimumNanoseconds: 2 * second, maximumNanoseconds: 30 * second)
  }

  @Test("Each accuser counts once, the first one not at all")
  func independence() {
    var suspicion = suspicion(expected: 2)
    #expect(suspicion.deadlineNanoseconds == 40 * second)
    let confirmed = ["a", "b", "b"].map { suspicion.confirm(from: $0) }
    #expect(confirmed == [false, true, false])
    let afterOne = suspicion.deadlineNanoseconds
    #expect(afterOne < 40 * second && afterOne > 12 * second)
    let isThirdNew = suspicion.confirm(from: "c")
    #expect(isThirdNew)
    #expect(suspicion.deadlineNanoseconds == 12 * second)
    let isBeyondNew = suspicion.confirm(from: "d")
    #expect(!isBeyondNew)
    #expect(suspicion.confirmations == 2)
  }

  @Test("The deadline never grows as confirmations arrive", arguments: 1...6)
  func monotone(expected: Int) {
    var suspicion = suspicion(expected: expected)
    var deadline = suspicion.deadlineNanoseconds
    for accuser in 0..<10 {
      _ = suspicion.confirm(from: NodeName("accuser\(accuser)"))
      #expect(suspicion.deadlineNanoseconds <= deadline)
      deadline = suspicion.deadlineNanoseconds
    }
    #expect(deadline == 12 * second)
  }
}

@Suite("Deadlines, the member table and small stores")
struct MembershipPartsTests {
  @Test("Deadlines leave by time, and by arrival within one instant")
  func deadlineOrder() {
    var random = GossipRandom(seed: 7)
    var queue = DeadlineQueue()
    for identifier in 0..<500 {
      queue.add(.suspicion, identifier: UInt64(identifier), atNanoseconds: random.below(UInt64(40)))
    }
    let first = queue.takeDue(nowNanoseconds: 0)
    #expect(first?.timeNanoseconds == 0)
    var previous: (UInt64, UInt64) = (0, 0)
    var taken = 0
    while let due = queue.takeDue(nowNanoseconds: 39) {
      #expect((due.timeNanoseconds, due.order) >= previous)
      previous = (due.timeNanoseconds, due.order)
      taken += 1
    }
    #expect(taken == 499)
    #expect(queue.earliestNanoseconds == .max)
  }

  @Test("A random choice finds every eligible member of a small table, and never one twice")
  func choice() {
    var random = GossipRandom(seed: 3)
    var table = MemberTable()
    for number in 0..<8 {
      _ = table.insert(record(named: NodeName("n\(number)")), random: &random)
    }
    var chosen: [Int] = []
    for _ in 0..<200 {
      table.choose(3, random: &random, into: &chosen) { _, record in record.name != "n0" }
      #expect(chosen.count == 3)
      #expect(Set(chosen).count == 3)
      #expect(!chosen.contains(where: { table[$0].name == "n0" }))
      table.choose(5, random: &random, into: &chosen) { slot, _ in slot == 2 }
      #expect(chosen == [2])
    }
  }

  @Test("A reaped member's slot is reused and its name forgotten")
  func reaping() {
    var random = GossipRandom(seed: 3)
    var table = MemberTable()
    let first = table.insert(record(named: "a"), random: &random)
    _ = table.insert(record(named: "b"), random: &random)
    table.reap(random: &random) { record in record.name == "a" }
    #expect(table.slot(of: "a") == nil)
    #expect(table.count == 1)
    #expect(!table.isMember("a", inSlot: first))
    #expect(table.insert(record(named: "c"), random: &random) == first)
    #expect(table.isMember("c", inSlot: first))
  }

  private func record(named name: NodeName) -> MemberRecord {
    MemberRecord(
      name: name, address: MembershipHarness.address, metadata: [], isEmptyMetadataNil: true,
      versions: ProtocolVersions(), incarnation: 1, state: .alive, stateChangeNanoseconds: 0)
  }

  @Test("A broadcast's identity survives the wire, and plain messages have none")
  func identity() {
    let identity = BroadcastIdentity(origin: 0x0102_0304_0506_0708, sequence: 0xA0B0_C0D0)
    var bytes: [UInt8] = []
    identity.append(to: &bytes)
    #expect(bytes.count == BroadcastIdentity.encodedSizeBytes)
    #expect(BroadcastIdentity(startOf: bytes + [1, 2, 3]) == identity)
    #expect(BroadcastIdentity(startOf: bytes.dropLast()) == nil)
    #expect(BroadcastIdentity(startOf: [3, 0x85, 0xA4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]) == nil)
  }

  @Test("Identities are remembered up to the capacity, oldest forgotten first")
  func seen() {
    var seen = SeenBroadcasts(capacity: 100)
    for sequence in 1...250 as ClosedRange<UInt32> {
      let first = seen.insert(BroadcastIdentity(origin: 1, sequence: sequence))
      let second = seen.insert(BroadcastIdentity(origin: 1, sequence: sequence))
      #expect(first && !second)
    }
    #expect(seen.count == 100)
    let isOldestKeptNew = seen.insert(BroadcastIdentity(origin: 1, sequence: 151))
    let isForgottenNew = seen.insert(BroadcastIdentity(origin: 1, sequence: 150))
    #expect(!isOldestKeptNew && isForgottenNew)
  }

  @Test("Lost peers are remembered within bounds of number and age")
  func remembered() {
    var peers = RememberedPeers(capacity: 3)
    for number in 1...5 as ClosedRange<UInt8> {
      peers.remember(
        NodeName("p\(number)"), address: MembershipHarness.peerAddress(number), nowNanoseconds: UInt64(number))
    }
    #expect(peers.peers.map(\.name) == ["p3", "p4", "p5"])
    peers.forgetOlder(thanNanoseconds: 6, nowNanoseconds: 10)
    #expect(peers.peers.map(\.name) == ["p4", "p5"])
    peers.forget("p4")
    #expect(peers.peers.map(\.name) == ["p5"])
  }
}
