import CAllocationCounter
import CWeir

/// What some operations of a workload cost the calling thread.
public struct WorkloadCost: Sendable, Hashable {
  public var operations: Int
  /// User and system time of the thread.
  public var cpuNanoseconds: UInt64
  /// Requests to the allocator, counted exactly.
  public var allocations: UInt64
  /// Bytes of those requests.
  public var allocatedBytes: UInt64

  public var nanosecondsPerOperation: Double { Double(cpuNanoseconds) / Double(operations) }
  public var allocationsPerOperation: Double { Double(allocations) / Double(operations) }
  public var allocatedBytesPerOperation: Double { Double(allocatedBytes) / Double(operations) }

  /// Does at least `operations` operations of a workload that is warm.
  public static func measure(_ workload: any Workload, operations: Int) -> WorkloadCost {
    let before = callocation_counts_of_this_thread()
    let start = cweir_thread_cpu_nanoseconds()
    let done = workload.run(operations)
    let end = cweir_thread_cpu_nanoseconds()
    let after = callocation_counts_of_this_thread()
    return WorkloadCost(
      operations: done, cpuNanoseconds: end - start, allocations: after.allocations - before.allocations,
      allocatedBytes: after.bytes - before.bytes)
  }

  /// Warms a workload up, and finds how many operations take at least so long.
  public static func operations(of workload: any Workload, filling cpuNanoseconds: UInt64) -> Int {
    var operations = workload.operationsPerStep
    while true {
      let cost = measure(workload, operations: operations)
      if cost.cpuNanoseconds >= cpuNanoseconds { return cost.operations }
      operations = 2 * cost.operations
    }
  }

  /// Whether the allocation counter serves this process. Without it every count would be a false zero.
  public static var areAllocationsCounted: Bool { callocation_counter_is_active() == 1 }
}

/// Does what `inner` does, and allocates once in `period` steps: what a check for allocations has to notice.
public final class PlantedAllocation: Workload {
  private let inner: any Workload
  private let period: Int
  private var steps = 0
  private var kept: [UInt8] = []

  public init(in inner: any Workload, period: Int) {
    self.inner = inner
    self.period = period
  }

  public var operationsPerStep: Int { inner.operationsPerStep }

  public func step() {
    inner.step()
    steps += 1
    if steps % period == 0 { kept = [UInt8](repeating: UInt8(truncatingIfNeeded: steps), count: 100) }
  }
}
