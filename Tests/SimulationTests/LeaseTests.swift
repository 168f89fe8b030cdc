import Testing

@_spi(Testing) @testable import Simulation

/// Lease reads: never stale while clocks keep to the drift bound; and the same runs do see stale reads where they do not.
@Suite("Leases")
struct LeaseTests {
  @Test("No stale read in 2,000 seeds of partitions, transfers, pauses and restarts, clocks within the bound")
  func withinBound() {
    var reads = 0
    var partitions = 0
    var restarts = 0
    for seed in UInt64(0)..<2000 {
      let report = Simulator.run(seed: seed, profile: .lease)
      reads += report[.leaseRead]
      partitions += report[.partition]
      restarts += report[.restart]
      if let violation = report.violation { Issue.record("seed \(seed): \(violation)") }
    }
    #expect(reads > 50_000 && partitions > 2000 && restarts > 1000)
    print("2000 seeds: \(reads) lease reads, \(partitions) partitions, \(restarts) restarts, 0 stale reads")
  }

  @Test("Clocks beyond the bound: a stale read is seen within 1,000 seeds")
  func beyondBound() {
    var found: UInt64?
    for seed in UInt64(0)..<1000 where found == nil {
      if Simulator.run(seed: seed, profile: .leaseBeyondBound).violation?.invariant == .linearizability { found = seed }
    }
    #expect(found != nil)
    if let found { print("beyond the bound: a stale read after \(found + 1) seeds") }
  }
}
