import Foundation
import Measure
import Testing

@testable import Report

/// A summary such as a bench makes, with made-up numbers.
enum Sample {
  static func histogram(_ scale: UInt64, count: Int = 120_000) -> LatencyHistogram {
    var histogram = LatencyHistogram()
    for index in 0..<UInt64(count) {
      // A tail that gets longer with each nine.
      let place = index &* 2_654_435_761 % 1_000_000
      histogram.record(scale + scale * place / 1_000_000 + (place > 999_000 ? scale * 40 : 0))
    }
    return histogram
  }

  static func run(
    _ name: String, operation: String = "read", mode: String? = "safe", open: Bool, percent: Int = 100
  ) -> RunSummary {
    let histogram = histogram(open ? 90_000 : 400_000)
    return RunSummary(
      name: name, operation: operation, readMode: mode, loop: open ? "open" : "closed",
      outstanding: open ? 65_536 : 256, workers: 2, nodes: 3, valueBytes: 128, readPercent: percent,
      ratePerSecond: open ? 20_000 : nil, arrival: open ? "poisson" : nil, windowSeconds: 6, operations: 120_000,
      errors: 0, opsPerSecond: 612_345.6, cpuMicrosecondsPerOp: 1.234, workerCpuMicrosecondsPerOp: 0.1,
      nodeCpuMicrosecondsPerOp: 0.9,
      messagesPerOp: 0.0421, peerBytesPerOp: 12, wakeupsPerOp: 0.1, fsyncsPerOp: nil,
      responseNanoseconds: LatencySummary(histogram), serviceNanoseconds: LatencySummary(histogram),
      lagNanoseconds: open ? LatencySummary(histogram) : nil, late: 0, unsent: 0, meanInFlight: 250,
      littlesLawError: 0.001, steady: true, workerP99Spread: 1.1)
  }

  static func summary(
    problems: [String] = [], warnings: [String] = [], aborted: Bool = false, runs: [RunSummary]? = nil
  ) -> BenchSummary {
    var readings = MachineReadings()
    readings.cpuInfo = "vendor_id : Example\nmodel name : Example <9000> & \"more\"\n"
    readings.logicalCores = 2
    readings.toolchain = "6.3.1"
    readings.allocator = "jemalloc 5.3.0"
    readings.buildConfiguration = "release"
    readings.gitRevision = String(repeating: "ab", count: 20)
    return BenchSummary(
      valid: problems.isEmpty, problems: problems, warnings: warnings, aborted: aborted,
      startedUTC: "2026-01-02T03:04:05Z", durationSeconds: 61.5, command: "bench",
      machine: MachineFingerprint(readings),
      configuration: BenchConfiguration(
        suite: "default", target: "embedded", nodes: 3, durability: "memory", tickMilliseconds: 50,
        electionTicks: 20, heartbeatTicks: 1, workers: 2, keys: 100_000, valueBytes: 128, distribution: "uniform",
        seed: 1),
      runs: runs
        ?? [
          run("writes-peak", operation: "write", mode: nil, open: false, percent: 0),
          run("writes-paced", operation: "write", mode: nil, open: true, percent: 0),
          run("reads-safe-peak", open: false), run("reads-lease-peak", mode: "lease", open: false),
          run("reads-safe-paced", open: true), run("reads-lease-paced", mode: "lease", open: true),
          run("mixed-95-safe-peak", open: false, percent: 95),
          run("mixed-95-safe-peak", operation: "write", open: false, percent: 95),
        ],
      leaseToSafe: LeaseToSafe(
        throughputRatio: .init(estimate: 3.14, low: 2.9, high: 3.4), confidence: 0.95,
        blockRatios: [3.1, 3.2, 2.9, 3.4, 3.0, 3.15], safeOpsPerSecond: 600_000, leaseOpsPerSecond: 1_900_000,
        safeMessagesPerRead: 0.05, leaseMessagesPerRead: 0.0001, safeCpuMicrosecondsPerRead: 2.5,
        leaseCpuMicrosecondsPerRead: 0.7),
      consistency: ConsistencySummary(
        operationsTotal: 40_000_000, operationsChecked: 3_000_000, keysChecked: 7500, keyShare: 0.075,
        linearizable: true, violatedKeys: 0, violations: [], undecidedKeys: 0,
        replicas: (1...3).map { .init(node: $0, appliedIndex: 99, stateHash: "00000000000000ab", keys: 100_000) },
        replicasAgree: true),
      gossip: GossipSummary(
        windowSeconds: 40, packetsPerNodeSecond: 2.31, bytesPerNodeSecond: 12_345, cpuMicrosecondsPerNodeSecond: 1234,
        consensusMessagesPerNodeSecond: 142_000, consensusBytesPerNodeSecond: 9e6,
        consensusCpuMicrosecondsPerNodeSecond: 650_000),
      generator: GeneratorSummary(
        nullTargetOpsPerSecond: 21_000_000, nullTargetCpuNanosecondsPerOp: 30, headroom: 11),
      hotPaths: (1...4).map {
        HotPathSummary(
          name: "path \($0)", suite: "suite \($0)", nanosecondsPerOp: 12.5, allocationsPerOp: 0, bytesPerOp: 0,
          reference: .init(name: "memcpy", nanosecondsPerOp: 7.5))
      })
  }

  static func data(_ summary: BenchSummary = summary(), sweep: [SweepPoint] = []) -> ReportData {
    let spectra = summary.runs.map {
      LatencySpectrum(
        run: $0.name, operation: $0.operation, isOpen: $0.loop == "open", response: histogram(100_000),
        service: histogram(80_000))
    }
    let rows = (0..<90).map { second in
      IntervalRow(
        timeSeconds: Double(second), lengthSeconds: 1, run: "run \(second / 20)", offered: 20_000,
        response: histogram(100_000, count: 2000), errors: 0, late: 3, inFlight: 17)
    }
    return ReportData(summary: summary, spectra: spectra, rows: rows, sweep: sweep)
  }
}

@Suite("Terminal summary")
struct TerminalSummaryTests {
  @Test("A full summary fits 40 lines and says what matters")
  func full() {
    let text = TerminalSummary.text(Sample.summary(), files: "results/runs/x")
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
    #expect(lines.count <= 40)
    #expect(text.contains("jemalloc 5.3.0"))
    #expect(text.contains("3.14 × the throughput, 95 % confidence [2.90, 3.40] over 6 blocks"))
    #expect(text.contains("linearizable: 3,000,000 of 40,000,000 operations checked"))
    #expect(text.contains("3 replicas agree"))
    #expect(text.contains("VERDICT      valid"))
    #expect(text.contains("612,346"))
    for name in ["writes-peak", "reads-lease-paced", "mixed-95-safe-peak write", "path 4", "results/runs/x"] {
      #expect(text.contains(name), "\(name)")
    }
    #expect(lines.allSatisfy { $0.count <= 160 })
  }

  @Test("However many runs and problems there are, it is 40 lines and the verdict is among them")
  func crowded() {
    let runs = (0..<100).map { Sample.run("run-\($0)", open: $0.isMultiple(of: 2)) }
    let text = TerminalSummary.text(
      Sample.summary(
        problems: (0..<30).map { "problem \($0)" }, warnings: (0..<30).map { "warning \($0)" }, runs: runs),
      files: "results")
    #expect(text.split(separator: "\n", omittingEmptySubsequences: false).dropLast().count <= 40)
    #expect(text.contains("INVALID: these numbers must not be relied on"))
    #expect(text.contains("problem 0"))
    #expect(text.contains("26 more in summary.json"))
    #expect(text.contains("more lines in summary.json"))
  }

  @Test("A quantile that could not be measured is a dash, not the maximum")
  func unknownQuantiles() throws {
    var run = Sample.run("few", open: true)
    var histogram = LatencyHistogram()
    histogram.record(5_000_000, count: 50)
    run.responseNanoseconds = LatencySummary(histogram)
    let text = TerminalSummary.text(Sample.summary(runs: [run]), files: nil)
    let row = try #require(text.split(separator: "\n").first { $0.contains("few") })
    #expect(row.contains(" - "))
    #expect(row.contains("5,000"))
  }

  @Test("An aborted bench says so")
  func aborted() {
    let text = TerminalSummary.text(Sample.summary(problems: ["aborted before the end"], aborted: true), files: nil)
    #expect(text.contains("VERDICT      ABORTED"))
  }

  @Test(
    "Numbers are written with three digits and grouped",
    arguments: [
      (0, "0"), (0.00012345, "1.2e-04"), (0.0421, "0.0421"), (0.1234, "0.123"), (1.234, "1.23"), (56.78, "56.8"),
      (1_234_567.8, "1,234,568"), (100, "100"),
    ] as [(Double, String)])
  func numbers(value: Double, text: String) {
    #expect(NumberFormat.short(value) == text)
  }
}

@Suite("HTML report")
struct HTMLReportTests {
  static let sweep = (1...6).map {
    SweepPoint(
      series: "read lease", offeredPerSecond: Double($0) * 100_000, achievedPerSecond: Double($0) * 95_000,
      p50Nanoseconds: 80_000, p99Nanoseconds: UInt64($0 * 200_000), p999Nanoseconds: nil)
  }

  @Test("One file: no script, no network, below 1 MB, the same bytes for the same data")
  func selfContained() {
    let text = HTMLReport.text(Sample.data(sweep: Self.sweep))
    #expect(text == HTMLReport.text(Sample.data(sweep: Self.sweep)))
    #expect(text.utf8.count < 1_000_000, "\(text.utf8.count) bytes")
    for forbidden in ["<script", "http://", "https://", "@import", "url(", "src="] {
      #expect(!text.contains(forbidden), "\(forbidden)")
    }
    #expect(text.contains("prefers-color-scheme:dark"))
  }

  @Test("It is well-formed: every tag that opens closes, and text from outside is escaped")
  func wellFormed() throws {
    let text = HTMLReport.text(Sample.data(Sample.summary(problems: ["a <b> & \"c\""]), sweep: Self.sweep))
    #expect(text.contains("Example &lt;9000&gt; &amp; &quot;more&quot;"))
    #expect(text.contains("a &lt;b&gt; &amp; &quot;c&quot;"))
    var open: [String] = []
    let empty: Set<String> = ["meta"]
    for piece in text.split(separator: "<").dropFirst() where !piece.hasPrefix("!") {
      let tag = piece.prefix { $0 != ">" }
      let name = String(tag.drop { $0 == "/" }.prefix { $0.isLetter || $0.isNumber })
      if tag.hasPrefix("/") {
        #expect(open.popLast() == name)
      } else if !tag.hasSuffix("/"), !empty.contains(name) {
        open.append(name)
      }
    }
    #expect(open.isEmpty)
  }

  @Test("It draws every part that has data, and says what each mark is")
  func parts() {
    let text = HTMLReport.text(Sample.data(sweep: Self.sweep))
    for part in [
      "Does it count?", "Lease against Safe", "Saturation", "Latency at a fixed rate, by percentile", "Runs",
      "Over time", "Hot paths alone", "Environment and configuration", "How it was measured",
    ] {
      #expect(text.contains("<h2>\(part)"), "\(part)")
    }
    #expect(text.contains("Lease reads sustain 3.14× [2.90, 3.40] the throughput of Safe reads"))
    #expect(text.components(separatedBy: "role=\"img\"").count - 1 == 7)
    #expect(text.contains("swift run -c release bench"))
    let without = HTMLReport.text(Sample.data())
    #expect(!without.contains("Saturation"))
  }

  @Test("An invalid result says so before anything else")
  func invalid() throws {
    let text = HTMLReport.text(Sample.data(Sample.summary(problems: ["replicas differ"])))
    let heading = try #require(text.range(of: "<h1>This result must not be relied on: replicas differ.</h1>"))
    let table = try #require(text.range(of: "<h2>Runs"))
    #expect(heading.lowerBound < table.lowerBound)
    #expect(text.contains(">INVALID<"))
  }

  @Test("Coordinates stay within the picture, also for a single point and for zero")
  func extremes() {
    for points in [[(0.0, 0.0)], [(5, 5)], [(0.5, 1e-9), (0.999999, 1e12)], [(1, .nan), (.infinity, 2), (1, 1)]] {
      for (x, y) in [(AxisScale.linear, AxisScale.linear), (.nines, .logarithmic), (.linear, .logarithmic)] {
        let chart = LineChart(
          title: "t", xTitle: "x", yTitle: "y", xScale: x, yScale: y,
          series: [.init(name: "s", points: points, color: 1)], xLabel: { "\($0)" }, yLabel: { "\($0)" })
        let svg = chart.svg()
        #expect(!svg.lowercased().contains("nan\""))
        for piece in svg.components(separatedBy: "cx=\"").dropFirst() {
          let value = Double(piece.prefix { $0 != "\"" }) ?? -1
          #expect((0...860).contains(value))
        }
        for piece in svg.components(separatedBy: "cy=\"").dropFirst() {
          let value = Double(piece.prefix { $0 != "\"" }) ?? -1
          #expect((0...360).contains(value))
        }
      }
    }
  }
}
