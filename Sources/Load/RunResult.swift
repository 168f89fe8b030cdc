import Linearizability
import Measure

/// What a run measured, all workers merged.
public struct RunResult: Sendable {
  public var plan: RunPlan
  public var reads = OperationMeasurement()
  public var writes = OperationMeasurement()
  /// One for each second of the measured window.
  public var intervals: [IntervalMeasurement] = []
  /// Answers in each tenth of a second of the measured window.
  public var completionsPerBin: [Double] = []
  /// Length of the measured window: the plan's, or less where the run was stopped or ran out of operations.
  public var windowNanoseconds: UInt64 = 0
  /// When the run started, on CLOCK_MONOTONIC.
  public var startNanoseconds: UInt64 = 0
  public var sent: UInt64 = 0
  public var completed: UInt64 = 0
  public var offered: UInt64 = 0
  public var late: UInt64 = 0
  public var unsent: UInt64 = 0
  public var completedInWindow: UInt64 = 0
  /// Time average of the operations in flight.
  public var meanInFlight: Double = 0
  /// Share of the workers' time in which the limit on operations in flight held them back.
  public var atLimitShare: Double = 0
  /// CPU time of the whole process, and of the target's other processes where it has any, within the window.
  public var processCPUNanoseconds: UInt64 = 0
  /// CPU time of the workers' threads within that.
  public var workerCPUNanoseconds: UInt64 = 0
  /// CPU time of the busiest worker as a share of the window: above 0.8 the generator may be the bottleneck.
  public var busiestWorkerShare: Double = 0
  /// What the target counted in the window.
  public var counters = TargetCounters()
  public var strayCompletions: UInt64 = 0
  /// The 99th percentile of each worker's response times, for their spread.
  public var workerP99: [UInt64] = []
  public var wasStopped = false
  public var history: [HistoryOperation] = []
  public var historySelection = HistorySelection(seed: 0)

  public init(plan: RunPlan) {
    self.plan = plan
  }

  public var windowSeconds: Double { Double(windowNanoseconds) / 1e9 }
  public var errors: UInt64 { reads.errors + writes.errors }
  /// Operations that were measured: sent (or meant to be) within the window, and answered well.
  public var operations: UInt64 { reads.response.count + writes.response.count }
  public var opsPerSecond: Double { windowSeconds > 0 ? Double(completedInWindow) / windowSeconds : 0 }
  public var cpuNanosecondsPerOperation: Double {
    completedInWindow > 0 ? Double(processCPUNanoseconds) / Double(completedInWindow) : 0
  }
  public var messagesPerOperation: Double? {
    guard let messages = counters.peerMessages, completedInWindow > 0 else { return nil }
    return Double(messages) / Double(completedInWindow)
  }

  /// |N − X·R| / N with N the mean operations in flight, X the throughput and R the mean service time (Little's law):
  /// how far the generator's own bookkeeping contradicts itself. Nil where it cannot be said: where too little ran, or
  /// where an operation took more than a fortieth of the window, since what straddles its edges is counted on one
  /// side only.
  public var littlesLawError: Double? {
    let measured = operations + errors
    guard measured >= 1000, windowNanoseconds > 0, meanInFlight > 0 else { return nil }
    let longest = max(
      reads.service.maxNanoseconds, writes.service.maxNanoseconds, reads.errorResponse.maxNanoseconds,
      writes.errorResponse.maxNanoseconds)
    guard longest <= windowNanoseconds / 40 else { return nil }
    let timeSpent =
      Double(reads.service.sumNanoseconds) + Double(writes.service.sumNanoseconds)
      + Double(reads.errorResponse.sumNanoseconds) + Double(writes.errorResponse.sumNanoseconds)
    return abs(meanInFlight - timeSpent / Double(windowNanoseconds)) / meanInFlight
  }

  /// Why the run does not count; empty where it does. See `isSteady` for what only weakens it.
  public func problems(allowLittlesLawError: Double = 0.05) -> [String] {
    var problems: [String] = []
    if operations == 0, !wasStopped { problems.append("no operation was answered") }
    if errors > 0 {
      problems.append(
        "\(reads.failed + writes.failed) operations failed, \(reads.unknown + writes.unknown) had no answer")
    }
    if strayCompletions > 0 { problems.append("\(strayCompletions) answers belonged to no operation") }
    if plan.loop.isOpen {
      if unsent > 0 { problems.append("schedule missed: \(unsent) operations were not sent by the end of the run") }
      let kept = offered + unsent > 0 ? Double(completedInWindow) / Double(offered + unsent) : 1
      if kept < 0.99, !wasStopped {
        problems.append("schedule missed: \(Self.percent(kept)) of the offered rate was achieved")
      }
      if atLimitShare > 0.01 {
        problems.append(
          "the limit on operations in flight held the generator back \(Self.percent(atLimitShare)) of the time")
      }
    }
    if let error = littlesLawError, error > allowLittlesLawError, !wasStopped {
      problems.append("Little's law is off by \(Self.percent(error)): the generator lost count")
    }
    if let elections = counters.elections, elections > 0 {
      problems.append("\(elections) leader elections during the run")
    }
    return problems
  }

  /// Whether throughput had settled: the halves' medians differ by less than 5 %, and no trend (p > 0.01).
  /// Nil where the window has too few tenths of a second to say.
  public var isSteady: Bool? {
    guard completionsPerBin.count >= 20 else { return nil }
    let half = completionsPerBin.count / 2
    let first = Statistics.median(Array(completionsPerBin[..<half]))
    let second = Statistics.median(Array(completionsPerBin[half...]))
    guard first > 0 else { return false }
    return abs(second / first - 1) < 0.05 && Statistics.trend(completionsPerBin).pValue > 0.01
  }

  private static func percent(_ share: Double) -> String {
    "\((share * 1000).rounded() / 10) %"
  }

  mutating func merge(_ worker: WorkerResult) {
    reads.merge(worker.reads)
    writes.merge(worker.writes)
    for (index, interval) in worker.intervals.enumerated() {
      if index < intervals.count { intervals[index].merge(interval) } else { intervals.append(interval) }
    }
    for (bin, count) in worker.completionsPerBin.enumerated() {
      if bin < completionsPerBin.count {
        completionsPerBin[bin] += Double(count)
      } else {
        completionsPerBin.append(Double(count))
      }
    }
    sent += worker.sent
    completed += worker.completed
    offered += worker.offered
    late += worker.late
    unsent += worker.unsent
    completedInWindow += worker.completedInWindow
    windowNanoseconds = max(windowNanoseconds, worker.windowNanoseconds)
    strayCompletions += worker.strayCompletions
    workerCPUNanoseconds += worker.cpuNanoseconds
    var all = worker.reads.response
    all.merge(worker.writes.response)
    workerP99.append(all.quantile(0.99))
  }

  /// What needs all workers: averages over the window.
  mutating func finish(_ workers: [WorkerResult]) {
    let window = Double(max(windowNanoseconds, 1))
    meanInFlight = workers.reduce(0) { $0 + $1.inFlightNanoseconds } / window
    atLimitShare = workers.reduce(0) { $0 + Double($1.atLimitNanoseconds) } / window / Double(max(workers.count, 1))
    busiestWorkerShare = workers.map { Double($0.cpuNanoseconds) / window }.max() ?? 0
    // The last tenth of a second is not whole unless the window is a multiple of it.
    let wholeBins = Int(windowNanoseconds / 100_000_000)
    if completionsPerBin.count > wholeBins { completionsPerBin.removeLast(completionsPerBin.count - wholeBins) }
    let selection = workers.map(\.historySelection).min { $0.threshold < $1.threshold }
    guard let selection else { return }
    historySelection = selection
    history.reserveCapacity(workers.reduce(0) { $0 + $1.history.count })
    for worker in workers { history += worker.history.lazy.filter { selection.keeps($0.key) } }
  }
}
