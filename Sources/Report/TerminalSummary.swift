import Measure

/// The summary that a bench prints: at most 40 lines of at most 120 columns.
public enum TerminalSummary {
  public static let mostLines = 40

  /// - Parameter files: where the results were written; nil where they were not.
  public static func text(_ summary: BenchSummary, files: String?) -> String {
    let head = header(summary) + [""]
    var tail = [""] + comparison(summary) + [consistency(summary)] + gossip(summary) + [generator(summary)]
    tail += hotPaths(summary)
    if let files { tail.append("files        \(files)/") }
    tail += verdict(summary)
    var middle = table(summary)
    // A long list of runs gives way, and says so: the verdict is always seen.
    let room = mostLines - head.count - tail.count
    if middle.count > room {
      middle = Array(middle.prefix(max(0, room - 1))) + ["… \(middle.count - room + 1) more lines in summary.json"]
    }
    return (head + middle + tail).joined(separator: "\n") + "\n"
  }

  private static func header(_ summary: BenchSummary) -> [String] {
    let configuration = summary.configuration
    let machine = summary.machine
    let cluster =
      "\(configuration.nodes) nodes (\(configuration.target), \(storage(summary))), "
      + "\(NumberFormat.grouped(Double(configuration.keys))) keys \(configuration.distribution), "
      + "\(configuration.valueBytes)-byte values, \(configuration.workers) load workers, seed \(configuration.seed)"
    let revision = machine.shortRevision + (machine.gitIsDirty ? " with changes" : "")
    return [
      "weir bench \(configuration.suite): \(cluster)",
      "\(machine.cpuModel), \(machine.logicalCores) cores; \(machine.allocator); Swift \(machine.toolchain) "
        + "(\(machine.buildConfiguration)); commit \(revision)" + (configuration.readinessText.map { "; \($0)" } ?? ""),
    ]
  }

  /// The log's sync policy, how it is written, and where.
  static func storage(_ summary: BenchSummary) -> String {
    guard summary.configuration.durability != "memory" else { return "log in memory" }
    var text = "log synced \(summary.configuration.durability)"
    if let storage = summary.storage, let mode = storage.writeMode, let kind = storage.fileSystem {
      text += ", \(mode) on \(kind)"
    }
    return text
  }

  // MARK: Runs

  private static let columns = ["p50", "p90", "p99", "p99.9", "p99.99", "max"]

  private static func table(_ summary: BenchSummary) -> [String] {
    var lines: [String] = []
    let titles = [
      ("closed", "PEAK THROUGHPUT (closed loop: latency is service time, of a target that is never overasked)"),
      ("open", "LATENCY AT A FIXED RATE (open loop: from the intended start, no coordinated omission)"),
    ]
    for (loop, title) in titles {
      let runs = summary.runs.filter { $0.loop == loop }
      guard !runs.isEmpty else { continue }
      lines.append(title)
      let heads = columns.map { NumberFormat.right($0, 9) }.joined()
      lines.append(
        NumberFormat.left("", 28) + NumberFormat.right("ops/s", 11) + NumberFormat.right("CPU µs", 8)
          + NumberFormat.right("msgs/op", 9) + heads + (loop == "open" ? NumberFormat.right("svc p99", 10) : "")
          + "  µs")
      lines += runs.map(row)
    }
    return lines
  }

  private static func row(_ run: RunSummary) -> String {
    let response = run.responseNanoseconds
    let quantiles = [response.p50, response.p90, response.p99, response.p999, response.p9999, response.max]
    let isMixed = run.readPercent > 0 && run.readPercent < 100
    let name = isMixed ? "\(run.name) \(run.operation)" : run.name
    var line = "  " + NumberFormat.left(name, 26)
    line += NumberFormat.right(NumberFormat.grouped(run.opsPerSecond), 11)
    line += NumberFormat.right(NumberFormat.short(run.cpuMicrosecondsPerOp), 8)
    line += NumberFormat.right(NumberFormat.short(run.messagesPerOp), 9)
    line += quantiles.map { NumberFormat.right(" " + NumberFormat.microseconds($0), 9) }.joined()
    if run.loop == "open" {
      line += NumberFormat.right(" " + NumberFormat.microseconds(run.serviceNanoseconds.p99), 10)
    }
    if run.errors > 0 { line += "  \(run.errors) ERRORS" }
    return line
  }

  // MARK: What follows the table

  private static func comparison(_ summary: BenchSummary) -> [String] {
    guard let lease = summary.leaseToSafe else { return [] }
    let ratio = lease.throughputRatio
    var cost = "CPU \(NumberFormat.short(lease.leaseCpuMicrosecondsPerRead)) against "
    cost += "\(NumberFormat.short(lease.safeCpuMicrosecondsPerRead)) µs a read"
    if let leaseMessages = lease.leaseMessagesPerRead, let safeMessages = lease.safeMessagesPerRead {
      cost += ", messages \(NumberFormat.short(leaseMessages)) against \(NumberFormat.short(safeMessages))"
    }
    let interval = "[\(NumberFormat.short(ratio.low)), \(NumberFormat.short(ratio.high))]"
    return [
      "lease/safe   \(NumberFormat.short(ratio.estimate)) × the throughput, "
        + "\(Int(lease.confidence * 100)) % confidence \(interval) over \(lease.blockRatios.count) blocks; \(cost)"
    ]
  }

  private static func consistency(_ summary: BenchSummary) -> String {
    let consistency = summary.consistency
    let verdict =
      consistency.undecidedKeys > 0 && consistency.violatedKeys == 0
      ? "UNDECIDED" : (consistency.linearizable ? "linearizable" : "NOT LINEARIZABLE")
    let replicas =
      switch consistency.replicasAgree {
      case true?: "; \(consistency.replicas.count) replicas agree"
      case false?: "; REPLICAS DIFFER"
      case nil: ""
      }
    return
      "history      \(verdict): \(NumberFormat.grouped(Double(consistency.operationsChecked))) of "
      + "\(NumberFormat.grouped(Double(consistency.operationsTotal))) operations checked "
      + "(all on \(NumberFormat.percent(consistency.keyShare)) of the keys)\(replicas)"
  }

  /// Per second of each node: gossip, and what consensus took beside it.
  private static func gossip(_ summary: BenchSummary) -> [String] {
    guard let gossip = summary.gossip else { return [] }
    var line =
      "gossip       per node and second: \(NumberFormat.short(gossip.packetsPerNodeSecond)) packets, "
      + "\(NumberFormat.grouped(gossip.bytesPerNodeSecond)) bytes, "
      + "\(NumberFormat.grouped(gossip.cpuMicrosecondsPerNodeSecond)) µs CPU"
    if let messages = gossip.consensusMessagesPerNodeSecond, let cpu = gossip.consensusCpuMicrosecondsPerNodeSecond {
      line += "; consensus: \(NumberFormat.grouped(messages)) messages, \(NumberFormat.grouped(cpu)) µs"
    }
    return [line]
  }

  private static func generator(_ summary: BenchSummary) -> String {
    let generator = summary.generator
    var line = "generator    \(NumberFormat.grouped(generator.nullTargetOpsPerSecond)) operations/s alone"
    if let headroom = generator.headroom { line += ", \(NumberFormat.short(headroom)) × the fastest run" }
    return line + "; \(NumberFormat.short(generator.nullTargetCpuNanosecondsPerOp)) ns of CPU an operation"
  }

  /// The first path of each suite; all of them are in the JSON.
  private static func hotPaths(_ summary: BenchSummary) -> [String] {
    var suites: Set<String> = []
    let first = summary.hotPaths.filter { suites.insert($0.suite).inserted }.prefix(6)
    return first.enumerated().map { index, path in
      let reference = path.reference.map { " (\($0.name): \(NumberFormat.short($0.nanosecondsPerOp)) ns)" } ?? ""
      return NumberFormat.left(index == 0 ? "hot paths" : "", 13) + NumberFormat.left(path.name, 28)
        + "\(NumberFormat.short(path.nanosecondsPerOp)) ns, "
        + "\(NumberFormat.short(path.allocationsPerOp)) allocations\(reference)"
    }
  }

  private static func verdict(_ summary: BenchSummary) -> [String] {
    var lines = summary.warnings.prefix(2).map { "warning      \($0)" }
    if summary.warnings.count > 2 { lines.append("warning      \(summary.warnings.count - 2) more in summary.json") }
    if summary.valid {
      lines.append("VERDICT      valid, in \(NumberFormat.short(summary.durationSeconds)) s")
    } else {
      lines += summary.problems.prefix(4).map { "problem      \(clipped($0))" }
      if summary.problems.count > 4 { lines.append("problem      \(summary.problems.count - 4) more in summary.json") }
      lines.append("VERDICT      \(summary.aborted ? "ABORTED" : "INVALID"): these numbers must not be relied on")
    }
    return lines
  }

  private static func clipped(_ text: String) -> String {
    text.count <= 300 ? text : String(text.prefix(299)) + "…"
  }
}
