import Linearizability
import Measure

/// A run of a suite that is over; where it was cut into slices, all of them together.
public struct FinishedRun: Sendable {
  public var template: RunTemplate
  public var result: RunResult
  /// Operations per second of each slice, in the order they ran.
  public var sliceOpsPerSecond: [Double]
  /// What made a slice invalid.
  public var problems: [String]
  /// When the logs of the cluster that it ran on were on the disk.
  public var durability = Durability.always
  /// Interleaved with another run, whose slices it is compared to block by block.
  public var isInterleaved: Bool
}

/// What a suite measured, and whether it counts.
public struct SuiteOutcome: Sendable {
  public var plan: SuitePlan
  public var targetName: String
  public var readiness: Readiness?
  public var runs: [FinishedRun] = []
  public var preload: RunResult?
  /// CLOCK_MONOTONIC when the cluster was up, and when the suite was over.
  public var startNanoseconds: UInt64 = 0
  public var endNanoseconds: UInt64 = 0
  /// Seconds until the cluster served.
  public var clusterStartSeconds: Double = 0
  public var rows: [IntervalRow] = []
  public var logIntervals: [HistogramLog.Interval] = []
  public var history: [HistoryOperation] = []
  public var historySelection: HistorySelection
  public var operationsTotal: UInt64 = 0
  public var linearizability = LinearizabilityReport()
  public var checkSeconds: Double = 0
  public var replicas: [ReplicaHash] = []
  public var wasAborted = false
  /// What the comparisons measured, on clusters of their own.
  public var comparisons: [SuiteOutcome] = []
  /// What went wrong beside the runs themselves.
  public var problems: [String] = []

  init(plan: SuitePlan, targetName: String, selection: HistorySelection) {
    self.plan = plan
    self.targetName = targetName
    historySelection = selection
  }

  /// Why the suite does not count; empty where it does.
  public var allProblems: [String] {
    var all = runs.flatMap { run in run.problems.map { "\(run.template.name): \($0)" } }
    all += problems
    for violation in linearizability.violations { all.append("not linearizable: \(violation.explanation)") }
    let unlisted = linearizability.violatedKeys - linearizability.violations.count
    if unlisted > 0 { all.append("not linearizable: \(unlisted) more keys") }
    if !linearizability.undecidedKeys.isEmpty {
      all.append("linearizability undecided for \(linearizability.undecidedKeys.count) keys")
    }
    if replicasAgree == false {
      let states = replicas.map { "node \($0.node): \(String($0.hash, radix: 16)) of \($0.keys) keys" }
      all.append("replicas differ: \(states.joined(separator: ", "))")
    }
    if wasAborted { all.append("aborted before the end") }
    all += comparisons.flatMap { outcome in outcome.allProblems.map { "\(outcome.plan.name): \($0)" } }
    return all
  }

  /// Nil where there is nothing to compare.
  public var replicasAgree: Bool? {
    guard let first = replicas.first, replicas.count > 1 else { return nil }
    return replicas.allSatisfy { $0.hash == first.hash && $0.keys == first.keys }
  }

  /// What weakens the result without making it wrong.
  public func warnings(headroom: GeneratorHeadroom?) -> [String] {
    var warnings: [String] = []
    for run in runs {
      let result = run.result
      if result.isSteady == false, !run.isInterleaved {
        warnings.append("\(run.template.name): throughput had not settled")
      }
      if let low = result.workerP99.min(), let high = result.workerP99.max(), low > 0, high > 2 * low {
        warnings.append("\(run.template.name): p99 differs between workers by \(high / low) times")
      }
    }
    warnings += comparisons.flatMap { $0.warnings(headroom: nil) }
    if let headroom, let fastest = runs.map(\.result.opsPerSecond).max(), headroom.opsPerSecond < 3 * fastest {
      warnings.append("the generator alone is less than 3 times as fast as the fastest run")
    }
    return warnings
  }
}

extension RunResult {
  /// Takes another slice of the same run in. What must be continuous to mean something is dropped.
  mutating func append(slice: RunResult) {
    let offset = windowSeconds
    reads.merge(slice.reads)
    writes.merge(slice.writes)
    for var interval in slice.intervals {
      interval.startSeconds += offset
      intervals.append(interval)
    }
    let window = Double(windowNanoseconds)
    let added = Double(slice.windowNanoseconds)
    if window + added > 0 {
      meanInFlight = (meanInFlight * window + slice.meanInFlight * added) / (window + added)
      atLimitShare = (atLimitShare * window + slice.atLimitShare * added) / (window + added)
    }
    completionsPerBin = []
    windowNanoseconds += slice.windowNanoseconds
    sent += slice.sent
    completed += slice.completed
    offered += slice.offered
    late += slice.late
    unsent += slice.unsent
    completedInWindow += slice.completedInWindow
    processCPUNanoseconds += slice.processCPUNanoseconds
    workerCPUNanoseconds += slice.workerCPUNanoseconds
    busiestWorkerShare = max(busiestWorkerShare, slice.busiestWorkerShare)
    counters = counters.adding(slice.counters)
    strayCompletions += slice.strayCompletions
    workerP99 = []
    wasStopped = wasStopped || slice.wasStopped
  }
}

extension TargetCounters {
  func adding(_ other: TargetCounters) -> TargetCounters {
    func sum(_ path: KeyPath<TargetCounters, UInt64?>) -> UInt64? {
      guard let a = self[keyPath: path], let b = other[keyPath: path] else { return nil }
      return a + b
    }
    return TargetCounters(
      peerMessages: sum(\.peerMessages), peerBytes: sum(\.peerBytes), wakeups: sum(\.wakeups), fsyncs: sum(\.fsyncs),
      gossipPackets: sum(\.gossipPackets), gossipBytes: sum(\.gossipBytes),
      gossipCPUNanoseconds: sum(\.gossipCPUNanoseconds), nodeCPUNanoseconds: sum(\.nodeCPUNanoseconds),
      otherProcessCPUNanoseconds: sum(\.otherProcessCPUNanoseconds), elections: sum(\.elections))
  }
}
