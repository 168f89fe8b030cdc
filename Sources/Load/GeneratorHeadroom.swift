/// How fast the generator is when the target costs nothing: no result near it says anything about a target.
public struct GeneratorHeadroom: Sendable {
  public var opsPerSecond: Double
  /// CPU time of the workers for each operation.
  public var cpuNanosecondsPerOperation: Double

  /// Runs a closed loop of 256 outstanding against `NullTarget`.
  public static func measure(
    workers: Int, readPercent: Int = 95, seconds: Double = 0.3, distribution: KeyDistribution = .uniform,
    keys: Int = 100_000
  ) throws -> GeneratorHeadroom {
    let plan = RunPlan(
      name: "generator", workload: Workload(readPercent: readPercent, keys: keys, distribution: distribution),
      readMode: .lease, loop: .closed(outstanding: 128 * workers), workers: workers,
      warmUpNanoseconds: 20_000_000, durationNanoseconds: UInt64(seconds * 1e9), seed: 1, client: 1)
    // A history as a real run keeps it: some of the keys.
    let history = HistoryBudget(selection: HistorySelection(seed: 1, threshold: .max / 32), operations: 1 << 20)
    let result = try LoadGenerator.run(plan, on: NullTarget(), history: history)
    return GeneratorHeadroom(
      opsPerSecond: result.opsPerSecond,
      cpuNanosecondsPerOperation: result.completedInWindow > 0
        ? Double(result.workerCPUNanoseconds) / Double(result.completedInWindow) : 0)
  }
}
