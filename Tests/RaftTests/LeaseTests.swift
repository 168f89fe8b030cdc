@_spi(Testing) import Raft
import TestSupport
import Testing
import WeirCore

@Suite(.disabled(if: Sanitizers.isThreadSanitized, "\(Sanitizers.oneThreadReason)")) struct LeaseTests {
  /// Within the bound: the lease of 45 ms, measured by a clock 4 % slow, lasts 46.9 ms; a promise of 50 ms, measured by one
  /// 4 % fast, 48.1 ms.
  @Test func noStaleReadWithinTheDriftBound() throws {
    var reads = 0
    var elections = 0
    for seed in UInt64(1)...2400 {
      var simulation = try LeaseSimulation(LeaseScenario(seed: seed, clockRates: 0.96...1.04))
      try simulation.run()
      #expect(simulation.staleReads == 0, "seed \(seed)")
      reads += simulation.leaseReads
      elections += simulation.elections
    }
    print("Lease: 2400 partitions, \(reads) lease reads, \(elections) elections, 0 stale")
    // The runs must be about something: leases were held, and other leaders came.
    #expect(reads > 2400 * 50)
    #expect(elections > 2400 * 3 / 2)
  }

  @Test func staleReadsBeyondTheDriftBound() throws {
    var stale = 0
    for seed in UInt64(1)...400 {
      var simulation = try LeaseSimulation(LeaseScenario(seed: seed, clockRates: 0.3...2.5))
      try simulation.run()
      if simulation.staleReads > 0 { stale += 1 }
    }
    #expect(stale > 0, "clocks that differ by a factor of eight must break a lease")
  }

  @Test(arguments: ["leaseFromAnswer", "leaseKeptDuringTransfer", "votesWithinLease", "promiseForgottenAtRestart"])
  func eachRuleIsNecessary(_ name: String) throws {
    let bug = try #require(PlantedBugs.all.first { $0.name == name }).bug
    var found: UInt64?
    for seed in UInt64(1)...2000 where found == nil {
      var simulation = try LeaseSimulation(LeaseScenario(seed: seed, clockRates: 0.96...1.04, bugs: bug))
      try simulation.run()
      if simulation.staleReads > 0 { found = seed }
    }
    print("Lease without the rule \(name): stale read at seed \(found.map(String.init) ?? "none")")
    #expect(found != nil)
  }

  @Test func noLeaseWithoutKnownTimeOrWithoutPromises() throws {
    var cluster = try TestCluster(voters: [1, 2, 3]) {
      $0.checkQuorum = true
      $0.readMode = .leaseBased
    }
    try cluster.elect(1)
    cluster.setNow(5_000_000_000)
    cluster.tickAll()
    try cluster.settle()
    #expect(cluster.node(1).raw.leaseExpiryNanoseconds == 0, "voters that promise nothing give no lease")

    var promising = try TestCluster(voters: [1, 2, 3]) {
      $0.checkQuorum = true
      $0.readMode = .leaseBased
      $0.refuseVotesWithinLease = true
    }
    try promising.elect(1)
    promising.tickAll()
    try promising.settle()
    #expect(promising.node(1).raw.leaseExpiryNanoseconds == 0, "without a clock there is no lease")
    promising.setNow(5_000_000_000)
    promising.node(1).raw.tick()
    try promising.settle()
    let leader = promising.node(1)
    #expect(leader.raw.leaseExpiryNanoseconds == 5_000_000_000 + leader.raw.configuration.leaseNanoseconds)
    let holdsInside = leader.raw.holdsLease(at: 5_000_000_001)
    let holdsAtTheEnd = leader.raw.holdsLease(at: leader.raw.leaseExpiryNanoseconds)
    #expect(holdsInside && !holdsAtTheEnd)
    leader.raw.readIndex(context: 9)
    try promising.settle()
    #expect(leader.readStates.map(\.context) == [9])
    leader.raw.transferLeadership(to: 2)
    #expect(leader.raw.leaseExpiryNanoseconds == 0, "void from the moment a transfer starts")
  }
}
