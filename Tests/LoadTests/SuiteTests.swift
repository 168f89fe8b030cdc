import Foundation
import Measure
import Synchronization
import Testing

@testable import Load

/// A cluster for the tests of the suite's own logic: one register store behind a lock, three claimed replicas.
final class LocalFactory: TargetFactory {
  enum Fault: Sendable {
    case none
    /// Reads in lease mode return the value before the newest from now and then.
    case staleLeaseReads
    /// One replica has another state.
    case differingReplica
    /// One write in a hundred is refused.
    case refusedWrites
    /// A leader election is counted in every run.
    case elections
  }

  let fault: Fault
  let shutdowns = Atomic<Int>(0)
  let openSessions = Atomic<Int>(0)

  init(_ fault: Fault = .none) { self.fault = fault }

  func startCluster(_ configuration: ClusterConfiguration) throws -> any Target { Cluster(self) }

  final class Cluster: Target {
    let name = "local"
    let owner: LocalFactory
    let values = Mutex<[UInt64: (newest: ValueID, before: ValueID?)]>([:])
    let asked = Atomic<UInt64>(0)

    init(_ owner: LocalFactory) { self.owner = owner }

    func makeSession(worker: Int, readMode: ReadMode) -> any TargetSession {
      owner.openSessions.add(1, ordering: .relaxed)
      return Session(self, readMode)
    }

    func counters() -> TargetCounters {
      let count = asked.add(1, ordering: .relaxed).newValue
      return TargetCounters(peerMessages: count * 10, elections: owner.fault.isElections ? count : 1)
    }

    func replicaHashes(deadlineNanoseconds: UInt64) -> [ReplicaHash] {
      (1...3).map { node in
        ReplicaHash(
          node: UInt64(node), appliedIndex: 7, hash: owner.fault.isDifferingReplica && node == 2 ? 5 : 4, keys: 9)
      }
    }

    func shutdown() { owner.shutdowns.add(1, ordering: .relaxed) }
  }

  final class Session: TargetSession {
    let cluster: Cluster
    let readMode: ReadMode
    var count = 0

    init(_ cluster: Cluster, _ readMode: ReadMode) {
      self.cluster = cluster
      self.readMode = readMode
    }

    func submit(_ batch: Span<Submission>, completions: inout [Completion]) {
      for index in batch.indices {
        let operation = batch[index].operation
        count += 1
        var completion = Completion(token: batch[index].token, status: .ok, doneNanoseconds: 0)
        if operation.kind == .set, cluster.owner.fault.isRefusedWrites, count.isMultiple(of: 100) {
          completion.status = .failed
        } else {
          let isStale =
            cluster.owner.fault.isStaleLeaseReads && readMode == .lease && count.isMultiple(of: 500)
          completion.readValue = cluster.values.withLock { values -> ValueID? in
            let held = values[operation.keyNumber]
            guard operation.kind == .set else { return isStale ? held?.before : held?.newest }
            values[operation.keyNumber] = (operation.value, held?.newest)
            return nil
          }
        }
        completion.doneNanoseconds = MonotonicClock().nanoseconds()
        completions.append(completion)
      }
    }

    func poll(into completions: inout [Completion], until deadlineNanoseconds: UInt64) {
      let now = MonotonicClock().nanoseconds()
      if deadlineNanoseconds > now { usleep(UInt32(min(1000, (deadlineNanoseconds - now) / 1000))) }
    }

    func close() { cluster.owner.openSessions.subtract(1, ordering: .relaxed) }
  }
}

extension LocalFactory.Fault {
  var isStaleLeaseReads: Bool { if case .staleLeaseReads = self { true } else { false } }
  var isDifferingReplica: Bool { if case .differingReplica = self { true } else { false } }
  var isRefusedWrites: Bool { if case .refusedWrites = self { true } else { false } }
  var isElections: Bool { if case .elections = self { true } else { false } }
}

@Suite("Suites")
struct SuiteTests {
  /// The default suite, each run and slice limited by its operations and not by time: however slow the machine, every
  /// slice has its answers.
  static func plan() -> SuitePlan {
    var factory = SuiteFactory(
      cluster: ClusterConfiguration(), workers: 2, keys: 300, valueBytes: 32, distribution: .uniform, seed: 11)
    factory.readRatePerSecond = 5000
    factory.writeRatePerSecond = 5000
    factory.outstanding = 16
    var plan = shortened(factory.everything())
    plan.comparisons = plan.comparisons.map(shortened)
    plan.historyOperations = 200_000
    return plan
  }

  private static func shortened(_ plan: SuitePlan) -> SuitePlan {
    var plan = plan
    plan.steps = plan.steps.map { step in
      func short(_ template: RunTemplate) -> RunTemplate {
        var template = template
        template.warmUpSeconds = 0
        template.durationSeconds = 600
        template.operationLimit = 300
        return template
      }
      switch step {
      case .run(let template): return .run(short(template))
      case .interleaved(let a, let b, let blocks): return .interleaved(short(a), short(b), blocks: blocks)
      }
    }
    return plan
  }

  static func run(_ fault: LocalFactory.Fault, _ plan: SuitePlan = plan(), stop: StopRequest = StopRequest()) throws
    -> (SuiteOutcome, LocalFactory)
  {
    let factory = LocalFactory(fault)
    let outcome = try SuiteRunner.run(plan, factory: factory, stop: stop) { _, _ in }
    return (outcome, factory)
  }

  /// What of the problems does not depend on how loaded the machine is that runs the test.
  static func withoutTiming(_ problems: [String]) -> [String] {
    problems.filter { !$0.contains("schedule missed") && !$0.contains("Little") && !$0.contains("held the generator") }
  }

  @Test("The default suite runs every part, checks it, and leaves nothing behind")
  func everything() throws {
    let (outcome, factory) = try Self.run(.none)
    #expect(
      outcome.runs.map(\.template.name) == [
        "writes-peak", "writes-paced", "reads-safe-peak", "reads-lease-peak", "reads-safe-paced",
        "reads-lease-paced", "mixed-95-safe-peak", "mixed-95-lease-peak",
      ])
    #expect(Self.withoutTiming(outcome.allProblems) == [])
    #expect(outcome.linearizability.isLinearizable)
    #expect(outcome.linearizability.operations == outcome.history.count)
    #expect(outcome.linearizability.keys > 0)
    #expect(outcome.replicasAgree == true)
    #expect(outcome.preload?.completed == 300)
    #expect(outcome.runs.allSatisfy { $0.result.operations > 0 })
    #expect(outcome.operationsTotal >= UInt64(outcome.history.count))
    // The writes once more on a cluster of its own, whose log is in memory.
    let comparison = try #require(outcome.comparisons.first)
    #expect(comparison.runs.map(\.template.name) == ["writes-peak-memory"])
    #expect(comparison.linearizability.isLinearizable && comparison.linearizability.operations > 0)
    let summaries = outcome.runSummaries()
    #expect(summaries.last?.sync == "memory")
    #expect(summaries.dropLast().allSatisfy { $0.sync == "always" })
    #expect(factory.shutdowns.load(ordering: .relaxed) == 2)
    #expect(factory.openSessions.load(ordering: .relaxed) == 0)
    let lease = try #require(outcome.leaseToSafe())
    #expect(lease.blockRatios.count == 12)
    #expect(lease.throughputRatio.low <= lease.throughputRatio.estimate)
    #expect(lease.throughputRatio.estimate <= lease.throughputRatio.high)
  }

  @Test("Stale lease reads make the suite invalid, and it says which operations and why")
  func staleReads() throws {
    var plan = Self.plan()
    plan.keys = 40
    plan.steps = [
      .run(
        RunTemplate(
          name: "mixed", workload: Workload(readPercent: 50, keys: 40), readMode: .lease,
          loop: .closed(outstanding: 8), warmUpSeconds: 0, durationSeconds: 60, operationLimit: 40_000))
    ]
    let (outcome, _) = try Self.run(.staleLeaseReads, plan)
    #expect(!outcome.linearizability.isLinearizable)
    #expect(outcome.allProblems.contains { $0.hasPrefix("not linearizable: A replaced value was read") })
  }

  @Test("A replica that differs, an error, an election: each makes the suite invalid", arguments: 0..<3)
  func faults(index: Int) throws {
    let faults: [(LocalFactory.Fault, String)] = [
      (.differingReplica, "replicas differ: node 1: 4 of 9 keys, node 2: 5 of 9 keys"),
      (.refusedWrites, "operations failed"), (.elections, "leader elections"),
    ]
    let (fault, words) = faults[index]
    let (outcome, _) = try Self.run(fault)
    #expect(outcome.allProblems.contains { $0.contains(words) }, "\(outcome.allProblems)")
  }

  @Test("A suite that is stopped keeps what it has, says so, and shuts the cluster down")
  func stopping() throws {
    let stop = StopRequest()
    let factory = LocalFactory()
    var plan = Self.plan()
    plan.steps = [
      .run(
        RunTemplate(
          name: "endless", workload: Workload(readPercent: 50, keys: 300), readMode: .safe,
          loop: .closed(outstanding: 8), warmUpSeconds: 0, durationSeconds: 3600))
    ]
    let outcome = try SuiteRunner.run(plan, factory: factory, stop: stop) { phase, progress in
      if phase == "endless", let progress, progress.completed > 100 { stop.stop() }
    }
    #expect(outcome.wasAborted)
    #expect(outcome.allProblems.contains("aborted before the end"))
    #expect(outcome.runs.first?.result.operations ?? 0 > 100)
    #expect(factory.shutdowns.load(ordering: .relaxed) == 1)
    #expect(factory.openSessions.load(ordering: .relaxed) == 0)
  }

  @Test("The summary has the names that scripts rely on, and numbers where there are some")
  func names() throws {
    let (outcome, _) = try Self.run(.none)
    let summary = SuiteTests.summary(of: outcome)
    let data = try JSONEncoder().encode(summary)
    let object = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    #expect(object["schemaVersion"] as? Int == 1)
    #expect(object["valid"] is Bool)
    #expect(object["problems"] is [String])
    let ratio = try #require((object["leaseToSafe"] as? [String: Any])?["throughputRatio"] as? [String: Any])
    #expect(ratio["low"] is Double && ratio["high"] is Double && ratio["estimate"] is Double)
    let runs = try #require(object["runs"] as? [[String: Any]])
    // Six runs of one operation, two of both, and the writes in memory.
    #expect(runs.count == 11)
    for run in runs {
      for name in [
        "name", "operation", "readMode", "loop", "outstanding", "workers", "nodes", "valueBytes", "operations",
        "errors", "opsPerSecond", "cpuMicrosecondsPerOp", "messagesPerOp", "responseNanoseconds",
        "serviceNanoseconds",
      ] {
        #expect(run[name] != nil, "\(name) is missing")
      }
      for kind in ["responseNanoseconds", "serviceNanoseconds"] {
        let latency = try #require(run[kind] as? [String: Any])
        for name in ["p50", "p90", "p99", "p999", "p9999", "max"] { #expect(latency[name] != nil) }
      }
      #expect(["read", "write"].contains(run["operation"] as? String))
      #expect(["open", "closed"].contains(run["loop"] as? String))
    }
    let writes = try #require(runs.first { $0["name"] as? String == "writes-peak" })
    #expect(writes["readMode"] is NSNull)
    let decoded = try JSONDecoder().decode(BenchSummary.self, from: data)
    #expect(decoded.runs.count == 11)
  }

  static func summary(of outcome: SuiteOutcome) -> BenchSummary {
    let problems = outcome.allProblems
    return BenchSummary(
      valid: problems.isEmpty, problems: problems, warnings: outcome.warnings(headroom: nil),
      aborted: outcome.wasAborted, startedUTC: "2026-01-01T00:00:00Z", durationSeconds: 1, command: "bench",
      machine: MachineFingerprint(MachineReadings()), configuration: outcome.configuration(),
      runs: outcome.runSummaries(), leaseToSafe: outcome.leaseToSafe(), consistency: outcome.consistencySummary(),
      generator: GeneratorSummary(nullTargetOpsPerSecond: 1, nullTargetCpuNanosecondsPerOp: 1, headroom: nil),
      hotPaths: [])
  }

  @Test("The default suite takes about a minute, and lets every tail be seen that it promises")
  func duration() {
    let factory = SuiteFactory(
      cluster: ClusterConfiguration(), workers: 2, keys: 100_000, valueBytes: 128, distribution: .uniform, seed: 1)
    let plan = factory.everything()
    #expect((40...75).contains(plan.seconds), "\(plan.seconds) s")
    for (template, slices) in plan.steps.flatMap(\.templates) {
      guard case .open(let rate, _, _) = template.loop else { continue }
      // p99.99 needs 100,000 operations.
      #expect(rate * template.durationSeconds * Double(slices) >= 100_000, "\(template.name)")
    }
  }
}

@Suite("Lease to Safe ratio")
struct RatioTests {
  @Test("The ratio is what the slices say, whatever drifts")
  func drift() {
    // Lease is 3 times as fast, and the machine slows down by half over the bench.
    var safe: [[Double]] = []
    var lease: [[Double]] = []
    for block in 0..<8 {
      func speed(_ slice: Int) -> Double { 1000 * (1 - 0.5 * Double(4 * block + slice) / 32) }
      if block.isMultiple(of: 2) {
        safe.append([speed(0), speed(3)])
        lease.append([3 * speed(1), 3 * speed(2)])
      } else {
        lease.append([3 * speed(0), 3 * speed(3)])
        safe.append([speed(1), speed(2)])
      }
    }
    let ratio = LeaseToSafe.ratio(safe: safe, lease: lease, confidence: 0.95)
    #expect(abs(ratio.interval.estimate / 3 - 1) < 0.01)
    #expect(ratio.interval.low > 2.9 && ratio.interval.high < 3.1)
    #expect(ratio.blocks.count == 8)
  }

  @Test("A block without throughput does not count")
  func empty() {
    let ratio = LeaseToSafe.ratio(safe: [[0, 1], [1, 1]], lease: [[2, 2], [2, 2]], confidence: 0.95)
    #expect(ratio.blocks == [2])
  }
}
