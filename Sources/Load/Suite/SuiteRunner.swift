import CWeir
import Linearizability
import Measure

/// Runs a suite: starts the cluster, preloads it, drives the runs, and checks what it answered.
public struct SuiteRunner {
  private let plan: SuitePlan
  private let stop: StopRequest
  private let report: (String, RunProgress?) -> Void
  private var outcome: SuiteOutcome
  private var nextClient: UInt32 = 1

  /// - Parameter report: told what happens: a phase's name, and how far its run is where it is one.
  public static func run(
    _ plan: SuitePlan, factory: any TargetFactory, stop: StopRequest,
    report: @escaping (String, RunProgress?) -> Void
  ) throws -> SuiteOutcome {
    report("starting \(plan.cluster.nodes) nodes", nil)
    let begin = cweir_monotonic_nanoseconds()
    let target = try factory.startCluster(plan.cluster)
    var runner = SuiteRunner(plan: plan, targetName: target.name, stop: stop, report: report)
    runner.outcome.readiness = target.readiness
    runner.outcome.startNanoseconds = cweir_monotonic_nanoseconds()
    runner.outcome.clusterStartSeconds = Double(runner.outcome.startNanoseconds - begin) / 1e9
    do {
      try runner.drive(target)
      runner.compareReplicas(target)
    } catch {
      target.shutdown()
      throw error
    }
    target.shutdown()
    runner.checkHistory()
    for comparison in plan.comparisons where !stop.isStopped {
      let other = try run(comparison, factory: factory, stop: stop) { report("\(comparison.name): \($0)", $1) }
      runner.take(other)
    }
    runner.outcome.endNanoseconds = cweir_monotonic_nanoseconds()
    return runner.outcome
  }

  private init(
    plan: SuitePlan, targetName: String, stop: StopRequest, report: @escaping (String, RunProgress?) -> Void
  ) {
    self.plan = plan
    self.stop = stop
    self.report = report
    let share = Double(plan.historyOperations) / max(plan.expectedOperations, 1)
    let selection = HistorySelection(
      seed: SeededBits.derive(plan.seed, stream: 0x6869_7374),
      threshold: share >= 1 ? .max : UInt64(share * 0x1p64))
    outcome = SuiteOutcome(plan: plan, targetName: targetName, selection: selection)
  }

  /// Puts what a comparison measured into the files, on one line of time with the rest.
  private mutating func take(_ other: SuiteOutcome) {
    let offset = (Double(other.startNanoseconds) - Double(outcome.startNanoseconds)) / 1e9
    for var row in other.rows {
      row.timeSeconds += offset
      outcome.rows.append(row)
    }
    for var interval in other.logIntervals {
      interval.startSeconds += offset
      outcome.logIntervals.append(interval)
    }
    outcome.wasAborted = outcome.wasAborted || other.wasAborted
    outcome.comparisons.append(other)
  }

  private mutating func drive(_ target: any Target) throws {
    let preload = try run(plan.preload, on: target)
    outcome.preload = preload
    if preload.errors > 0 || preload.completed < UInt64(plan.keys), !stop.isStopped {
      outcome.problems.append(
        "preload: \(preload.completed - preload.errors) of \(plan.keys) keys written, \(preload.errors) errors")
    }
    for step in plan.steps where !stop.isStopped {
      switch step {
      case .run(let template):
        let result = try run(template, on: target)
        outcome.runs.append(
          FinishedRun(
            template: template, result: result, sliceOpsPerSecond: [result.opsPerSecond],
            problems: result.problems(), durability: plan.cluster.durability, isInterleaved: false))
      case .interleaved(let a, let b, let blocks):
        try runInterleaved(a, b, blocks: blocks, on: target)
      }
    }
    outcome.wasAborted = stop.isStopped
  }

  private mutating func runInterleaved(
    _ a: RunTemplate, _ b: RunTemplate, blocks: Int, on target: any Target
  ) throws {
    var finished: [FinishedRun?] = [nil, nil]
    for block in 0..<blocks {
      for choice in block.isMultiple(of: 2) ? [0, 1, 1, 0] : [1, 0, 0, 1] where !stop.isStopped {
        let template = choice == 0 ? a : b
        let slice = try run(template, on: target)
        if var whole = finished[choice] {
          whole.result.append(slice: slice)
          whole.sliceOpsPerSecond.append(slice.opsPerSecond)
          whole.problems += slice.problems()
          finished[choice] = whole
        } else {
          finished[choice] = FinishedRun(
            template: template, result: slice, sliceOpsPerSecond: [slice.opsPerSecond],
            problems: slice.problems(), durability: plan.cluster.durability, isInterleaved: true)
        }
      }
    }
    for case var run? in finished {
      // Many slices may have the same thing to say.
      var seen: Set<String> = []
      run.problems = run.problems.filter { seen.insert($0).inserted }
      outcome.runs.append(run)
    }
  }

  private mutating func run(_ template: RunTemplate, on target: any Target) throws -> RunResult {
    let plan = RunPlan(
      name: template.name, workload: template.workload, readMode: template.readMode, loop: template.loop,
      workers: plan.workers, warmUpNanoseconds: UInt64(template.warmUpSeconds * 1e9),
      durationNanoseconds: UInt64(template.durationSeconds * 1e9), operationLimit: template.operationLimit,
      seed: SeededBits.derive(plan.seed, stream: UInt64(nextClient)), client: nextClient)
    nextClient += 1
    // Half as much again as expected; and no less than what a surprisingly fast target may need.
    let share = template.expectedOperations / max(self.plan.expectedOperations, 1)
    let capacity = max(50_000, Int(1.5 * share * Double(self.plan.historyOperations)))
    report(template.name, nil)
    let result = try LoadGenerator.run(
      plan, on: target, history: HistoryBudget(selection: outcome.historySelection, operations: capacity),
      stop: stop
    ) { [report] progress in report(template.name, progress) }
    keep(result, of: template)
    var withoutHistory = result
    withoutHistory.history = []
    return withoutHistory
  }

  /// Takes what a run leaves for the checks and the files.
  private mutating func keep(_ result: RunResult, of template: RunTemplate) {
    outcome.operationsTotal += result.sent
    // The subsets of keys are nested: what was kept of earlier runs beyond this one's is dropped at the end.
    outcome.historySelection = result.historySelection
    outcome.history += result.history
    let windowStart = result.startNanoseconds + result.plan.warmUpNanoseconds
    let offset = (Double(windowStart) - Double(outcome.startNanoseconds)) / 1e9
    for interval in result.intervals {
      var all = interval.reads
      all.merge(interval.writes)
      let start = offset + interval.startSeconds
      outcome.rows.append(
        IntervalRow(
          timeSeconds: start, lengthSeconds: interval.lengthSeconds, run: template.name, offered: interval.offered,
          response: all, errors: interval.errors, late: interval.late, inFlight: interval.inFlight))
      for (operation, histogram) in [("read", interval.reads), ("write", interval.writes)] where !histogram.isEmpty {
        outcome.logIntervals.append(
          HistogramLog.Interval(
            tag: "\(template.name)-\(operation)", startSeconds: start, lengthSeconds: interval.lengthSeconds,
            histogram: histogram))
      }
    }
  }

  private mutating func compareReplicas(_ target: any Target) {
    report("comparing replicas", nil)
    do {
      outcome.replicas = try target.replicaHashes(
        deadlineNanoseconds: cweir_monotonic_nanoseconds() + 30_000_000_000)
    } catch {
      outcome.problems.append("replicas could not be compared: \(error)")
    }
  }

  private mutating func checkHistory() {
    report("checking \(outcome.history.count) operations for linearizability", nil)
    let begin = cweir_monotonic_nanoseconds()
    let selection = outcome.historySelection
    outcome.history.removeAll { !selection.keeps($0.key) }
    outcome.linearizability = LinearizabilityChecker.check(outcome.history)
    outcome.checkSeconds = Double(cweir_monotonic_nanoseconds() - begin) / 1e9
  }
}
