import Foundation
import Measure

/// `report.html`: one file without scripts, network or fonts of its own, that says whether the result counts before it
/// says what the result is.
public enum HTMLReport {
  public static func text(_ data: ReportData) -> String {
    let summary = data.summary
    var body = header(summary)
    body += validity(summary)
    body += comparison(summary)
    body += hockeyStick(data.sweep)
    body += spectrum(data.spectra.filter(\.isOpen), title: "Latency at a fixed rate, by percentile")
    body += spectrum(data.spectra.filter { !$0.isOpen }, title: "Closed loop: service time by percentile")
    body += runs(summary)
    body += series(data.rows)
    body += hotPaths(summary)
    body += environment(summary)
    body += methodology(summary)
    return """
      <!DOCTYPE html>
      <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
      <title>weir bench \(HTML.escaped(summary.startedUTC))</title>
      <style>\(ReportStyle.css)</style></head><body><main>
      \(body)</main></body></html>

      """
  }

  // MARK: Header

  private static func header(_ summary: BenchSummary) -> String {
    let badge = summary.valid ? "VALID" : (summary.aborted ? "ABORTED" : "INVALID")
    var text = "<header><p><strong class=\"badge \(summary.valid ? "good" : "bad")\">\(badge)</strong> "
    text +=
      "weir bench, suite “\(HTML.escaped(summary.configuration.suite))”, \(HTML.escaped(summary.startedUTC))</p>\n"
    text += "<h1>\(HTML.escaped(conclusion(summary)))</h1>\n"
    let machine = summary.machine
    text += "<p>\(HTML.escaped(machine.cpuModel)), \(machine.logicalCores) cores"
    text += "\(machine.isVirtual ? " (virtual)" : ""), \(HTML.escaped(machine.allocator)), Swift "
    text += "\(HTML.escaped(machine.toolchain)), commit \(HTML.escaped(machine.shortRevision))"
    text += "\(machine.gitIsDirty ? " with uncommitted changes" : "").</p>\n"
    text += "<pre>swift run -c release \(HTML.escaped(summary.command))</pre></header>\n"
    return text
  }

  /// One sentence, written from the data.
  static func conclusion(_ summary: BenchSummary) -> String {
    guard summary.valid else {
      return "This result must not be relied on: \(summary.problems.first ?? "it is not valid")."
    }
    if let lease = summary.leaseToSafe {
      let ratio = lease.throughputRatio
      var text = "Lease reads sustain \(NumberFormat.short(ratio.estimate))× "
      text += "[\(NumberFormat.short(ratio.low)), \(NumberFormat.short(ratio.high))] the throughput of Safe reads"
      if let leaseMessages = lease.leaseMessagesPerRead, let safeMessages = lease.safeMessagesPerRead {
        text += ", at \(NumberFormat.short(leaseMessages)) against \(NumberFormat.short(safeMessages)) messages a read"
      }
      return text + "."
    }
    guard let fastest = summary.runs.max(by: { $0.opsPerSecond < $1.opsPerSecond }) else { return "No run." }
    return "\(fastest.name): \(NumberFormat.grouped(fastest.opsPerSecond)) operations a second."
  }

  // MARK: Validity

  private static func validity(_ summary: BenchSummary) -> String {
    let consistency = summary.consistency
    let open = summary.runs.filter { $0.loop == "open" }
    let errors = summary.runs.reduce(0) { $0 + $1.errors }
    let little = summary.runs.compactMap(\.littlesLawError).max()
    var checks: [(Bool, String)] = [
      (errors == 0, "errors: \(errors)"),
      (
        consistency.linearizable,
        "history linearizable: \(NumberFormat.grouped(Double(consistency.operationsChecked))) of "
          + "\(NumberFormat.grouped(Double(consistency.operationsTotal))) operations checked, all on "
          + "\(consistency.keysChecked) keys (\(NumberFormat.percent(consistency.keyShare)) of them)"
      ),
    ]
    if let agree = consistency.replicasAgree {
      checks.append((agree, "\(consistency.replicas.count) replicas hold the same state"))
    }
    if !open.isEmpty {
      let unsent = open.reduce(0) { $0 + $1.unsent }
      let late = open.reduce(0) { $0 + $1.late }
      checks.append((unsent == 0, "schedule kept: \(unsent) operations not sent, \(late) sent late"))
    }
    if let little {
      checks.append((little <= 0.05, "Little’s law: off by \(NumberFormat.percent(little)) at most (5 % allowed)"))
    }
    if let headroom = summary.generator.headroom {
      checks.append(
        (headroom >= 3, "the generator alone is \(NumberFormat.short(headroom))× as fast as the fastest run"))
    }
    var text = "<section><h2>Does it count?</h2><ul class=\"checks\">\n"
    for (isGood, what) in checks {
      text += "<li class=\"\(isGood ? "good" : "bad")\">\(isGood ? "✓" : "✗") \(HTML.escaped(what))</li>\n"
    }
    text += "</ul>\n"
    if !summary.problems.isEmpty {
      text += "<h3>Problems</h3><ul>"
      text += summary.problems.prefix(50).map { "<li class=\"bad\">\(HTML.escaped($0))</li>\n" }.joined() + "</ul>"
    }
    if !summary.warnings.isEmpty {
      text += "<h3>Warnings</h3><ul>"
      text += summary.warnings.map { "<li>\(HTML.escaped($0))</li>\n" }.joined() + "</ul>"
    }
    return text + "</section>\n"
  }

  // MARK: Lease against Safe

  private static func comparison(_ summary: BenchSummary) -> String {
    guard let lease = summary.leaseToSafe else { return "" }
    let ratio = lease.throughputRatio
    let chart = LineChart(
      title: "Throughput of Lease over Safe, block by block (higher is better for Lease)", xTitle: "block",
      yTitle: "ratio", xScale: .linear, yScale: .linear,
      series: [
        .init(
          name: "S L L S / L S S L block",
          points: lease.blockRatios.enumerated().map { (Double($0 + 1), $1) }, color: 1, isScatter: true),
        .init(
          name: "estimate", points: [(0, ratio.estimate), (Double(lease.blockRatios.count + 1), ratio.estimate)],
          color: 2),
        .init(
          name: "\(Int(lease.confidence * 100)) % confidence, low",
          points: [(0, ratio.low), (Double(lease.blockRatios.count + 1), ratio.low)], color: 2, isDashed: true),
        .init(
          name: "\(Int(lease.confidence * 100)) % confidence, high",
          points: [(0, ratio.high), (Double(lease.blockRatios.count + 1), ratio.high)], color: 2, isDashed: true),
      ], xLabel: { NumberFormat.short($0) }, yLabel: { NumberFormat.short($0) }, reference: 1)
    var text = "<section><h2>Lease against Safe</h2>\n"
    text += HTML.table(
      ["read mode", "reads/s (closed loop)", "CPU µs a read", "messages a read"],
      [
        [
          "Safe (ReadIndex)", NumberFormat.grouped(lease.safeOpsPerSecond),
          NumberFormat.short(lease.safeCpuMicrosecondsPerRead), NumberFormat.short(lease.safeMessagesPerRead),
        ],
        [
          "Lease", NumberFormat.grouped(lease.leaseOpsPerSecond),
          NumberFormat.short(lease.leaseCpuMicrosecondsPerRead), NumberFormat.short(lease.leaseMessagesPerRead),
        ],
      ])
    text += chart.svg()
    text += """
      <p>Both modes are linearizable. A Safe read waits for a heartbeat round that confirms the leader; reads that wait \
      together share one. A Lease read is answered by the leader alone while its lease runs, which is safe only as long \
      as the clocks of the nodes run at nearly the same rate.</p></section>

      """
    return text
  }

  // MARK: Charts

  private static func spectrum(_ spectra: [LatencySpectrum], title: String) -> String {
    guard !spectra.isEmpty else { return "" }
    var series: [LineChart.Series] = []
    for (index, spectrum) in spectra.enumerated() {
      let name = "\(spectrum.run) \(spectrum.operation)"
      series.append(
        .init(name: "\(name), response", points: quantiles(spectrum.response), color: index % 6 + 1))
      if spectrum.isOpen {
        series.append(
          .init(
            name: "\(name), service", points: quantiles(spectrum.service), color: index % 6 + 1, isDashed: true))
      }
    }
    let chart = LineChart(
      title: title, xTitle: "percentile", yTitle: "latency", xScale: .nines, yScale: .logarithmic, series: series,
      xLabel: percentile, yLabel: { NumberFormat.duration($0) })
    var text = "<section><h2>\(HTML.escaped(title))</h2>\n" + chart.svg()
    if spectra.contains(where: \.isOpen) {
      text += "<p>Response time counts from when an operation was meant to start, service time from when it was sent. "
      text += "Where the two part, operations waited before they could be sent. Lower is better; a line ends where "
      text += "fewer than ten operations lie beyond it.</p>\n"
    }
    return text + "</section>\n"
  }

  /// As far as at least ten operations lie beyond.
  private static func quantiles(_ histogram: LatencyHistogram) -> [(x: Double, y: Double)] {
    let total = Double(histogram.count)
    return PercentileFile.lines(of: histogram.buckets(), total: histogram.count, ticksPerHalfDistance: 4)
      .filter { total * (1 - $0.quantile) >= 10 }
      .map { ($0.quantile, Double(max($0.nanoseconds, 1))) }
  }

  private static func percentile(_ quantile: Double) -> String {
    let percent = String(format: "%.6f", quantile * 100)
    let trimmed = percent.reversed().drop { $0 == "0" }.drop { $0 == "." }
    return (trimmed.isEmpty ? "0" : String(trimmed.reversed())) + " %"
  }

  private static func hockeyStick(_ sweep: [SweepPoint]) -> String {
    guard !sweep.isEmpty else { return "" }
    var names: [String] = []
    for point in sweep where !names.contains(point.series) { names.append(point.series) }
    var series: [LineChart.Series] = []
    for (index, name) in names.enumerated() {
      let points = sweep.filter { $0.series == name }.sorted { $0.offeredPerSecond < $1.offeredPerSecond }
      for (label, path, dashed) in [
        ("p50", \SweepPoint.p50Nanoseconds, false), ("p99", \.p99Nanoseconds, true),
        ("p99.9", \.p999Nanoseconds, true),
      ] {
        series.append(
          .init(
            name: "\(name), \(label)",
            points: points.compactMap { point in
              point[keyPath: path].map { (point.achievedPerSecond, Double(max($0, 1))) }
            }, color: (index * 3 + series.count % 3) % 6 + 1, isDashed: dashed))
      }
    }
    let latency = LineChart(
      title: "Latency against throughput", xTitle: "achieved operations/s", yTitle: "response time", xScale: .linear,
      yScale: .logarithmic, series: series, xLabel: { NumberFormat.grouped($0) },
      yLabel: { NumberFormat.duration($0) })
    let achieved = LineChart(
      title: "Offered against achieved (they part at saturation)", xTitle: "offered operations/s",
      yTitle: "achieved operations/s", xScale: .linear, yScale: .linear,
      series: names.enumerated().map { index, name in
        .init(
          name: name,
          points: sweep.filter { $0.series == name }.map { ($0.offeredPerSecond, $0.achievedPerSecond) },
          color: index % 6 + 1)
      }, xLabel: { NumberFormat.grouped($0) }, yLabel: { NumberFormat.grouped($0) })
    return "<section><h2>Saturation</h2>\n\(latency.svg())\(achieved.svg())</section>\n"
  }

  private static func series(_ rows: [IntervalRow]) -> String {
    guard !rows.isEmpty else { return "" }
    func line(_ name: String, _ color: Int, dashed: Bool = false, _ value: (IntervalRow) -> Double?) -> LineChart.Series
    {
      .init(
        name: name, points: rows.compactMap { row in value(row).map { (row.timeSeconds, $0) } }, color: color,
        isDashed: dashed)
    }
    let latency = LineChart(
      title: "Response time over the bench", xTitle: "seconds since the start", yTitle: "response time",
      xScale: .linear, yScale: .logarithmic,
      series: [
        line("p50", 1) { $0.p50Nanoseconds.map { Double(max($0, 1)) } },
        line("p99", 2) { $0.p99Nanoseconds.map { Double(max($0, 1)) } },
        line("max", 3, dashed: true) { Double(max($0.maxNanoseconds, 1)) },
      ], xLabel: { NumberFormat.short($0) }, yLabel: { NumberFormat.duration($0) })
    var names: [String] = []
    for row in rows where !names.contains(row.run) { names.append(row.run) }
    let throughput = LineChart(
      title: "Throughput over the bench", xTitle: "seconds since the start", yTitle: "operations/s", xScale: .linear,
      yScale: .logarithmic,
      series: names.enumerated().map { index, name in
        .init(
          name: name,
          points: rows.filter { $0.run == name }.map { ($0.timeSeconds, max($0.completedPerSecond, 1)) },
          color: index % 6 + 1, isScatter: true)
      }, xLabel: { NumberFormat.short($0) }, yLabel: { NumberFormat.grouped($0) })
    return "<section><h2>Over time</h2>\n\(throughput.svg())\(latency.svg())</section>\n"
  }

  // MARK: Tables

  private static func runs(_ summary: BenchSummary) -> String {
    let heads = [
      "run", "operation", "loop", "operations", "errors", "ops/s", "CPU µs/op", "on the load workers", "on the nodes",
      "messages/op",
      "p50", "p90", "p99", "p99.9", "p99.99", "max", "service p99", "late", "steady",
    ]
    let rows = summary.runs.map { run -> [String] in
      func latency(_ value: UInt64?) -> String { value.map { NumberFormat.duration(Double($0)) } ?? "n/a" }
      let response = run.responseNanoseconds
      let loop =
        run.ratePerSecond.map { "open, \(NumberFormat.grouped($0))/s \(run.arrival ?? "")" }
        ?? "closed, \(run.outstanding) in flight"
      return [
        run.name, run.operation, loop, NumberFormat.grouped(Double(run.operations)), String(run.errors),
        NumberFormat.grouped(run.opsPerSecond), NumberFormat.short(run.cpuMicrosecondsPerOp),
        NumberFormat.short(run.workerCpuMicrosecondsPerOp), NumberFormat.short(run.nodeCpuMicrosecondsPerOp),
        NumberFormat.short(run.messagesPerOp),
        latency(response.p50), latency(response.p90), latency(response.p99), latency(response.p999),
        latency(response.p9999), latency(response.max), latency(run.serviceNanoseconds.p99), String(run.late),
        run.steady.map { $0 ? "yes" : "no" } ?? "n/a",
      ]
    }
    return "<section><h2>Runs</h2>\n\(HTML.table(heads, rows))"
      + "<p>n/a: fewer than ten operations lie beyond the quantile, or the run was too short to say.</p></section>\n"
  }

  private static func hotPaths(_ summary: BenchSummary) -> String {
    guard !summary.hotPaths.isEmpty else { return "" }
    let rows = summary.hotPaths.map {
      [
        $0.name, NumberFormat.short($0.nanosecondsPerOp), NumberFormat.short($0.allocationsPerOp),
        NumberFormat.short($0.bytesPerOp), $0.reference?.name ?? "",
        $0.reference.map { NumberFormat.short($0.nanosecondsPerOp) } ?? "",
      ]
    }
    let heads = ["path", "ns", "allocations", "bytes allocated", "reference", "its ns"]
    return "<section><h2>Hot paths alone</h2>\n\(HTML.table(heads, rows))</section>\n"
  }

  private static func bareSync(_ summary: BenchSummary) -> String {
    guard let latency = summary.storage?.bareSyncNanoseconds else { return "not measured" }
    return "\(NumberFormat.microseconds(latency.p50)) µs"
  }

  private static func environment(_ summary: BenchSummary) -> String {
    let machine = summary.machine
    let configuration = summary.configuration
    let rows: [[String]] = [
      ["machine key", machine.key],
      ["processor", "\(machine.cpuVendor) \(machine.cpuModel), family/model \(machine.cpuFamily)"],
      ["logical cores, NUMA nodes", "\(machine.logicalCores), \(machine.numaNodes)"],
      ["memory", "\(machine.memoryBytes / (1 << 20)) MiB"], ["kernel", machine.kernel],
      ["allocator", machine.allocator], ["toolchain", "Swift \(machine.toolchain), \(machine.buildConfiguration)"],
      ["commit", machine.gitRevision + (machine.gitIsDirty ? " with uncommitted changes" : "")],
      ["nodes", "\(configuration.nodes)"], ["log", TerminalSummary.storage(summary)],
      ["bare write of 4 KiB, made durable, p50", bareSync(summary)],
      [
        "tick, election, heartbeat",
        "\(configuration.tickMilliseconds) ms, \(configuration.electionTicks) ticks, \(configuration.heartbeatTicks) ticks",
      ],
      ["readiness of sockets", configuration.readinessText ?? "not known"],
      ["keys", "\(configuration.keys), \(configuration.distribution)"],
      ["value", "\(configuration.valueBytes) bytes"], ["load workers", String(configuration.workers)],
      ["seed", String(configuration.seed)], ["duration", "\(NumberFormat.short(summary.durationSeconds)) s"],
      [
        "generator alone",
        "\(NumberFormat.grouped(summary.generator.nullTargetOpsPerSecond)) operations/s, "
          + "\(NumberFormat.short(summary.generator.nullTargetCpuNanosecondsPerOp)) ns of CPU each",
      ],
    ]
    let replicas = summary.consistency.replicas.map {
      [String($0.node), String($0.appliedIndex), String($0.keys), $0.stateHash]
    }
    var text = "<section><h2>Environment and configuration</h2>\n" + HTML.table(["what", "value"], rows)
    if !replicas.isEmpty {
      text += "<h3>Replicas at the end</h3>\n" + HTML.table(["node", "applied index", "keys", "state hash"], replicas)
    }
    return text + "</section>\n"
  }

  private static func methodology(_ summary: BenchSummary) -> String {
    """
    <section><h2>How it was measured, and what it does not say</h2>
    <p><b>Load.</b> Open-loop runs start operations at times fixed beforehand by the seed; an operation that cannot start \
    on time keeps its intended time, so waiting counts (no coordinated omission). Closed-loop runs start an operation when \
    an earlier one ends: they find the peak throughput, and their latency is that of a target which is never asked more \
    than it can do. Latencies are recorded in HdrHistograms of three digits, one for each worker and operation, and \
    merged; nothing is sampled, and no percentile is averaged.</p>
    <p><b>Comparison.</b> Lease and Safe ran in slices S L L S / L S S L against the same cluster. The ratio is the \
    Hodges–Lehmann estimate over the blocks’ log ratios, its interval the one that inverts the Wilcoxon signed-rank test.</p>
    <p><b>Correctness.</b> Every value carries the name of the write that made it. All operations on a seeded subset of the \
    keys, from the preload to the last run, were checked for linearizability (Gibbons and Korach’s zones), and the replicas’ \
    states were compared.</p>
    <p><b>Limits.</b> Nodes and generator share one host, one process and its \(summary.machine.logicalCores) cores; the \
    network is the loopback interface. Compare ratios and counts; absolute numbers are those of this machine on that day.</p>
    </section>

    """
  }
}
