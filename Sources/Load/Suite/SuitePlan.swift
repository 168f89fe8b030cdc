/// A run of a suite, before it has a seed and a number.
public struct RunTemplate: Sendable, Equatable {
  public var name: String
  public var workload: Workload
  public var readMode: ReadMode
  public var loop: LoopMode
  public var warmUpSeconds: Double
  public var durationSeconds: Double
  /// Ends the run after this many operations; the duration is then only a limit.
  public var operationLimit: UInt64?

  public init(
    name: String, workload: Workload, readMode: ReadMode, loop: LoopMode, warmUpSeconds: Double,
    durationSeconds: Double, operationLimit: UInt64? = nil
  ) {
    self.name = name
    self.workload = workload
    self.readMode = readMode
    self.loop = loop
    self.warmUpSeconds = warmUpSeconds
    self.durationSeconds = durationSeconds
    self.operationLimit = operationLimit
  }

  /// Operations that it may be expected to send, to divide the memory for histories by.
  var expectedOperations: Double {
    if let operationLimit { return Double(operationLimit) }
    let seconds = warmUpSeconds + durationSeconds
    switch loop {
    case .open(let rate, _, _): return rate * seconds
    // A guess at what a fast target may do; a history that is full gives up keys, so it need not be right.
    case .closed: return seconds * (workload.readPercent == 0 ? 500_000 : 1_500_000)
    }
  }
}

/// One step of a suite.
public enum SuiteStep: Sendable, Equatable {
  case run(RunTemplate)
  /// Two runs cut into slices that alternate, A B B A / B A A B: what drifts meets both alike. The templates' durations
  /// are those of one slice.
  case interleaved(RunTemplate, RunTemplate, blocks: Int)

  var templates: [(template: RunTemplate, slices: Int)] {
    switch self {
    case .run(let template): [(template, 1)]
    case .interleaved(let a, let b, let blocks): [(a, 2 * blocks), (b, 2 * blocks)]
    }
  }

  var seconds: Double {
    templates.reduce(0) { sum, entry in
      // A run that is limited by its operations is short.
      let seconds =
        entry.template.operationLimit == nil ? entry.template.warmUpSeconds + entry.template.durationSeconds : 1
      return sum + seconds * Double(entry.slices)
    }
  }
}

/// A sequence of runs against one cluster.
public struct SuitePlan: Sendable, Equatable {
  public var name: String
  public var cluster: ClusterConfiguration
  public var workers: Int
  public var keys: Int
  public var valueBytes: Int
  public var distribution: KeyDistribution
  public var seed: UInt64
  public var steps: [SuiteStep]
  /// Operations of all runs together that are kept for the linearizability check (40 bytes each).
  public var historyOperations = 3_000_000
  /// What is measured afterwards to compare with, each plan on a cluster of its own.
  public var comparisons: [SuitePlan] = []

  public init(
    name: String, cluster: ClusterConfiguration, workers: Int, keys: Int, valueBytes: Int,
    distribution: KeyDistribution, seed: UInt64, steps: [SuiteStep]
  ) {
    self.name = name
    self.cluster = cluster
    self.workers = workers
    self.keys = keys
    self.valueBytes = valueBytes
    self.distribution = distribution
    self.seed = seed
    self.steps = steps
  }

  /// Each key written once before anything is measured.
  public var preload: RunTemplate {
    RunTemplate(
      name: "preload", workload: .preload(keys: keys, valueBytes: valueBytes), readMode: .safe,
      loop: .closed(outstanding: 256), warmUpSeconds: 0, durationSeconds: 120, operationLimit: UInt64(keys))
  }

  /// How long it takes, start and checks aside.
  public var seconds: Double {
    steps.reduce(0) { $0 + $1.seconds } + comparisons.reduce(0) { $0 + $1.seconds }
  }

  var expectedOperations: Double {
    preload.expectedOperations
      + steps.flatMap(\.templates).reduce(0) { $0 + $1.template.expectedOperations * Double($1.slices) }
  }
}

/// The suites that the command line offers.
public struct SuiteFactory: Sendable {
  public var cluster: ClusterConfiguration
  public var workers: Int
  public var keys: Int
  public var valueBytes: Int
  public var distribution: KeyDistribution
  public var seed: UInt64
  /// In flight in the closed loops.
  public var outstanding = 256
  /// Rate of the open loops, which the latencies come from.
  public var readRatePerSecond = 20_000.0
  public var writeRatePerSecond = 10_000.0
  /// 1 is the suite as it should be; less makes everything shorter, and the tails blind.
  public var scale = 1.0

  public init(
    cluster: ClusterConfiguration, workers: Int, keys: Int, valueBytes: Int, distribution: KeyDistribution,
    seed: UInt64
  ) {
    self.cluster = cluster
    self.workers = workers
    self.keys = keys
    self.valueBytes = valueBytes
    self.distribution = distribution
    self.seed = seed
  }

  public func everything() -> SuitePlan {
    var whole = plan("default", writes + reads + mixed)
    whole.comparisons = inMemory
    return whole
  }

  public func readsOnly() -> SuitePlan { plan("reads", reads) }
  public func writesOnly() -> SuitePlan {
    var whole = plan("writes", writes)
    whole.comparisons = inMemory
    return whole
  }

  /// One run as the user put it together.
  public func single(_ template: RunTemplate) -> SuitePlan { plan("run", [.run(template)]) }

  private func plan(_ name: String, _ steps: [SuiteStep]) -> SuitePlan {
    SuitePlan(
      name: name, cluster: cluster, workers: workers, keys: keys, valueBytes: valueBytes,
      distribution: distribution, seed: seed, steps: steps)
  }

  private func template(
    _ name: String, readPercent: Int, _ mode: ReadMode, _ loop: LoopMode, warmUp: Double, seconds: Double
  ) -> RunTemplate {
    RunTemplate(
      name: name,
      workload: Workload(
        readPercent: readPercent, keys: keys, distribution: distribution, valueBytes: valueBytes),
      readMode: mode, loop: loop, warmUpSeconds: warmUp, durationSeconds: seconds * scale)
  }

  private func open(_ rate: Double) -> LoopMode {
    .open(ratePerSecond: rate, arrival: .poisson, outstandingLimit: 65_536)
  }

  private var writes: [SuiteStep] {
    [
      .run(
        template(
          "writes-peak", readPercent: 0, .safe, .closed(outstanding: outstanding), warmUp: 0.5, seconds: 4)),
      .run(template("writes-paced", readPercent: 0, .safe, open(writeRatePerSecond), warmUp: 0.5, seconds: 10.5)),
    ]
  }

  /// The writes once more with the log in memory only: what the disk costs is the difference. Reads do not touch it.
  private var inMemory: [SuitePlan] {
    guard cluster.durability != .memory else { return [] }
    var comparison = plan(
      "memory",
      [
        .run(
          template(
            "writes-peak-memory", readPercent: 0, .safe, .closed(outstanding: outstanding), warmUp: 0.3, seconds: 1.5))
      ])
    comparison.cluster.durability = .memory
    comparison.cluster.directory = nil
    comparison.historyOperations = 300_000
    return [comparison]
  }

  private var reads: [SuiteStep] {
    func peak(_ mode: ReadMode) -> RunTemplate {
      template(
        "reads-\(mode.rawValue)-peak", readPercent: 100, mode, .closed(outstanding: outstanding), warmUp: 0.05,
        seconds: 0.3)
    }
    func paced(_ mode: ReadMode) -> RunTemplate {
      template(
        "reads-\(mode.rawValue)-paced", readPercent: 100, mode, open(readRatePerSecond), warmUp: 0.2, seconds: 1.5)
    }
    return [
      // Many short slices: what disturbs the machine for a second then meets both modes.
      .interleaved(peak(.safe), peak(.lease), blocks: 12),
      .interleaved(paced(.safe), paced(.lease), blocks: 2),
    ]
  }

  private var mixed: [SuiteStep] {
    func mix(_ mode: ReadMode) -> RunTemplate {
      template(
        "mixed-95-\(mode.rawValue)-peak", readPercent: 95, mode, .closed(outstanding: outstanding), warmUp: 0.1,
        seconds: 0.6)
    }
    return [.interleaved(mix(.safe), mix(.lease), blocks: 2)]
  }
}
