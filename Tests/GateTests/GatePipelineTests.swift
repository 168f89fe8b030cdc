import Foundation
import Measure
import Synchronization
import Testing

@testable import Gate

/// Programs that do not exist, on a machine that is noisy: what each would report, and in which order they were run.
private final class FakePrograms {
  struct Behaviour {
    var slowdown = 1.0
    var allocations = 0.0
    var messagesPerWrite = 4.0
    var leaseOverSafe = 3.0
    var omits: String?
    /// Runs that are invalid before the first valid one.
    var invalidRuns = 0
  }

  var behaviours: [String: Behaviour]
  private(set) var calls: [(program: String, probe: String)] = []
  private var machine: NoisyMachine

  init(_ behaviours: [String: Behaviour], seed: UInt64 = 1, noise: Double = 0.02) {
    self.behaviours = behaviours
    machine = NoisyMachine(seed: seed, noise: noise)
  }

  func run(_ program: String, _ arguments: [String]) throws -> Data {
    calls.append((program, arguments[0]))
    guard var behaviour = behaviours[program] else {
      throw GateError.failed(program: program, arguments: arguments, status: 127, output: "")
    }
    let isValid = behaviour.invalidRuns == 0
    if behaviour.invalidRuns > 0, arguments[0] != "hot-paths" {
      behaviour.invalidRuns -= 1
      behaviours[program] = behaviour
    }
    let json: [String: Any] =
      arguments[0] == "hot-paths" ? hotPaths(behaviour) : summary(behaviour, arguments, isValid: isValid)
    return try JSONSerialization.data(withJSONObject: json)
  }

  private func hotPaths(_ behaviour: Behaviour) -> [String: Any] {
    let paths = ["append", "encode"].filter { $0 != behaviour.omits }.map { name -> [String: Any] in
      [
        "name": name, "nanosecondsPerOp": machine.measure(name == "append" ? behaviour.slowdown : 1),
        "allocationsPerOp": name == "append" ? behaviour.allocations : 0, "bytesPerOp": behaviour.allocations * 48,
      ]
    }
    return ["hotPaths": paths]
  }

  private func summary(_ behaviour: Behaviour, _ arguments: [String], isValid: Bool) -> [String: Any] {
    let isWrite = arguments.contains("write")
    let run: [String: Any] = [
      "name": "x", "operation": isWrite ? "write" : "read", "opsPerSecond": 1e8 / machine.measure(behaviour.slowdown),
      "cpuMicrosecondsPerOp": machine.measure(behaviour.slowdown),
      "messagesPerOp": isWrite ? behaviour.messagesPerWrite : 0.01, "peerBytesPerOp": 900, "fsyncsPerOp": 0,
      "responseNanoseconds": ["count": 100_000, "p50": 1000, "p99": Int(machine.measure(1) * 100)],
    ]
    let ratio = behaviour.leaseOverSafe
    return [
      "valid": isValid, "problems": isValid ? [] : ["2 errors"], "startedUTC": "2026-01-01T00:00:00Z",
      "machine": ["key": "k", "architecture": "x86_64", "toolchain": "6.3.1", "gitRevision": "abc"], "runs": [run],
      "leaseToSafe": ["throughputRatio": ["estimate": ratio, "low": ratio * 0.95, "high": ratio * 1.05]],
    ]
  }
}

private func judge(
  _ programs: FakePrograms, tiers: Set<GateTier> = [.counts, .ratio, .micro], counts: CountBaseline? = nil
) throws -> GateReport {
  var pipeline = GatePipeline(head: "head", base: "base", control: "copy", run: programs.run)
  return try pipeline.judge(tiers: tiers, counts: counts, machine: nil)
}

private func programs(head: FakePrograms.Behaviour = .init(), seed: UInt64 = 1) -> FakePrograms {
  FakePrograms(["base": .init(), "copy": .init(), "head": head], seed: seed)
}

private func acceptedCounts() throws -> CountBaseline {
  let report = try judge(programs(), tiers: [.counts])
  return CountBaseline(
    architecture: "x86_64", toolchain: "6.3.1", reason: "first", revision: "abc", counts: report.counts)
}

private func verdict(_ report: GateReport, _ part: String) -> Verdict? {
  report.series.first { $0.series.contains(part) }?.verdict
}

@Suite("Gate, from programs to verdicts")
struct GatePipelineTests {
  @Test(arguments: UInt64(1)...8)
  func twoBuildsOfTheSameCodePass(seed: UInt64) throws {
    let report = try judge(programs(seed: seed), counts: acceptedCounts())
    #expect(report.exit == .ok, "\(report.series)")
    #expect(!report.series.contains { $0.verdict == .fail })
  }

  @Test func processesOfBothBuildsAlternate() throws {
    let programs = programs()
    _ = try judge(programs, tiers: [.micro])
    let first = programs.calls.prefix(8).map(\.program)
    #expect(first == ["base", "copy", "copy", "base", "copy", "base", "base", "copy"])
    let counts = Dictionary(grouping: programs.calls, by: \.program).mapValues(\.count)
    #expect(counts["head"] == 24 && counts["copy"] == 24 && counts["base"] == 48)
  }

  @Test(arguments: UInt64(1)...8)
  func aHotPathThatBecameSlowerIsARegressionAndTheOthersAreNot(seed: UInt64) throws {
    let report = try judge(programs(head: .init(slowdown: 1.4), seed: seed), tiers: [.micro])
    #expect(verdict(report, "append") == .fail, "\(report.series)")
    #expect(verdict(report, "encode") != .fail)
    #expect(report.exit == .regression)
  }

  @Test func aClusterThatBecameSlowerIsARegression() throws {
    let report = try judge(programs(head: .init(slowdown: 1.8)), tiers: [.cluster])
    #expect(verdict(report, "writes/ops-per-second") == .fail)
    #expect(verdict(report, "lease-reads/cpu") == .fail)
    #expect(verdict(report, "writes/response-p99") == .pass)
  }

  @Test func whatBecameFasterIsAnImprovement() throws {
    let report = try judge(programs(head: .init(slowdown: 0.6)), tiers: [.micro])
    #expect(verdict(report, "append") == .improved)
    #expect(report.exit == .ok)
  }

  @Test func oneMoreAllocationIsARegression() throws {
    let report = try judge(programs(head: .init(allocations: 1)), tiers: [.counts], counts: acceptedCounts())
    #expect(verdict(report, "append/allocations-per-op") == .fail)
    #expect(report.exit == .regression)
  }

  @Test func oneMoreMessagePerWriteIsARegression() throws {
    let report = try judge(programs(head: .init(messagesPerWrite: 5)), tiers: [.counts], counts: acceptedCounts())
    #expect(verdict(report, "write-alone/peer-messages") == .fail)
  }

  @Test func leaseReadsThatTakeARoundAreARegression() throws {
    let report = try judge(programs(head: .init(leaseOverSafe: 0.9)), tiers: [.ratio])
    #expect(verdict(report, "lease-to-safe") == .fail)
    #expect(report.exit == .regression)
  }

  @Test func aPathThatVanishedDidNotPass() throws {
    let report = try judge(programs(head: .init(omits: "append")), tiers: [.counts], counts: acceptedCounts())
    #expect(verdict(report, "append/allocations-per-op") == .missing)
    #expect(report.exit == .regression)
    let timed = try judge(programs(head: .init(omits: "append")), tiers: [.micro])
    #expect(verdict(timed, "append") == .inconclusive)
    #expect(timed.exit == .inconclusive)
  }

  @Test func countsWithoutABaselineAreListed() throws {
    let report = try judge(programs(), tiers: [.counts])
    #expect(!report.series.isEmpty)
    #expect(report.series.allSatisfy { $0.verdict == .noBaseline })
  }

  @Test func aRunThatIsInvalidOnceIsRunAgain() throws {
    let report = try judge(programs(head: .init(invalidRuns: 1)), tiers: [.ratio])
    #expect(report.exit == .ok)
    #expect(report.problems.isEmpty)
  }

  @Test func aProgramThatIsAlwaysInvalidNeverPasses() throws {
    let report = try judge(programs(head: .init(invalidRuns: 1000)), tiers: [.counts, .ratio])
    #expect(report.exit == .invalidRun)
    #expect(report.problems.contains { $0.contains("2 errors") })
  }

  @Test func aProgramThatFailsStopsTheGate() {
    let broken = FakePrograms(["base": .init()])
    #expect(throws: GateError.self) { try judge(broken, tiers: [.counts]) }
  }
}

@Suite("Baselines")
struct BaselineTests {
  private func summaries(_ count: Int, change: (inout MeasuredSummary, Int) -> Void = { _, _ in }) throws
    -> [MeasuredSummary]
  {
    let programs = programs()
    return try (0..<count).map { number in
      var summary = try MeasuredSummary(json: programs.run("head", ["reads"]))
      change(&summary, number)
      return summary
    }
  }

  @Test func keepsEveryRun() throws {
    let baseline = try MachineBaseline(summaries: summaries(6), reason: "quiet machine")
    #expect(baseline.runs.count == 6)
    #expect(baseline.median(MachineBaseline.leaseToSafe) == 3)
    #expect(baseline.median("x/read/ops-per-second") != nil)
    #expect(baseline.median("unknown") == nil)
  }

  @Test func refusesTooFewRunsAndThoseThatAreNotValid() throws {
    #expect(throws: GateError.tooFewRuns(valid: 4, needed: 5)) {
      try MachineBaseline(summaries: summaries(4), reason: "")
    }
    let oneInvalid = try summaries(5) { summary, number in if number == 2 { summary.valid = false } }
    #expect(throws: GateError.tooFewRuns(valid: 4, needed: 5)) {
      try MachineBaseline(summaries: oneInvalid, reason: "")
    }
  }

  @Test func refusesRunsOfDifferentMachinesToolchainsOrRevisions() throws {
    let machines = try summaries(5) { summary, number in if number == 1 { summary.machine.key = "other" } }
    #expect(throws: GateError.mixedRuns("machine")) { try MachineBaseline(summaries: machines, reason: "") }
    let toolchains = try summaries(5) { summary, number in if number == 1 { summary.machine.toolchain = "7" } }
    #expect(throws: GateError.mixedRuns("toolchain")) { try MachineBaseline(summaries: toolchains, reason: "") }
    let revisions = try summaries(5) { summary, number in if number == 1 { summary.machine.gitRevision = "z" } }
    #expect(throws: GateError.mixedRuns("revision")) { try MachineBaseline(summaries: revisions, reason: "") }
  }

  @Test func namesCountsByArchitectureAndToolchain() {
    #expect(
      CountBaseline.fileName(architecture: "x86_64", toolchain: "6.3.1") == "counts-x86_64-swift6.3.json")
  }
}
