/// Runs whole clusters from seeds.
public enum Simulator {
  /// The profile of a seed in a mixed run: half of the seeds have everything on, or have the real log on a faulty disk.
  public static func mixedProfile(of seed: UInt64) -> Profile {
    switch seed % 10 {
    case 0, 5: .standard
    case 1, 3, 7, 9: .disk
    case 2: .membership
    case 4: .lease
    case 6: .elections
    default: seed % 20 == 8 ? .catchUp : seed % 40 == 38 ? .slowApply : .crashes
    }
  }

  /// What a seed means.
  public static func plan(seed: UInt64, profile: Profile? = nil) -> SimulationPlan {
    var plan = Swarm.plan(seed: seed, profile: profile ?? mixedProfile(of: seed))
    plan.addDiskFaults()
    return plan
  }

  /// Runs a plan to its end, or to the first violation.
  public static func run(_ plan: SimulationPlan, options: RunOptions = .init()) -> RunReport {
    SimulatedCluster(plan: plan, options: options).run()
  }

  /// Runs a seed.
  public static func run(seed: UInt64, profile: Profile? = nil, options: RunOptions = .init()) -> RunReport {
    run(plan(seed: seed, profile: profile), options: options)
  }

  /// Makes a failure small, and tells it.
  /// - Parameter budget: how many runs may be spent on it.
  public static func explain(
    _ plan: SimulationPlan, violation: Violation, options: RunOptions = .init(), budget: Int = 200
  ) -> FailureReport {
    var shrinker = Shrinker(invariant: violation.invariant, budget: budget) { run($0, options: options).violation }
    let smallest = shrinker.shrink(plan)
    var tracing = options
    tracing.recordsTrace = true
    let report = run(smallest, options: tracing)
    return FailureReport(
      seed: plan.seed, violation: report.violation ?? violation, plan: smallest, trace: report.trace,
      runs: shrinker.runs)
  }
}

/// A failure, as small as it could be made.
public struct FailureReport: Sendable, CustomStringConvertible {
  public var seed: UInt64
  public var violation: Violation
  public var plan: SimulationPlan
  /// The last events before the violation.
  public var trace: [String]
  /// How many runs it took to get there.
  public var runs: Int

  public var description: String {
    let core = plan.core
    var text = "seed \(seed): \(violation)\n"
    text += "\(plan.initialVoters) voters, \(plan.initialLearners) learners of \(plan.nodeCount) nodes; "
    text +=
      "tick \(core.tickNanoseconds / 1_000_000) ms, election \(core.electionTicks), heartbeat \(core.heartbeatTicks)"
    text += "; pre-vote \(core.preVote), check-quorum \(core.checkQuorum)"
    text += ", asynchronous storage \(core.asynchronousStorage), storage \(plan.disk.kind.rawValue)"
    text += ", snapshot every \(core.snapshotThreshold)\n"
    text += "loss \(plan.network.lossPerMillion) and duplication \(plan.network.duplicatePerMillion) per million, "
    text += "\(plan.workload.clients) clients, \(plan.workload.keys) keys, \(plan.workload.readMode) reads\n"
    text += "faults (\(plan.faults.count)):\n"
    for fault in plan.faults {
      text +=
        "  \(milliseconds(fault.beginNanoseconds)) for \(milliseconds(fault.durationNanoseconds)): \(fault.action)\n"
    }
    text += "the last \(trace.count) events:\n"
    for line in trace { text += "  \(line)\n" }
    return text
  }
}
