import CAllocationCounter

/// What a workload asks of the allocator, counted exactly for the calling thread.
public struct AllocationCount: Sendable, Hashable, Codable {
  public var operations: Int
  public var allocations: UInt64
  public var bytes: UInt64

  public var allocationsPerOperation: Double { Double(allocations) / Double(operations) }
  public var bytesPerOperation: Double { Double(bytes) / Double(operations) }

  /// Warms the workload up, then counts over `operations` operations.
  /// - Parameter warmUp: operations that may still fill pools and grow tables.
  public static func measure(_ workload: any Workload, warmUp: Int, operations: Int) -> AllocationCount {
    workload.run(warmUp)
    let before = callocation_counts_of_this_thread()
    let done = workload.run(operations)
    let after = callocation_counts_of_this_thread()
    return AllocationCount(
      operations: done, allocations: after.allocations - before.allocations, bytes: after.bytes - before.bytes)
  }

  /// Whether the counter serves this process. Without it every count would be a false zero.
  public static var isActive: Bool { callocation_counter_is_active() == 1 }
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
