@_spi(Testing) import Raft
import WeirCore

/// What a run of the lease test does to its cluster.
struct LeaseScenario {
  var seed: UInt64
  /// How much faster or slower than real time each node's clock may run.
  var clockRates: ClosedRange<Double>
  var bugs: PlantedBugs = []
}

/// Three nodes with clocks of their own, in virtual time, of which the leader is cut off at some moment while it goes on
/// to serve lease reads. Voters restart, pause with ticks to catch up on, and leadership is handed over in between.
struct LeaseSimulation {
  private struct Node {
    var box: Box
    var rate: Double
    var offset: UInt64
    var nextTick: UInt64
    var pausedUntil: UInt64 = 0
    var isCutOff = false
    /// Hears others and is not heard.
    var isMuted = false
  }

  private final class Box {
    var raw: RawNode
    var ready = Ready()
    init(_ raw: consuming RawNode) { self.raw = raw }
  }

  private struct Delivery {
    var time: UInt64
    var message: Message
  }

  static let tick: UInt64 = 10_000_000
  private let scenario: LeaseScenario
  private var random: SplitMix64
  private var nodes: [Node] = []
  private var deliveries: [Delivery] = []
  private var cutLink: (Int, Int)?
  private var now: UInt64 = 1_000_000_000
  private(set) var leaseReads = 0
  private(set) var staleReads = 0
  private(set) var elections = 0

  init(_ scenario: LeaseScenario) throws {
    self.scenario = scenario
    random = SplitMix64(seed: scenario.seed)
    for id in 1...3 {
      let rate = Double.random(in: scenario.clockRates, using: &random)
      nodes.append(
        Node(
          box: Box(try Self.node(NodeID(id), seed: scenario.seed, log: LogBuffer(), hardState: HardState())),
          rate: rate, offset: UInt64.random(in: 0..<1 << 40, using: &random),
          nextTick: now + UInt64.random(in: 0..<Self.tick, using: &random)))
      nodes[id - 1].box.raw.plantedBugs = scenario.bugs
    }
  }

  private static func node(
    _ id: NodeID, seed: UInt64, log: consuming LogBuffer, hardState: HardState
  ) throws -> RawNode {
    var configuration = RaftConfiguration(id: id, electionTicks: 5, heartbeatTicks: 1)
    configuration.checkQuorum = true
    configuration.preVote = seed % 2 == 0
    configuration.readMode = .leaseBased
    configuration.tickNanoseconds = tick
    configuration.leaseDriftBoundNanoseconds = tick / 2
    configuration.refuseVotesWithinLease = true
    configuration.refuseVotesAfterStart = true
    configuration.randomSeed = seed &* 31 &+ id
    return try RawNode(
      configuration: configuration, log: log, hardState: hardState,
      configurationState: ConfigurationState(voters: [1, 2, 3]))
  }

  private func clock(_ position: Int, at time: UInt64) -> UInt64 {
    nodes[position].offset + UInt64(Double(time) * nodes[position].rate)
  }

  /// Lets a leader that the seed chooses get a lease, disturbs it at a random phase, and goes on for some election timeouts.
  mutating func run() throws {
    try advance(ticks: 40)
    try handOver(to: NodeID.random(in: 1...3, using: &random))
    try advance(ticks: 15, extra: UInt64.random(in: 0..<Self.tick, using: &random))
    if scenario.seed % 5 == 0 {
      nodes[Int.random(in: 0..<3, using: &random)].pausedUntil =
        now + UInt64.random(in: 1..<8, using: &random) * Self.tick
    }
    if let leader = nodes.firstIndex(where: { $0.box.raw.role == .leader }) { try disturb(leader) }
    try advance(ticks: 25)
    for position in nodes.indices { (nodes[position].isCutOff, nodes[position].isMuted) = (false, false) }
    cutLink = nil
    try advance(ticks: 15)
  }

  private mutating func handOver(to target: NodeID) throws {
    guard let leader = nodes.firstIndex(where: { $0.box.raw.role == .leader }) else { return }
    prepare(leader)
    nodes[leader].box.raw.transferLeadership(to: target)
    try drain(leader)
  }

  /// Cuts the leader off, alone or while it hands over; or cuts only one link, so that one follower campaigns while the
  /// other still follows; then that one restarts, or hears no more while its answers still arrive.
  private mutating func disturb(_ leader: Int) throws {
    let (cut, other) = ((leader + 1) % 3, (leader + 2) % 3)
    switch scenario.seed % 4 {
    case 0:
      nodes[leader].isCutOff = true
    case 1:
      try handOver(to: NodeID(other + 1))
      nodes[leader].isCutOff = true
    default:
      cutLink = (leader, cut)
      try advance(
        ticks: UInt64.random(in: 4..<16, using: &random), extra: UInt64.random(in: 0..<Self.tick, using: &random))
      if scenario.seed % 4 == 3 { try restart(other) } else { nodes[leader].isMuted = true }
    }
  }

  private mutating func restart(_ position: Int) throws {
    let old = nodes[position].box
    guard old.raw.role == .follower else { return }
    var log = LogBuffer()
    if old.raw.lastIndex > 0 { log.append(old.raw.entries(from: 1, through: old.raw.lastIndex), from: 1) }
    nodes[position].box = Box(
      try Self.node(NodeID(position + 1), seed: scenario.seed &+ 7, log: log, hardState: old.raw.hardState))
    nodes[position].box.raw.plantedBugs = scenario.bugs
  }

  private mutating func advance(ticks: UInt64, extra: UInt64 = 0) throws {
    let end = now + ticks * Self.tick + extra
    while true {
      var next = end
      for node in nodes { next = min(next, max(node.nextTick, node.pausedUntil)) }
      for delivery in deliveries { next = min(next, max(delivery.time, pause(of: delivery.message.to))) }
      guard next < end else { break }
      now = max(now, next)
      try deliverDue()
      try tickDue()
      countReads()
    }
    now = end
  }

  private func pause(of id: NodeID) -> UInt64 { nodes[Int(id) - 1].pausedUntil }

  private mutating func tickDue() throws {
    for position in nodes.indices where nodes[position].nextTick <= now && nodes[position].pausedUntil <= now {
      prepare(position)
      nodes[position].box.raw.tick()
      // With a link cut nobody writes: the follower behind it could not win with a shorter log.
      if nodes[position].box.raw.role == .leader, cutLink == nil {
        try? nodes[position].box.raw.propose(payload: [UInt8(position)].span.bytes)
      }
      // After a pause the ticks that were missed come all at once.
      nodes[position].nextTick += UInt64(Double(Self.tick) / nodes[position].rate)
      try drain(position)
    }
  }

  private mutating func deliverDue() throws {
    let due = deliveries.filter { $0.time <= now && pause(of: $0.message.to) <= now }
    if !due.isEmpty { deliveries = deliveries.filter { $0.time > now || pause(of: $0.message.to) > now } }
    for delivery in due {
      let (from, to) = (Int(delivery.message.from) - 1, Int(delivery.message.to) - 1)
      if nodes[to].isCutOff || isCut(from, to) { continue }
      prepare(to)
      try? nodes[to].box.raw.step(delivery.message)
      try drain(to)
    }
  }

  private func isCut(_ a: Int, _ b: Int) -> Bool {
    guard let cutLink else { return false }
    return (a, b) == cutLink || (b, a) == cutLink
  }

  private mutating func prepare(_ position: Int) {
    nodes[position].box.raw.nowNanoseconds = clock(position, at: now)
  }

  private mutating func drain(_ position: Int) throws {
    let box = nodes[position].box
    while box.raw.hasReady {
      box.raw.ready(into: &box.ready)
      for message in box.ready.messages where !nodes[position].isCutOff && !nodes[position].isMuted {
        // One in ten is late by up to four ticks.
        let most: UInt64 = UInt64.random(in: 0..<10, using: &random) == 0 ? 4 * Self.tick : Self.tick / 4
        let delay = UInt64.random(in: 100_000..<most, using: &random)
        deliveries.append(Delivery(time: now + delay, message: message))
      }
      if box.ready.softState?.role == .leader { elections += 1 }
      box.raw.advance(box.ready)
    }
  }

  /// Whoever holds a lease now would answer a read: with less than is committed, it would be stale.
  private mutating func countReads() {
    let committed = nodes.map { $0.box.raw.commit }.max() ?? 0
    for position in nodes.indices where nodes[position].pausedUntil <= now {
      guard nodes[position].box.raw.holdsLease(at: clock(position, at: now)) else { continue }
      leaseReads += 1
      if nodes[position].box.raw.commit < committed { staleReads += 1 }
    }
  }
}
