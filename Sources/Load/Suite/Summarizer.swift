import Measure

extension SuiteOutcome {
  /// One entry for each operation of each run.
  public func runSummaries() -> [RunSummary] {
    let own = runs.flatMap { run -> [RunSummary] in
      let readPercent = run.template.workload.readPercent
      var summaries: [RunSummary] = []
      if readPercent > 0 { summaries.append(summary(of: run, isRead: true)) }
      if readPercent < 100 { summaries.append(summary(of: run, isRead: false)) }
      return summaries
    }
    return own + comparisons.flatMap { $0.runSummaries() }
  }

  private func summary(of run: FinishedRun, isRead: Bool) -> RunSummary {
    let result = run.result
    let measurement = isRead ? result.reads : result.writes
    let completed = Double(max(result.completedInWindow, 1))
    // Of a mixed run each operation has its part of the throughput.
    let part = result.operations > 0 ? Double(measurement.response.count) / Double(result.operations) : 0
    var rate: Double?
    var arrival: String?
    if case .open(let ratePerSecond, let kind, _) = run.template.loop {
      rate = ratePerSecond
      arrival = kind.rawValue
    }
    func perOperation(_ count: UInt64?) -> Double? { count.map { Double($0) / completed } }
    let spread = result.workerP99.min().flatMap { low in
      low > 0 ? result.workerP99.max().map { Double($0) / Double(low) } : nil
    }
    return RunSummary(
      name: run.template.name, operation: isRead ? "read" : "write",
      readMode: run.template.workload.readPercent > 0 ? run.template.readMode.rawValue : nil,
      loop: run.template.loop.isOpen ? "open" : "closed", outstanding: run.template.loop.outstanding,
      workers: plan.workers, nodes: plan.cluster.nodes, sync: run.durability.description,
      valueBytes: run.template.workload.valueBytes,
      readPercent: run.template.workload.readPercent, ratePerSecond: rate, arrival: arrival,
      windowSeconds: result.windowSeconds, operations: measurement.response.count, errors: measurement.errors,
      opsPerSecond: result.opsPerSecond * part,
      cpuMicrosecondsPerOp: Double(result.processCPUNanoseconds) / completed / 1000,
      workerCpuMicrosecondsPerOp: Double(result.workerCPUNanoseconds) / completed / 1000,
      nodeCpuMicrosecondsPerOp: perOperation(result.counters.nodeCPUNanoseconds).map { $0 / 1000 },
      messagesPerOp: perOperation(result.counters.peerMessages),
      peerBytesPerOp: perOperation(result.counters.peerBytes), wakeupsPerOp: perOperation(result.counters.wakeups),
      fsyncsPerOp: perOperation(result.counters.fsyncs),
      responseNanoseconds: LatencySummary(measurement.response),
      serviceNanoseconds: LatencySummary(measurement.service),
      lagNanoseconds: run.template.loop.isOpen ? LatencySummary(measurement.lag) : nil, late: result.late,
      unsent: result.unsent, meanInFlight: result.meanInFlight, littlesLawError: result.littlesLawError,
      steady: result.isSteady, workerP99Spread: spread)
  }

  /// Lease against Safe, where both peaks ran interleaved.
  public func leaseToSafe(confidence: Double = 0.95) -> LeaseToSafe? {
    guard let safe = runs.first(where: { $0.template.name == "reads-safe-peak" }),
      let lease = runs.first(where: { $0.template.name == "reads-lease-peak" }), safe.isInterleaved
    else { return nil }
    // Two slices of each mode make a block; a block that was cut off does not count.
    let blocks = min(safe.sliceOpsPerSecond.count, lease.sliceOpsPerSecond.count) / 2
    guard blocks > 0 else { return nil }
    func pairs(_ run: FinishedRun) -> [[Double]] {
      (0..<blocks).map { Array(run.sliceOpsPerSecond[2 * $0..<2 * $0 + 2]) }
    }
    let ratio = LeaseToSafe.ratio(safe: pairs(safe), lease: pairs(lease), confidence: confidence)
    guard !ratio.blocks.isEmpty else { return nil }
    return LeaseToSafe(
      throughputRatio: ratio.interval, confidence: confidence, blockRatios: ratio.blocks,
      safeOpsPerSecond: safe.result.opsPerSecond, leaseOpsPerSecond: lease.result.opsPerSecond,
      safeMessagesPerRead: safe.result.messagesPerOperation,
      leaseMessagesPerRead: lease.result.messagesPerOperation,
      safeCpuMicrosecondsPerRead: safe.result.cpuNanosecondsPerOperation / 1000,
      leaseCpuMicrosecondsPerRead: lease.result.cpuNanosecondsPerOperation / 1000)
  }

  /// What gossip cost in the measured windows, beside consensus; nil where the target has none.
  public func gossipSummary() -> GossipSummary? {
    guard var total = runs.first?.result.counters else { return nil }
    for run in runs.dropFirst() { total = total.adding(run.result.counters) }
    guard let packets = total.gossipPackets, let bytes = total.gossipBytes, let cpu = total.gossipCPUNanoseconds else {
      return nil
    }
    let seconds = runs.reduce(0) { $0 + $1.result.windowSeconds }
    guard seconds > 0 else { return nil }
    func share(_ count: UInt64) -> Double { Double(count) / seconds / Double(plan.cluster.nodes) }
    return GossipSummary(
      windowSeconds: seconds, packetsPerNodeSecond: share(packets), bytesPerNodeSecond: share(bytes),
      cpuMicrosecondsPerNodeSecond: share(cpu) / 1000, consensusMessagesPerNodeSecond: total.peerMessages.map(share),
      consensusBytesPerNodeSecond: total.peerBytes.map(share),
      consensusCpuMicrosecondsPerNodeSecond: total.nodeCPUNanoseconds.map { share($0) / 1000 })
  }

  public func consistencySummary() -> ConsistencySummary {
    ConsistencySummary(
      operationsTotal: operationsTotal, operationsChecked: UInt64(linearizability.operations),
      keysChecked: linearizability.keys, keyShare: historySelection.share,
      linearizable: linearizability.isLinearizable, violatedKeys: linearizability.violatedKeys,
      violations: linearizability.violations.map(\.explanation),
      undecidedKeys: linearizability.undecidedKeys.count,
      replicas: replicas.map { replica in
        let digits = String(replica.hash, radix: 16)
        return ConsistencySummary.Replica(
          node: replica.node, appliedIndex: replica.appliedIndex,
          stateHash: String(repeating: "0", count: 16 - digits.count) + digits, keys: replica.keys)
      }, replicasAgree: replicasAgree)
  }

  public func configuration() -> BenchConfiguration {
    BenchConfiguration(
      suite: plan.name, target: targetName, nodes: plan.cluster.nodes,
      durability: plan.cluster.durability.description, tickMilliseconds: plan.cluster.tickMilliseconds,
      electionTicks: plan.cluster.electionTicks, heartbeatTicks: plan.cluster.heartbeatTicks,
      workers: plan.workers, keys: plan.keys, valueBytes: plan.valueBytes,
      distribution: plan.distribution.description, seed: plan.seed, readiness: readiness?.mechanism,
      repollMicroseconds: readiness?.repollMicroseconds, callersDrive: readiness?.callersDrive)
  }
}
