import Foundation
import HotPaths
import TestSupport
import Testing
import WeirCore

/// Nothing on a hot path allocates once it is warm. The counter sees every request of the thread.
@Suite(.disabled(if: Sanitizers.areAllocationsUncounted, "the allocation counter is left out under sanitizers"))
struct AllocationTests {
  static let paths = HotPaths.all.filter(\.isAllocationFree)

  private func count(_ workload: any Workload) -> WorkloadCost {
    workload.run(600_000)
    return WorkloadCost.measure(workload, operations: 300_000)
  }

  @Test func theCounterServesThisProcess() {
    #expect(WorkloadCost.areAllocationsCounted)
  }

  @Test func allSuitesAreChecked() {
    #expect(Set(Self.paths.map(\.suite)) == Set(HotPathSuite.allCases))
    #expect(HotPaths.raftCore.allSatisfy { $0.isAllocationFree })
  }

  @Test(arguments: paths.map(\.name))
  func hotPathsDoNotAllocate(name: String) throws {
    let path = try #require(HotPaths.named(name))
    let count = count(path.makeWorkload())
    #expect(
      count.allocations == 0 && count.allocatedBytes == 0,
      "\(name) allocated \(count.allocations) times, \(count.allocatedBytes) bytes")
  }

  /// The same check on the same paths with one allocation planted in a thousand steps: it must be seen.
  @Test(arguments: paths.map(\.name))
  func aPlantedAllocationIsSeen(name: String) throws {
    let path = try #require(HotPaths.named(name))
    let workload = path.makeWorkload()
    let steps = 300_000 / workload.operationsPerStep
    let count = count(PlantedAllocation(in: workload, period: min(1000, steps)))
    #expect(count.allocations > 0)
    #expect(count.allocatedBytes >= 100 * count.allocations)
  }

  /// A path without a file of thresholds would pass the check of `Benchmarks/` whatever it does.
  @Test(arguments: paths.map(\.name))
  func theBenchmarksHoldEachPathToNoAllocation(name: String) throws {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let folder = root.appendingPathComponent("Benchmarks/Thresholds")
    let files = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    let file = try #require(files.first { $0.hasSuffix(".\(name).p90.json") })
    let data = try Data(contentsOf: folder.appendingPathComponent(file))
    let thresholds = try JSONDecoder().decode([String: Int].self, from: data)
    #expect(thresholds == ["allocationsPerMillionOps": 0, "allocatedBytesPerMillionOps": 0])
  }
}
