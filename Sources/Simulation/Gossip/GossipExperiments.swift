import Gossip

/// The measurements that tell how good the failure detector and the dissemination are. Each is a function of its seed.
public enum GossipExperiments {
  static let second: UInt64 = 1_000_000_000

  /// A cluster whose members know each other and have nothing left to tell.
  static func settledCluster(
    nodeCount: Int, seed: UInt64, network: GossipNetwork = .calm,
    configure: (inout GossipSimulation.Configuration) -> Void = { _ in }
  ) throws -> GossipSimulation {
    var configuration = GossipSimulation.Configuration(nodeCount: nodeCount, seed: seed)
    configuration.network = network
    configure(&configuration)
    var simulation = try GossipSimulation(configuration)
    simulation.joinAll()
    // Every member has announced every other to every other: that much news takes a while to be sent.
    simulation.run(forNanoseconds: 60 * second)
    simulation.resetMeasurements()
    return simulation
  }

  // MARK: Detection

  /// How soon the death of a member is noticed, in probe periods after it.
  public struct Detection: Sendable {
    public var nodeCount: Int
    public var trials: Int
    /// Until the first member's probe has failed and it is suspected.
    public var firstSuspicion: Distribution
    /// Until the first member declares it dead.
    public var firstDeath: Distribution
    /// Until every other member knows it dead.
    public var allKnow: Distribution
  }

  /// Kills random members of settled clusters, one at a time, each long after the one before. A cluster loses an eighth of its
  /// members before a new one takes its place.
  public static func detection(nodeCount: Int, trials: Int, seed: UInt64) throws -> Detection {
    var result = Detection(
      nodeCount: nodeCount, trials: trials, firstSuspicion: Distribution(), firstDeath: Distribution(),
      allKnow: Distribution())
    let deathsPerCluster = max(1, nodeCount / 8)
    var cluster: UInt64 = 0
    var trialsLeft = trials
    while trialsLeft > 0 {
      var simulation = try settledCluster(nodeCount: nodeCount, seed: seed &+ cluster &* 7919)
      var random = RandomStream(seed: seed, purpose: .faults, instance: cluster)
      cluster += 1
      let victims = random.subset(of: nodeCount, count: min(trialsLeft, deathsPerCluster))
      for (position, victim) in victims.enumerated() {
        simulation.run(forNanoseconds: 10 * second + UInt64(random.below(Int(second))))
        kill(victim, in: &simulation, survivors: nodeCount - position - 1, &result)
      }
      trialsLeft -= victims.count
    }
    return result
  }

  private static func kill(
    _ victim: Int, in simulation: inout GossipSimulation, survivors: Int, _ result: inout Detection
  ) {
    let start = simulation.now
    let period = Double(simulation.configuration.membership.probeIntervalNanoseconds)
    simulation.resetMeasurements()
    simulation.crash(victim)
    var read = 0
    var knowing = 0
    var isSuspected = false
    simulation.run(untilNanoseconds: start + 300 * second) { simulation in
      while read < simulation.log.count {
        let entry = simulation.log[read]
        read += 1
        guard entry.subject == victim else { continue }
        let periods = Double(entry.timeNanoseconds - start) / period
        if entry.kind == .suspected, !isSuspected {
          isSuspected = true
          result.firstSuspicion.add(periods)
        }
        guard entry.kind == .died else { continue }
        knowing += 1
        if knowing == 1 { result.firstDeath.add(periods) }
        if knowing == survivors { result.allKnow.add(periods) }
      }
      return knowing == survivors
    }
  }

  // MARK: Traffic

  /// What a quiet cluster costs, for each member and probe period.
  public struct Traffic: Sendable {
    public var nodeCount: Int
    public var packets: Double
    public var messages: Double
    public var packetBytes: Double
    /// Bytes of the state exchanges, which grow with the number of members.
    public var streamBytes: Double
  }

  /// Counts what the members of a quiet cluster send over so many periods.
  public static func traffic(nodeCount: Int, periods: Int, seed: UInt64) throws -> Traffic {
    var simulation = try settledCluster(nodeCount: nodeCount, seed: seed)
    let period = simulation.configuration.membership.probeIntervalNanoseconds
    simulation.run(forNanoseconds: UInt64(periods) * period)
    let share = Double(nodeCount * periods)
    let traffic = simulation.traffic
    return Traffic(
      nodeCount: nodeCount, packets: Double(traffic.packets) / share, messages: Double(traffic.messages) / share,
      packetBytes: Double(traffic.packetBytes) / share, streamBytes: Double(traffic.streamBytes) / share)
  }

  // MARK: False deaths

  /// What packet loss does to healthy members.
  public struct Endurance: Sendable {
    public var nodeCount: Int
    public var lossPercent: Int
    public var virtualHours: Double
    /// Probes that failed although the target was well.
    public var suspicions: Int
    /// Accusations answered in time.
    public var refutations: Int
    /// Members declared dead by somebody: all false, as nobody dies here.
    public var falseDeaths: Int
    public var packets: Int
    public var events: Int
  }

  /// Runs a healthy cluster over a network that loses packets.
  public static func endurance(nodeCount: Int, lossPercent: Int, virtualMinutes: Int, seed: UInt64) throws -> Endurance
  {
    var simulation = try settledCluster(nodeCount: nodeCount, seed: seed, network: .losing(percent: lossPercent)) {
      $0.sealsPackets = false
    }
    let firstEvent = simulation.eventCount
    var result = Endurance(
      nodeCount: nodeCount, lossPercent: lossPercent, virtualHours: Double(virtualMinutes) / 60, suspicions: 0,
      refutations: 0, falseDeaths: 0, packets: 0, events: 0)
    for _ in 0..<virtualMinutes {
      simulation.run(forNanoseconds: 60 * second)
      for entry in simulation.log {
        switch entry.kind {
        case .suspected: result.suspicions += 1
        case .refuted: result.refutations += 1
        case .declaredDead: result.falseDeaths += 1
        case .died, .left, .joined, .updated, .delivered: break
        }
      }
      result.packets += simulation.traffic.packets
      simulation.resetMeasurements()
    }
    result.events = simulation.eventCount - firstEvent
    return result
  }

  // MARK: Slow members

  /// What members whose network stands still again and again do to the healthy ones.
  public struct SlowMembers: Sendable {
    public var nodeCount: Int
    public var slowCount: Int
    public var usesLifeguard: Bool
    public var virtualMinutes: Double
    /// Times a member, slow or not, came to hold a healthy member dead.
    public var falsePositives: Int
    /// Those of them at healthy members: the rumour spread.
    public var falsePositivesAtHealthy: Int
    /// Times a healthy member came to hold a slow one dead.
    public var slowDeclaredDead: Int
  }

  /// Stalls a tenth of the members for `pauseSeconds` at a time, with short random times between.
  public static func slowMembers(
    nodeCount: Int, usesLifeguard: Bool, pauseSeconds: Int, virtualMinutes: Int, seed: UInt64
  ) throws -> SlowMembers {
    var simulation = try settledCluster(nodeCount: nodeCount, seed: seed) {
      $0.sealsPackets = false
      $0.membership.usesLifeguard = usesLifeguard
    }
    var random = RandomStream(seed: seed, purpose: .faults)
    let slow = random.subset(of: nodeCount, count: max(1, nodeCount / 10))
    var isSlow = Array(repeating: false, count: nodeCount)
    for index in slow { isSlow[index] = true }
    var nextPause = slow.map { _ in simulation.now + UInt64(random.below(Int(second))) }
    let end = simulation.now + UInt64(virtualMinutes) * 60 * second
    while simulation.now < end {
      guard let turn = nextPause.indices.min(by: { (nextPause[$0], $0) < (nextPause[$1], $1) }) else { break }
      simulation.run(untilNanoseconds: min(end, nextPause[turn])) { _ in false }
      simulation.stall(slow[turn], nanoseconds: UInt64(pauseSeconds) * second)
      // Awake for between 10 ms and 2 s: enough to send what is overdue, often too little to hear the answers.
      let awake = UInt64(random.between(10_000_000, 2_000_000_000))
      nextPause[turn] = simulation.now + UInt64(pauseSeconds) * second + awake
    }
    var result = SlowMembers(
      nodeCount: nodeCount, slowCount: slow.count, usesLifeguard: usesLifeguard,
      virtualMinutes: Double(virtualMinutes), falsePositives: 0, falsePositivesAtHealthy: 0, slowDeclaredDead: 0)
    for entry in simulation.log where entry.kind == .died {
      if isSlow[entry.subject] {
        result.slowDeclaredDead += isSlow[entry.observer] ? 0 : 1
      } else {
        result.falsePositives += 1
        result.falsePositivesAtHealthy += isSlow[entry.observer] ? 0 : 1
      }
    }
    return result
  }

  // MARK: Broadcasts

  /// How fast a user broadcast reaches everybody, in gossip rounds.
  public struct Convergence: Sendable {
    public var nodeCount: Int
    public var rounds: Distribution
    /// Rumour spreading by pushing to `f` members each round needs about `log(n)/log(1+f) + ln(n)/f` rounds (Pittel 1987,
    /// for f = 1); this is that, rounded up, and one for the members' beats not coinciding.
    public var bound: Int
    /// How many of the broadcasts reached everybody.
    public var complete: Int
    public var trials: Int
    /// Copies received beyond the first, for each member and broadcast.
    public var duplicatesPerMember: Double
  }

  /// Broadcasts from a random member of a settled cluster, over and over.
  public static func convergence(nodeCount: Int, trials: Int, lossPercent: Int = 0, seed: UInt64) throws -> Convergence
  {
    var simulation = try settledCluster(
      nodeCount: nodeCount, seed: seed, network: .losing(percent: lossPercent))
    let settings = simulation.configuration.membership
    let interval = Double(settings.gossipIntervalNanoseconds)
    var random = RandomStream(seed: seed, purpose: .workload)
    var rounds = Distribution()
    var complete = 0
    let duplicatesBefore = duplicates(simulation, nodeCount)
    for _ in 0..<trials {
      let sender = random.below(nodeCount)
      simulation.resetMeasurements()
      let start = simulation.now
      try simulation.broadcast(Array(repeating: 0xB0, count: 64), from: sender)
      simulation.run(forNanoseconds: 15 * second)
      let deliveries = simulation.log.filter { $0.kind == .delivered }
      if deliveries.count == nodeCount - 1, let last = deliveries.last {
        complete += 1
        rounds.add(Double(last.timeNanoseconds - start) / interval)
      }
    }
    return Convergence(
      nodeCount: nodeCount, rounds: rounds, bound: logBound(nodeCount: nodeCount, fanout: settings.gossipNodes),
      complete: complete, trials: trials,
      duplicatesPerMember: Double(duplicates(simulation, nodeCount) - duplicatesBefore)
        / Double(max(1, nodeCount * trials)))
  }

  private static func duplicates(_ simulation: borrowing GossipSimulation, _ nodeCount: Int) -> Int {
    (0..<nodeCount).reduce(0) { $0 + simulation.counters(of: $1).userBroadcastDuplicates }
  }

  static func logBound(nodeCount: Int, fanout: Int) -> Int {
    let fanout = max(1, fanout)
    let n = Double(max(1, nodeCount))
    let bound =
      NaturalLogarithm.of(n) / NaturalLogarithm.of(1 + Double(fanout)) + NaturalLogarithm.of(n) / Double(fanout)
    return Int(bound.rounded(.up)) + 1
  }
}
