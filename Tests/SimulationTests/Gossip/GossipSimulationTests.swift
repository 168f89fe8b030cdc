import Foundation
import Gossip
import TestSupport
import Testing

@testable import Simulation

private let second: UInt64 = 1_000_000_000

/// Whether the long forms run too.
private let isLong = ProcessInfo.processInfo.environment["WEIR_LONG_TESTS"] == "1"

/// The trace of a cluster that has known loss, duplication, a death, a pause and a broadcast.
func gossipTrace(seed: UInt64) throws -> UInt64 {
  var configuration = GossipSimulation.Configuration(nodeCount: 24, seed: seed)
  configuration.network = .losing(percent: 10)
  configuration.network.duplicatePerMillion = 50_000
  configuration.network.slowPerMillion = 20_000
  var simulation = try GossipSimulation(configuration)
  simulation.joinAll()
  simulation.run(forNanoseconds: 20 * second)
  simulation.crash(3)
  simulation.pause(5, nanoseconds: 4 * second)
  try simulation.broadcast([1, 2, 3], from: 7)
  simulation.run(forNanoseconds: 60 * second)
  return simulation.trace.value
}

@Suite("Gossip in virtual time", .disabled(if: Sanitizers.isThreadSanitized, "\(Sanitizers.oneThreadReason)"))
struct GossipSimulationTests {
  private func cluster(
    _ nodeCount: Int, seed: UInt64, network: GossipNetwork = .calm,
    configure: (inout GossipSimulation.Configuration) -> Void = { _ in }
  ) throws -> GossipSimulation {
    var configuration = GossipSimulation.Configuration(nodeCount: nodeCount, seed: seed)
    configuration.network = network
    configure(&configuration)
    return try GossipSimulation(configuration)
  }

  @Test("The same seed gives the same trace, another seed another one")
  func determinism() throws {
    #expect(try gossipTrace(seed: 11) == gossipTrace(seed: 11))
    #expect(try gossipTrace(seed: 11) != gossipTrace(seed: 12))
  }

  @Test("Members that join one after the other all come to know each other", arguments: [2, 5, 40])
  func joining(nodeCount: Int) throws {
    var simulation = try cluster(nodeCount, seed: 5)
    for index in 1..<nodeCount {
      simulation.join(index, through: index / 2)
      simulation.run(forNanoseconds: second / 4)
    }
    simulation.run(forNanoseconds: 60 * second)
    for index in 0..<nodeCount { #expect(simulation.memberCount(seenBy: index) == nodeCount) }
  }

  @Test("Sealed, encrypted and labelled packets carry the same protocol")
  func sealing() throws {
    for kind in 0..<3 {
      var simulation = try cluster(12, seed: 5, network: .losing(percent: 5)) { configuration in
        if kind == 1 { configuration.wire.label = Array("cacheA".utf8) }
        if kind == 2 { configuration.wire.keyring = try? Keyring(primary: Array(0..<16)) }
      }
      simulation.joinAll()
      simulation.run(forNanoseconds: 20 * second)
      try simulation.leave(3)
      simulation.crash(4)
      simulation.run(forNanoseconds: 60 * second)
      for observer in [0, 1, 2, 5, 11] { #expect(simulation.memberCount(seenBy: observer) == 10) }
      #expect(simulation.log.contains { $0.kind == .left && $0.subject == 3 })
      #expect(simulation.log.contains { $0.kind == .died && $0.subject == 4 })
      #expect(!simulation.log.contains { $0.kind == .died && $0.subject != 4 })
    }
  }

  // Random faults, then quiet: everybody that lives is known to everybody, and nobody that is dead.
  @Test("Whatever happened, a quiet cluster agrees", arguments: 0..<(isLong ? 200 : 20))
  func convergenceAfterFaults(seed: Int) throws {
    var random = RandomStream(seed: UInt64(seed), purpose: .faults)
    let nodeCount = random.between(3, 24)
    var network = GossipNetwork.losing(percent: random.below(20))
    network.duplicatePerMillion = random.below(200_000)
    network.slowPerMillion = random.below(100_000)
    var simulation = try cluster(nodeCount, seed: UInt64(seed), network: network)
    simulation.joinAll()
    var crashed: Set<Int> = []
    for _ in 0..<12 {
      simulation.run(forNanoseconds: UInt64(random.between(1, 15)) * second)
      switch random.below(5) {
      case 0 where crashed.count < nodeCount - 2:
        let victim = random.below(nodeCount)
        crashed.insert(victim)
        simulation.crash(victim)
      case 1: simulation.pause(random.below(nodeCount), nanoseconds: UInt64(random.between(1, 40)) * second)
      case 2:
        let groups = (0..<nodeCount).map { _ in random.below(2) }
        simulation.partition(groups)
      case 3: simulation.heal()
      default: try simulation.broadcast([UInt8(truncatingIfNeeded: seed)], from: random.below(nodeCount))
      }
    }
    simulation.heal()
    // A partition may have lasted a minute: rejoining comes every half to one and a half intervals of 30 s.
    simulation.run(forNanoseconds: 600 * second)
    let living = (0..<nodeCount).filter { !crashed.contains($0) }
    for observer in living {
      #expect(simulation.memberCount(seenBy: observer) == living.count, "seed \(seed), member \(observer)")
      for subject in living { #expect(simulation.state(of: subject, seenBy: observer) != .dead) }
    }
  }

  @Test("A partition of hours heals without help, and does not where rejoining is off")
  func longPartition() throws {
    for rejoins in [true, false] {
      var simulation = try cluster(20, seed: 3) {
        $0.sealsPackets = false
        if !rejoins { $0.membership.rejoinIntervalNanoseconds = 0 }
      }
      simulation.joinAll()
      simulation.run(forNanoseconds: 60 * second)
      simulation.partition((0..<20).map { $0 % 2 })
      simulation.run(forNanoseconds: 2 * 3600 * second)
      for index in 0..<20 { #expect(simulation.memberCount(seenBy: index) == 10) }
      simulation.heal()
      simulation.run(forNanoseconds: 180 * second)
      for index in 0..<20 { #expect(simulation.memberCount(seenBy: index) == (rejoins ? 20 : 10)) }
    }
  }

  // Everybody restarts at once and remembers nothing; a member that was cut off remembers everything of before.
  @Test("Members restarted together are not held dead by the memory of a former life")
  func massRestart() throws {
    for start in [0, 1_700_000_000] as [UInt32] {
      var random = GossipRandom(seed: 1)
      var configuration = MembershipConfiguration.lan
      configuration.startIncarnation = start
      var reborn = try Membership(
        name: "x", address: GossipSimulation.address(1), configuration: configuration, seed: random.next(),
        nowNanoseconds: 0)
      var witness = try Membership(
        name: "w", address: GossipSimulation.address(2), configuration: .lan, seed: random.next(), nowNanoseconds: 0)
      let former = PushPullNodeState(
        name: "x", address: GossipSimulation.address(1), incarnation: 6, state: .alive)
      witness.mergeRemoteState(PushPull(isJoin: true, nodes: [former]), nowNanoseconds: 0)
      witness.receive(
        .dead(Dead(incarnation: 6, node: "x", from: "y")), from: GossipSimulation.address(3), nowNanoseconds: 1)
      witness.mergeRemoteState(reborn.localState(isJoin: true), nowNanoseconds: 2)
      #expect(witness.member(named: "x")?.state == (start == 0 ? .dead : .alive))
      reborn.clearOutbox()
    }
  }
}

@Suite("Figures of gossip, short form", .disabled(if: Sanitizers.isThreadSanitized, "\(Sanitizers.oneThreadReason)"))
struct GossipExperimentTests {
  @Test("A dead member is suspected within two probe periods on average, and soon everybody knows")
  func detection() throws {
    let figures = try GossipExperiments.detection(nodeCount: 32, trials: isLong ? 400 : 40, seed: 1)
    #expect(figures.firstSuspicion.count == figures.trials)
    #expect(figures.allKnow.count == figures.trials)
    // One period until somebody's turn comes, and one until its probe has failed; the tolerance is that of so few trials.
    #expect(figures.firstSuspicion.mean < 2.5)
    // Nobody's turn comes for t periods with probability e^-t: one trial in fifty takes more than five in all, and the
    // slowest of few trials says nothing.
    #expect(figures.firstSuspicion.percentile(90) < 5)
    // 4 × log10(32) periods of suspicion at least, twice that with late confirmations.
    #expect(figures.firstDeath.mean < 12)
    #expect(figures.allKnow.mean - figures.firstDeath.mean < 3)
  }

  @Test("What a member sends does not grow with the cluster")
  func traffic() throws {
    let small = try GossipExperiments.traffic(nodeCount: 8, periods: 60, seed: 2)
    let large = try GossipExperiments.traffic(nodeCount: isLong ? 256 : 96, periods: 60, seed: 2)
    #expect(abs(small.packets - 2) < 0.1)
    #expect(abs(large.packets - 2) < 0.1)
    #expect(large.packetBytes < small.packetBytes * 1.1)
  }

  @Test("Five percent of loss kill nobody")
  func endurance() throws {
    let figures = try GossipExperiments.endurance(
      nodeCount: 128, lossPercent: 5, virtualMinutes: isLong ? 24 * 60 : 10, seed: 3)
    #expect(figures.falseDeaths == 0)
    #expect(figures.packets > 100_000)
  }

  @Test("Lifeguard keeps slow members from killing healthy ones")
  func slowMembers() throws {
    let minutes = isLong ? 60 : 5
    let plain = try GossipExperiments.slowMembers(
      nodeCount: 64, usesLifeguard: false, pauseSeconds: 5, virtualMinutes: minutes, seed: 4)
    let guarded = try GossipExperiments.slowMembers(
      nodeCount: 64, usesLifeguard: true, pauseSeconds: 5, virtualMinutes: minutes, seed: 4)
    #expect(plain.falsePositives > 0)
    #expect(guarded.falsePositives * 20 <= plain.falsePositives)
  }

  // Nine is where memberlist's own count of transmissions is lowest for the members there are: of its broadcasts one in
  // ten misses somebody.
  @Test("A broadcast reaches everybody within the logarithmic bound", arguments: [5, 9, isLong ? 256 : 64])
  func convergence(nodeCount: Int) throws {
    let figures = try GossipExperiments.convergence(nodeCount: nodeCount, trials: 20, seed: 5)
    #expect(figures.complete == figures.trials)
    #expect(figures.rounds.mean <= Double(figures.bound))
  }
}
