import Foundation
import Testing

@testable import Simulation

/// Whole clusters from seeds: everything on, every invariant after every event.
@Suite("Seeds")
struct SeedTests {
  /// Longer runs where they were asked for.
  static let isLong = ProcessInfo.processInfo.environment["WEIR_LONG_TESTS"] == "1"

  static func campaign(_ seeds: Range<UInt64>, profile: Profile? = nil) -> CampaignSummary {
    var summary = CampaignSummary()
    for seed in seeds {
      let chosen = profile ?? Simulator.mixedProfile(of: seed)
      let plan = Simulator.plan(seed: seed, profile: chosen)
      let report = Simulator.run(plan)
      summary.add(report, plan: plan, profile: chosen)
      if let violation = report.violation, summary.failedSeeds == 1 {
        print(Simulator.explain(plan, violation: violation))
      }
    }
    return summary
  }

  @Test("500 seeds, 200 of them on the real log with disk faults, break nothing", .timeLimit(.minutes(10)))
  func seeds() {
    let summary = Self.campaign(0..<(Self.isLong ? 5000 : 500))
    for failure in summary.failures {
      Issue.record("seed \(failure.seed) (\(failure.profile.rawValue)): \(failure.violation)")
    }
    #expect(summary.failedSeeds == 0)
    #expect(summary.seedsOnRealLog * 10 >= summary.seeds * 4)
    #expect(summary.missedMarks.filter { $0 != .removedVoterNeeded } == [], "no seed passed through these situations")
    #expect(summary.answeredOperations > summary.seeds * 20)
    let minutes = Int(summary.virtualNanoseconds / 60_000_000_000)
    print(
      "\(summary.seeds) seeds: \(summary.events) events, \(minutes) virtual minutes, \(summary.elections) elections, "
        + "\(summary.committedEntries) entries, \(summary.answeredOperations) operations answered")
  }

  @Test("The same seed gives the same trace twice in one process")
  func repetition() {
    for seed in UInt64(1000)..<1020 {
      let first = Simulator.run(seed: seed)
      let second = Simulator.run(seed: seed)
      #expect(first.traceHash == second.traceHash && first.events == second.events, "seed \(seed)")
    }
  }

  @Test("Recording a trace changes nothing")
  func tracing() {
    var options = RunOptions()
    options.recordsTrace = true
    for seed in UInt64(2000)..<2005 {
      let traced = Simulator.run(seed: seed, options: options)
      #expect(traced.traceHash == Simulator.run(seed: seed).traceHash)
      #expect(!traced.trace.isEmpty)
    }
  }
}
