@preconcurrency import Benchmark
import Foundation
import HotPaths

// The tool's own metrics of memory read 0 on Linux whatever happens, and its times are whole nanoseconds of wall clock:
// too coarse for an operation of three, and wrong where another process has the core. So all four are our own.

/// CPU time of the measuring thread for one operation, in picoseconds: 1,000 are a nanosecond.
let time = BenchmarkMetric.custom("picosecondsPerOp", polarity: .prefersSmaller, useScalingFactor: false)
let throughput = BenchmarkMetric.custom("opsPerCPUSecond", polarity: .prefersLarger, useScalingFactor: false)
/// Requests to the allocator in a million operations, rounded up: one single request shows.
let allocations = BenchmarkMetric.custom(
  "allocationsPerMillionOps", polarity: .prefersSmaller, useScalingFactor: false)
/// Bytes of those requests.
let allocatedBytes = BenchmarkMetric.custom(
  "allocatedBytesPerMillionOps", polarity: .prefersSmaller, useScalingFactor: false)

/// Registers every hot path of a suite, and beside each its reference.
///
/// With `WEIR_PLANTED_ALLOCATION=1` each path allocates once in 100,000 operations: the thresholds must notice.
public func registerBenchmarks(of suite: HotPathSuite) {
  precondition(WorkloadCost.areAllocationsCounted, "the allocation counter does not serve this process")
  let isPlanted = ProcessInfo.processInfo.environment["WEIR_PLANTED_ALLOCATION"] == "1"
  for path in HotPaths.suite(suite) {
    register(path.name, countsAllocations: true) {
      let workload = path.makeWorkload()
      return isPlanted ? PlantedAllocation(in: workload, period: 100_000 / workload.operationsPerStep) : workload
    }
    if let reference = path.reference {
      register("\(path.name)-reference", countsAllocations: false, makeWorkload: reference.makeWorkload)
    }
  }
}

/// A workload that is warm. The tool runs a benchmark's iterations one after the other on one thread.
private final class Warm: @unchecked Sendable {
  static let sampleNanoseconds: UInt64 = 200_000
  /// Pools fill and tables grow within the first, and what the second ask of the allocator is the steady state.
  static let warmUpOperations = 300_000
  static let countedOperations = 300_000

  let workload: any Workload
  let sampleOperations: Int
  private(set) var count: WorkloadCost?

  init(_ workload: any Workload, countsAllocations: Bool) {
    self.workload = workload
    if countsAllocations {
      workload.run(Self.warmUpOperations)
      count = WorkloadCost.measure(workload, operations: Self.countedOperations)
    }
    sampleOperations = WorkloadCost.operations(of: workload, filling: Self.sampleNanoseconds)
  }
}

private func register(
  _ name: String, countsAllocations: Bool, makeWorkload: @escaping @Sendable () -> any Workload
) {
  let isExact = BenchmarkThresholds(absolute: [.p90: .count(0)])
  Benchmark(
    name,
    configuration: .init(
      metrics: [time, throughput] + (countsAllocations ? [allocations, allocatedBytes] : []),
      warmupIterations: 1, maxDuration: .milliseconds(300), maxIterations: 1000,
      thresholds: countsAllocations ? [allocations: isExact, allocatedBytes: isExact] : [:])
  ) { benchmark, warm in
    let cost = WorkloadCost.measure(warm.workload, operations: warm.sampleOperations)
    benchmark.measurement(time, Int(1000 * cost.nanosecondsPerOperation))
    benchmark.measurement(throughput, Int(1e9 / cost.nanosecondsPerOperation))
    guard let count = warm.count else { return }
    benchmark.measurement(allocations, Int((1e6 * count.allocationsPerOperation).rounded(.up)))
    benchmark.measurement(allocatedBytes, Int((1e6 * count.allocatedBytesPerOperation).rounded(.up)))
  } setup: {
    Warm(makeWorkload(), countsAllocations: countsAllocations)
  }
}
