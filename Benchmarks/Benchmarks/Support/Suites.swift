@preconcurrency import Benchmark
import HotPaths

/// Requests to the allocator in a sample, by our own counter: the tool's own malloc metrics read 0 here whatever happens.
public let allocations = BenchmarkMetric.custom("allocations", polarity: .prefersSmaller, useScalingFactor: true)

/// Bytes asked of the allocator in a sample, by our own counter.
public let allocatedBytes = BenchmarkMetric.custom("allocatedBytes", polarity: .prefersSmaller, useScalingFactor: true)

/// Registers every hot path of a suite and its reference. A sample is 1,000 operations for a path, so that one allocation
/// among them shows, and one for a reference that scans. Only the allocations of the paths that must have none are held to
/// thresholds: they are exact, and time on a shared machine is not.
public func registerBenchmarks(of suite: HotPathSuite) {
  precondition(AllocationCount.isActive, "the allocation counter does not serve this process")
  for path in HotPaths.suite(suite) {
    register(path.name, scale: .kilo, isGated: path.isAllocationFree, makeWorkload: path.makeWorkload)
    if let reference = path.reference {
      // Names without spaces: the tool writes thresholds under another name than it looks for where there is one.
      let scale: BenchmarkScalingFactor = suite == .broadcastQueue ? .one : .kilo
      register("\(path.name)-reference", scale: scale, isGated: false, makeWorkload: reference.makeWorkload)
    }
  }
}

/// A workload that was warmed up. The tool runs a benchmark's iterations one after the other on one thread.
private final class Warm: @unchecked Sendable {
  let workload: any Workload

  init(_ workload: any Workload, operations: Int) {
    self.workload = workload
    // Pools fill and tables grow before anything is measured.
    workload.run(operations)
  }
}

private func register(
  _ name: String, scale: BenchmarkScalingFactor, isGated: Bool, makeWorkload: @escaping @Sendable () -> any Workload
) {
  let gated: [BenchmarkMetric] = [allocations, allocatedBytes]
  Benchmark(
    name,
    configuration: .init(
      metrics: isGated ? [.wallClock, .throughput] + gated : [.wallClock, .throughput],
      warmupIterations: 5, scalingFactor: scale, maxDuration: .milliseconds(500), maxIterations: 2000,
      thresholds: [
        allocations: .init(absolute: [.p90: .count(0)]), allocatedBytes: .init(absolute: [.p90: .count(0)]),
      ])
  ) { benchmark, warm in
    let operations = benchmark.scaledIterations.count
    let count = AllocationCount.measure(warm.workload, warmUp: 0, operations: operations)
    benchmark.measurement(allocations, Int(count.allocations))
    benchmark.measurement(allocatedBytes, Int(count.bytes))
  } setup: {
    Warm(makeWorkload(), operations: scale == .one ? 1 : 200_000)
  }
}
