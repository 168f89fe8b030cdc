import Foundation
import TestSupport
import Testing

@testable import Simulation

/// Whole clusters from seeds: everything on, every invariant after every event.
@Suite("Seeds", .disabled(if: Sanitizers.isThreadSanitized, "\(Sanitizers.oneThreadReason)"))
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

  /// The leader was a learner, and removed by a change that entered a joint configuration; it does not step down, and
  /// refuses the proposal to leave that configuration, as leaders do that are no members. The operator has to stop it.
  @Test("A removed leader does not keep the others in a joint configuration")
  func removedLeader() {
    let plan = Simulator.plan(seed: 1174, profile: .membership)
    #expect(!plan.core.stepsDownOnRemoval)
    let report = Simulator.run(plan)
    #expect(report.violation == nil)
    #expect(report[.leaderRemoved] > 0 && report[.jointConfiguration] > 0)
  }

  /// A node that was stopped because it was no member had been added again when the last leader went.
  @Test("Nodes that were stopped too early are started again where their votes are needed")
  func neededNode() {
    #expect(Simulator.run(seed: 8512, profile: .membership).violation == nil)
  }

  /// A transfer that came to nothing kept the leader from leaving a joint configuration, and nobody wrote afterwards.
  @Test("A failed transfer does not keep a quiet cluster in a joint configuration")
  func failedTransfer() {
    let report = Simulator.run(seed: 820, profile: .slowApply)
    #expect(report.violation == nil)
    #expect(report[.transfer] > 0 && report[.jointConfiguration] > 0)
  }

  @Test("A voter that became a learner with a higher term than its leader comes back")
  func learnerWithHigherTerm() {
    let plan = Simulator.plan(seed: 3316, profile: .slowApply)
    #expect(!plan.core.preVote && !plan.core.checkQuorum)
    #expect(Simulator.run(plan).violation == nil)
  }

  /// A cluster only counts as converged if its learners hold and have applied what the leader has.
  @Test("Learners keep up under load, through crashes, partitions and snapshots")
  func learners() {
    var (reads, snapshots, learnerSeeds) = (0, 0, 0)
    for seed in UInt64(0)..<60 {
      var plan = Simulator.plan(seed: seed, profile: [.standard, .catchUp, .crashes][Int(seed % 3)])
      guard plan.initialVoters < 6 else { continue }
      plan.initialLearners = 2
      plan.nodeCount = max(plan.nodeCount, plan.initialVoters + 2)
      while plan.clockRatesPerMillion.count < plan.nodeCount { plan.clockRatesPerMillion.append(50_000) }
      plan.faults.removeAll { if case .change = $0.action { true } else { false } }
      let report = Simulator.run(plan)
      #expect(report.violation == nil, "seed \(seed)")
      learnerSeeds += 1
      reads += report[.readConfirmed]
      snapshots += report[.snapshotRestored]
    }
    #expect(learnerSeeds > 40 && reads > 1000 && snapshots > 20)
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
