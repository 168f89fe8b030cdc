/// The content of `summary.json`: every number of a bench, its whole configuration, and whether it counts. Scripts
/// rely on the names; a change that is not an addition raises `schemaVersion`.
public struct BenchSummary: Codable, Sendable {
  public static let currentSchemaVersion = 1

  public var schemaVersion = BenchSummary.currentSchemaVersion
  /// False where a number must not be relied on; `problems` says why.
  public var valid: Bool
  public var problems: [String]
  /// What weakens the result without making it wrong.
  public var warnings: [String]
  /// The run was ended by its user; what is there is what was measured until then.
  public var aborted: Bool
  /// Start, ISO 8601.
  public var startedUTC: String
  public var durationSeconds: Double
  /// The command line that repeats it.
  public var command: String
  public var machine: MachineFingerprint
  /// Where the nodes' logs lay; null in results of before there was one.
  public var storage: StorageSummary?
  public var configuration: BenchConfiguration
  public var runs: [RunSummary]
  public var leaseToSafe: LeaseToSafe?
  public var consistency: ConsistencySummary
  /// What gossip cost beside consensus; absent where the target has none.
  public var gossip: GossipSummary?
  public var generator: GeneratorSummary
  public var hotPaths: [HotPathSummary]

  public init(
    valid: Bool, problems: [String], warnings: [String], aborted: Bool, startedUTC: String, durationSeconds: Double,
    command: String, machine: MachineFingerprint, storage: StorageSummary? = nil,
    configuration: BenchConfiguration, runs: [RunSummary], leaseToSafe: LeaseToSafe?,
    consistency: ConsistencySummary, gossip: GossipSummary? = nil, generator: GeneratorSummary,
    hotPaths: [HotPathSummary]
  ) {
    self.valid = valid
    self.problems = problems
    self.warnings = warnings
    self.aborted = aborted
    self.startedUTC = startedUTC
    self.durationSeconds = durationSeconds
    self.command = command
    self.machine = machine
    self.storage = storage
    self.configuration = configuration
    self.runs = runs
    self.leaseToSafe = leaseToSafe
    self.consistency = consistency
    self.gossip = gossip
    self.generator = generator
    self.hotPaths = hotPaths
  }
}

/// The disk under the nodes' logs: without it no figure of a write can be compared.
public struct StorageSummary: Codable, Sendable, Equatable {
  /// When a log is on the disk, against when what depends on it is answered: `always`, `interval:<ms>`, `off`, or
  /// `memory` where there is no log on a disk at all.
  public var sync: String
  /// `direct` (O_DIRECT and O_DSYNC), or `buffered` (pwrite, and fdatasync if anything is synced); null in memory.
  public var writeMode: String?
  /// Kind of the file system that the logs lay on, `ext4` say; null in memory.
  public var fileSystem: String?
  /// A write of 4 KiB alone, made durable in the same way, before the cluster started; null where nothing is synced.
  public var bareSyncNanoseconds: LatencySummary?

  public init(sync: String, writeMode: String?, fileSystem: String?, bareSyncNanoseconds: LatencySummary?) {
    self.sync = sync
    self.writeMode = writeMode
    self.fileSystem = fileSystem
    self.bareSyncNanoseconds = bareSyncNanoseconds
  }
}

/// What the whole bench was told.
public struct BenchConfiguration: Codable, Sendable, Equatable {
  public var suite: String
  public var target: String
  public var nodes: Int
  /// The sync policy of the nodes' logs, as `StorageSummary.sync`.
  public var durability: String
  public var tickMilliseconds: Int
  public var electionTicks: Int
  public var heartbeatTicks: Int
  public var workers: Int
  public var keys: Int
  public var valueBytes: Int
  public var distribution: String
  public var seed: UInt64
  /// How the nodes wait for their sockets: `poll` or `dispatch`; null where the target does not say.
  public var readiness: String?
  /// How long a node polls again before it sleeps.
  public var repollMicroseconds: Double?
  /// Whether threads that ask something of a sleeping node run its loop themselves; null in results from before that.
  public var callersDrive: Bool?
  /// How long the machine's processors were allowed to take to leave an idle state; null where nothing was asked of them.
  public var cpuLatencyMicroseconds: Int?

  public init(
    suite: String, target: String, nodes: Int, durability: String, tickMilliseconds: Int, electionTicks: Int,
    heartbeatTicks: Int, workers: Int, keys: Int, valueBytes: Int, distribution: String, seed: UInt64,
    readiness: String? = nil, repollMicroseconds: Double? = nil, callersDrive: Bool? = nil,
    cpuLatencyMicroseconds: Int? = nil
  ) {
    self.suite = suite
    self.target = target
    self.nodes = nodes
    self.durability = durability
    self.tickMilliseconds = tickMilliseconds
    self.electionTicks = electionTicks
    self.heartbeatTicks = heartbeatTicks
    self.workers = workers
    self.keys = keys
    self.valueBytes = valueBytes
    self.distribution = distribution
    self.seed = seed
    self.readiness = readiness
    self.repollMicroseconds = repollMicroseconds
    self.callersDrive = callersDrive
    self.cpuLatencyMicroseconds = cpuLatencyMicroseconds
  }
}

extension BenchConfiguration {
  /// How the nodes wait, in words; nil where the target does not say.
  public var readinessText: String? {
    guard let readiness else { return nil }
    let repoll = repollMicroseconds ?? 0
    return "\(readiness) loop, " + (callersDrive ?? false ? "driven by callers, " : "") + "re-poll "
      + (repoll > 0 ? "\(Int(repoll.rounded())) µs" : "off")
      + (cpuLatencyMicroseconds.map { ", idle states of \($0) µs at most" } ?? "")
  }
}

/// One operation of one run. A mixed run has two of these under one name.
public struct RunSummary: Codable, Sendable {
  public var name: String
  /// `write` or `read`.
  public var operation: String
  /// `safe`, `lease`, or null where the run has no reads.
  public var readMode: String?
  /// `open` or `closed`.
  public var loop: String
  /// Most operations in flight at once.
  public var outstanding: Int
  public var workers: Int
  public var nodes: Int
  /// The sync policy of this run's cluster; null in results of before there was a choice.
  public var sync: String?
  public var valueBytes: Int
  public var readPercent: Int
  /// Asked for; null in a closed loop.
  public var ratePerSecond: Double?
  /// `uniform` or `poisson`; null in a closed loop.
  public var arrival: String?
  /// Length of the measured windows together.
  public var windowSeconds: Double
  /// Of this operation: measured, and answered well.
  public var operations: UInt64
  public var errors: UInt64
  /// Of this operation.
  public var opsPerSecond: Double
  /// Of the whole process (nodes and generator) for each operation of the run, of whichever kind.
  public var cpuMicrosecondsPerOp: Double
  /// CPU time of the load workers' threads within that. What an embedded target does on the caller's thread (a read
  /// under the lease, say) is among it.
  public var workerCpuMicrosecondsPerOp: Double
  /// CPU time of the nodes' own threads within that; null where the target cannot tell.
  public var nodeCpuMicrosecondsPerOp: Double?
  /// Messages between nodes for each operation of the run; null where the target cannot count them.
  public var messagesPerOp: Double?
  public var peerBytesPerOp: Double?
  public var wakeupsPerOp: Double?
  public var fsyncsPerOp: Double?
  /// From the intended start to the answer (in a closed loop: from the sending).
  public var responseNanoseconds: LatencySummary
  /// From the sending to the answer.
  public var serviceNanoseconds: LatencySummary
  /// From the intended start to the sending; null in a closed loop.
  public var lagNanoseconds: LatencySummary?
  /// Of the whole run.
  public var late: UInt64
  public var unsent: UInt64
  public var meanInFlight: Double
  public var littlesLawError: Double?
  /// Null where the run was too short to say.
  public var steady: Bool?
  /// The largest p99 of a worker over the smallest; above 2 the workers saw different targets.
  public var workerP99Spread: Double?

  public init(
    name: String, operation: String, readMode: String?, loop: String, outstanding: Int, workers: Int, nodes: Int,
    sync: String? = nil, valueBytes: Int, readPercent: Int, ratePerSecond: Double?, arrival: String?,
    windowSeconds: Double,
    operations: UInt64, errors: UInt64, opsPerSecond: Double, cpuMicrosecondsPerOp: Double,
    workerCpuMicrosecondsPerOp: Double, nodeCpuMicrosecondsPerOp: Double?, messagesPerOp: Double?,
    peerBytesPerOp: Double?, wakeupsPerOp: Double?,
    fsyncsPerOp: Double?, responseNanoseconds: LatencySummary, serviceNanoseconds: LatencySummary,
    lagNanoseconds: LatencySummary?, late: UInt64, unsent: UInt64, meanInFlight: Double, littlesLawError: Double?,
    steady: Bool?, workerP99Spread: Double?
  ) {
    self.name = name
    self.operation = operation
    self.readMode = readMode
    self.loop = loop
    self.outstanding = outstanding
    self.workers = workers
    self.nodes = nodes
    self.sync = sync
    self.valueBytes = valueBytes
    self.readPercent = readPercent
    self.ratePerSecond = ratePerSecond
    self.arrival = arrival
    self.windowSeconds = windowSeconds
    self.operations = operations
    self.errors = errors
    self.opsPerSecond = opsPerSecond
    self.cpuMicrosecondsPerOp = cpuMicrosecondsPerOp
    self.workerCpuMicrosecondsPerOp = workerCpuMicrosecondsPerOp
    self.nodeCpuMicrosecondsPerOp = nodeCpuMicrosecondsPerOp
    self.messagesPerOp = messagesPerOp
    self.peerBytesPerOp = peerBytesPerOp
    self.wakeupsPerOp = wakeupsPerOp
    self.fsyncsPerOp = fsyncsPerOp
    self.responseNanoseconds = responseNanoseconds
    self.serviceNanoseconds = serviceNanoseconds
    self.lagNanoseconds = lagNanoseconds
    self.late = late
    self.unsent = unsent
    self.meanInFlight = meanInFlight
    self.littlesLawError = littlesLawError
    self.steady = steady
    self.workerP99Spread = workerP99Spread
  }

  /// Null is written, not left out: scripts may rely on the names.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(name, forKey: .name)
    try container.encode(operation, forKey: .operation)
    try container.encode(readMode, forKey: .readMode)
    try container.encode(loop, forKey: .loop)
    try container.encode(outstanding, forKey: .outstanding)
    try container.encode(workers, forKey: .workers)
    try container.encode(nodes, forKey: .nodes)
    try container.encode(valueBytes, forKey: .valueBytes)
    try container.encode(readPercent, forKey: .readPercent)
    try container.encode(ratePerSecond, forKey: .ratePerSecond)
    try container.encode(arrival, forKey: .arrival)
    try container.encode(windowSeconds, forKey: .windowSeconds)
    try container.encode(operations, forKey: .operations)
    try container.encode(errors, forKey: .errors)
    try container.encode(opsPerSecond, forKey: .opsPerSecond)
    try container.encode(cpuMicrosecondsPerOp, forKey: .cpuMicrosecondsPerOp)
    try container.encode(workerCpuMicrosecondsPerOp, forKey: .workerCpuMicrosecondsPerOp)
    try container.encode(nodeCpuMicrosecondsPerOp, forKey: .nodeCpuMicrosecondsPerOp)
    try container.encode(messagesPerOp, forKey: .messagesPerOp)
    try container.encode(peerBytesPerOp, forKey: .peerBytesPerOp)
    try container.encode(wakeupsPerOp, forKey: .wakeupsPerOp)
    try container.encode(fsyncsPerOp, forKey: .fsyncsPerOp)
    try container.encode(responseNanoseconds, forKey: .responseNanoseconds)
    try container.encode(serviceNanoseconds, forKey: .serviceNanoseconds)
    try container.encode(lagNanoseconds, forKey: .lagNanoseconds)
    try container.encode(late, forKey: .late)
    try container.encode(unsent, forKey: .unsent)
    try container.encode(meanInFlight, forKey: .meanInFlight)
    try container.encode(littlesLawError, forKey: .littlesLawError)
    try container.encode(steady, forKey: .steady)
    try container.encode(workerP99Spread, forKey: .workerP99Spread)
  }
}

/// Lease reads against Safe reads: the same cluster, in the same minute, in slices S L L S / L S S L.
public struct LeaseToSafe: Codable, Sendable, Equatable {
  /// Throughput of Lease over that of Safe: the Hodges–Lehmann estimate over the blocks' log ratios, with its
  /// distribution-free confidence interval.
  public var throughputRatio: Statistics.Interval
  /// Confidence that was asked for.
  public var confidence: Double
  /// The ratio of each block of four slices.
  public var blockRatios: [Double]
  public var safeOpsPerSecond: Double
  public var leaseOpsPerSecond: Double
  public var safeMessagesPerRead: Double?
  public var leaseMessagesPerRead: Double?
  public var safeCpuMicrosecondsPerRead: Double
  public var leaseCpuMicrosecondsPerRead: Double

  public init(
    throughputRatio: Statistics.Interval, confidence: Double, blockRatios: [Double], safeOpsPerSecond: Double,
    leaseOpsPerSecond: Double, safeMessagesPerRead: Double?, leaseMessagesPerRead: Double?,
    safeCpuMicrosecondsPerRead: Double, leaseCpuMicrosecondsPerRead: Double
  ) {
    self.throughputRatio = throughputRatio
    self.confidence = confidence
    self.blockRatios = blockRatios
    self.safeOpsPerSecond = safeOpsPerSecond
    self.leaseOpsPerSecond = leaseOpsPerSecond
    self.safeMessagesPerRead = safeMessagesPerRead
    self.leaseMessagesPerRead = leaseMessagesPerRead
    self.safeCpuMicrosecondsPerRead = safeCpuMicrosecondsPerRead
    self.leaseCpuMicrosecondsPerRead = leaseCpuMicrosecondsPerRead
  }

  /// The ratio over blocks of slices, each slice a throughput: ½ Σ ln lease − ½ Σ ln safe for each block.
  ///
  /// Pairing within a block cancels what drifts slowly; the order S L L S cancels what drifts evenly within it.
  public static func ratio(safe: [[Double]], lease: [[Double]], confidence: Double) -> (
    interval: Statistics.Interval, blocks: [Double]
  ) {
    let logs = zip(safe, lease).compactMap { safe, lease -> Double? in
      guard !safe.isEmpty, !lease.isEmpty, safe.allSatisfy({ $0 > 0 }), lease.allSatisfy({ $0 > 0 }) else { return nil }
      return meanOfLogs(lease) - meanOfLogs(safe)
    }
    let interval = Statistics.hodgesLehmannInterval(logs, confidence: confidence)
    return (
      Statistics.Interval(
        estimate: exponential(interval.estimate), low: exponential(interval.low), high: exponential(interval.high)),
      logs.map(exponential)
    )
  }
}

/// Whether what the cluster answered was right.
public struct ConsistencySummary: Codable, Sendable {
  public struct Replica: Codable, Sendable, Equatable {
    public var node: UInt64
    public var appliedIndex: UInt64
    /// 16 hexadecimal digits.
    public var stateHash: String
    public var keys: UInt64

    public init(node: UInt64, appliedIndex: UInt64, stateHash: String, keys: UInt64) {
      self.node = node
      self.appliedIndex = appliedIndex
      self.stateHash = stateHash
      self.keys = keys
    }
  }

  /// Every operation of the bench, warm-up and preload included.
  public var operationsTotal: UInt64
  /// Those that the check looked at: all on a seeded subset of the keys.
  public var operationsChecked: UInt64
  public var operationShare: Double
  public var keysChecked: Int
  public var keyShare: Double
  public var linearizable: Bool
  public var violatedKeys: Int
  /// What is wrong with them, in words.
  public var violations: [String]
  public var undecidedKeys: Int
  public var replicas: [Replica]
  /// Null where the target has no replicas to compare.
  public var replicasAgree: Bool?

  public init(
    operationsTotal: UInt64, operationsChecked: UInt64, keysChecked: Int, keyShare: Double, linearizable: Bool,
    violatedKeys: Int, violations: [String], undecidedKeys: Int, replicas: [Replica], replicasAgree: Bool?
  ) {
    self.operationsTotal = operationsTotal
    self.operationsChecked = operationsChecked
    operationShare = operationsTotal > 0 ? Double(operationsChecked) / Double(operationsTotal) : 0
    self.keysChecked = keysChecked
    self.keyShare = keyShare
    self.linearizable = linearizable
    self.violatedKeys = violatedKeys
    self.violations = violations
    self.undecidedKeys = undecidedKeys
    self.replicas = replicas
    self.replicasAgree = replicasAgree
  }
}

/// What gossip cost in the measured windows of all runs, for each node and second; and consensus, for comparison.
public struct GossipSummary: Codable, Sendable, Equatable {
  /// Length of those windows together.
  public var windowSeconds: Double
  /// Packets sent.
  public var packetsPerNodeSecond: Double
  /// Bytes of packets and streams sent, without the headers of IP, UDP and TCP.
  public var bytesPerNodeSecond: Double
  /// CPU time on gossip's own queue.
  public var cpuMicrosecondsPerNodeSecond: Double
  public var consensusMessagesPerNodeSecond: Double?
  public var consensusBytesPerNodeSecond: Double?
  /// CPU time of the nodes' event loops.
  public var consensusCpuMicrosecondsPerNodeSecond: Double?

  public init(
    windowSeconds: Double, packetsPerNodeSecond: Double, bytesPerNodeSecond: Double,
    cpuMicrosecondsPerNodeSecond: Double, consensusMessagesPerNodeSecond: Double?,
    consensusBytesPerNodeSecond: Double?, consensusCpuMicrosecondsPerNodeSecond: Double?
  ) {
    self.windowSeconds = windowSeconds
    self.packetsPerNodeSecond = packetsPerNodeSecond
    self.bytesPerNodeSecond = bytesPerNodeSecond
    self.cpuMicrosecondsPerNodeSecond = cpuMicrosecondsPerNodeSecond
    self.consensusMessagesPerNodeSecond = consensusMessagesPerNodeSecond
    self.consensusBytesPerNodeSecond = consensusBytesPerNodeSecond
    self.consensusCpuMicrosecondsPerNodeSecond = consensusCpuMicrosecondsPerNodeSecond
  }
}

/// What the generator can do against a target that costs nothing.
public struct GeneratorSummary: Codable, Sendable, Equatable {
  public var nullTargetOpsPerSecond: Double
  public var nullTargetCpuNanosecondsPerOp: Double
  /// That rate over the highest of the bench; below 3 the generator may be what was measured.
  public var headroom: Double?

  public init(nullTargetOpsPerSecond: Double, nullTargetCpuNanosecondsPerOp: Double, headroom: Double?) {
    self.nullTargetOpsPerSecond = nullTargetOpsPerSecond
    self.nullTargetCpuNanosecondsPerOp = nullTargetCpuNanosecondsPerOp
    self.headroom = headroom
  }
}

/// One hot path of the optimized core, measured alone.
public struct HotPathSummary: Codable, Sendable, Equatable {
  /// The same work done the plain way, or what no way can beat, measured in the same minute.
  public struct Reference: Codable, Sendable, Equatable {
    public var name: String
    public var nanosecondsPerOp: Double

    public init(name: String, nanosecondsPerOp: Double) {
      self.name = name
      self.nanosecondsPerOp = nanosecondsPerOp
    }
  }

  public var name: String
  /// Which of the hot paths it belongs to, e.g. `log-append`.
  public var suite: String
  public var nanosecondsPerOp: Double
  public var allocationsPerOp: Double
  /// Bytes allocated.
  public var bytesPerOp: Double
  public var reference: Reference?

  public init(
    name: String, suite: String, nanosecondsPerOp: Double, allocationsPerOp: Double, bytesPerOp: Double,
    reference: Reference?
  ) {
    self.name = name
    self.suite = suite
    self.nanosecondsPerOp = nanosecondsPerOp
    self.allocationsPerOp = allocationsPerOp
    self.bytesPerOp = bytesPerOp
    self.reference = reference
  }
}
