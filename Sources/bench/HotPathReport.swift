import HotPaths
import Measure

/// What the hot paths cost on this machine, each beside its reference in the same run.
struct HotPathReport: Sendable, Codable {
  struct Reference: Sendable, Codable {
    var name: String
    var nanosecondsPerOp: Double
  }

  struct Measurement: Sendable, Codable {
    var name: String
    var suite: HotPathSuite
    var operation: String
    /// Median over the rounds, in CPU time of the measuring thread.
    var nanosecondsPerOp: Double
    /// Fastest round.
    var minimumNanosecondsPerOp: Double
    /// Scaled median distance from the median: what a standard deviation would be without outliers.
    var spreadNanosecondsPerOp: Double
    var operationsPerSecond: Double
    /// Of payload; nil where an operation moves none.
    var payloadBytesPerSecond: Double?
    /// Exact, over many operations in the steady state.
    var allocationsPerOp: Double
    var bytesPerOp: Double
    /// nil where nothing plain stands beside it.
    var reference: Reference?
    /// Median of the rounds' ratios of reference to hot path: above 1, the hot path is faster by that factor.
    var referenceRatio: Double?
  }

  var hotPaths: [Measurement]
  /// False if the allocation counter does not serve this process: the counts mean nothing then.
  var areAllocationsCounted: Bool

  /// Measures each of `paths` and its reference, round by round in turns, so that both see the same machine.
  /// - Parameter short: a few milliseconds a path, for the summary of a run; otherwise about half a second.
  static func measure(short: Bool = false, paths: [HotPath] = HotPaths.all) -> HotPathReport {
    let plan = short ? Plan(rounds: 9, roundNanoseconds: 1_000_000) : Plan(rounds: 31, roundNanoseconds: 8_000_000)
    return HotPathReport(
      hotPaths: paths.map { measure($0, plan) }, areAllocationsCounted: WorkloadCost.areAllocationsCounted)
  }

  private struct Plan {
    var rounds: Int
    var roundNanoseconds: UInt64
  }

  private static func measure(_ path: HotPath, _ plan: Plan) -> Measurement {
    let workload = path.makeWorkload()
    let referenceWorkload = path.reference?.makeWorkload()
    let operations = WorkloadCost.operations(of: workload, filling: plan.roundNanoseconds)
    let referenceOperations =
      referenceWorkload.map { WorkloadCost.operations(of: $0, filling: plan.roundNanoseconds) } ?? 0
    var times: [Double] = []
    var referenceTimes: [Double] = []
    for _ in 0..<plan.rounds {
      times.append(WorkloadCost.measure(workload, operations: operations).nanosecondsPerOperation)
      if let referenceWorkload {
        let cost = WorkloadCost.measure(referenceWorkload, operations: referenceOperations)
        referenceTimes.append(cost.nanosecondsPerOperation)
      }
    }
    // Apart from the rounds, whose arrays of times grow in between.
    let cost = WorkloadCost.measure(workload, operations: operations)
    let median = Statistics.median(times)
    return Measurement(
      name: path.name, suite: path.suite, operation: path.operation, nanosecondsPerOp: median,
      minimumNanosecondsPerOp: times.min() ?? median,
      spreadNanosecondsPerOp: Statistics.scaledMedianAbsoluteDeviation(times), operationsPerSecond: 1e9 / median,
      payloadBytesPerSecond: path.payloadBytes > 0 ? Double(path.payloadBytes) * 1e9 / median : nil,
      allocationsPerOp: cost.allocationsPerOperation, bytesPerOp: cost.allocatedBytesPerOperation,
      reference: path.reference.map {
        Reference(name: $0.name, nanosecondsPerOp: Statistics.median(referenceTimes))
      },
      referenceRatio: path.reference.map { _ in Statistics.median(zip(referenceTimes, times).map { $0 / $1 }) })
  }
}
