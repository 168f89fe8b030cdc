import CWeir
import Foundation
import Load
import Measure
import Report
import WeirCache
import WeirTransport

/// One bench from its plan to its exit code.
enum SuiteSession {
  /// - Throws: `ExitStatus` unless the result is valid; `UsageError` before anything is started.
  /// - Parameter factory: what starts the cluster; nil: one within this process.
  @discardableResult
  static func run(
    _ plan: SuitePlan, options: SuiteOptions, measuresHotPaths: Bool = false, factory: (any TargetFactory)? = nil
  ) throws -> BenchSummary {
    let summary = try measure(plan, options: options, measuresHotPaths: measuresHotPaths, factory: factory)
    try conclude(summary)
    return summary
  }

  /// Ends with the status that a summary deserves.
  /// - Throws: `ExitStatus` unless it is valid.
  static func conclude(_ summary: BenchSummary) throws {
    if summary.aborted { throw ExitStatus.interrupted }
    if !summary.valid { throw ExitStatus.invalidRun }
  }

  /// The same without a judgement: a summary that says of itself whether it is valid, written and shown.
  /// - Throws: `UsageError` before anything is started.
  static func measure(
    _ plan: SuitePlan, options: SuiteOptions, measuresHotPaths: Bool = false, factory: (any TargetFactory)? = nil
  ) throws -> BenchSummary {
    let started = Date()
    let machine = MachineReader.fingerprint()
    try checkWritable(options)
    try options.storage.checkWritable()
    let idleStates = try CPULatencyRequest.asked(options.eventLoop.cpuLatency)
    defer { withExtendedLifetime(idleStates) {} }
    let factory = try factory ?? clusterFactory(options.eventLoop)
    let interrupts = Interrupts()
    let files = try ResultFiles(parent: options.results, started: started, revision: machine.shortRevision)
    let progress = ProgressLine(isSilent: false)
    let outcome: SuiteOutcome
    let headroom: GeneratorHeadroom
    let storage: StorageSummary
    var hotPaths: [HotPathSummary] = []
    do {
      progress.show("measuring the generator")
      storage = options.storage.summary()
      headroom = try GeneratorHeadroom.measure(workers: options.workers)
      if measuresHotPaths {
        progress.show("measuring the hot paths")
        hotPaths = measureHotPaths()
      }
      outcome = try SuiteRunner.run(plan, factory: factory, stop: interrupts.stop) { phase, run in
        progress.show(phase, run)
      }
    } catch {
      progress.clear()
      files.remove()
      throw error
    }
    progress.clear()
    let summary = summarize(
      outcome, options: options, headroom: headroom, hotPaths: hotPaths, machine: machine, storage: storage,
      started: started)
    try files.write(summary, outcome, startedEpochSeconds: started.timeIntervalSince1970)
    if let path = options.history { try ResultFiles.writeHistory(outcome.history, to: path) }
    try show(summary, files: files, json: options.json)
    return summary
  }

  /// What would otherwise fail after minutes of work.
  private static func checkWritable(_ options: SuiteOptions) throws {
    for path in [options.json, options.history].compactMap(\.self) where path != "-" {
      let isNew = !FileManager.default.fileExists(atPath: path)
      guard let file = fopen(path, "a") else {
        throw UsageError("\(path) cannot be written: \(String(cString: strerror(errno)))")
      }
      fclose(file)
      if isNew { unlink(path) }
    }
  }

  private static func summarize(
    _ outcome: SuiteOutcome, options: SuiteOptions, headroom: GeneratorHeadroom, hotPaths: [HotPathSummary],
    machine: MachineFingerprint, storage: StorageSummary, started: Date
  ) -> BenchSummary {
    let problems = outcome.allProblems
    var warnings = outcome.warnings(headroom: headroom)
    if storage.fileSystem == "tmpfs" {
      warnings.append(
        "the logs lie in memory (tmpfs): nothing is durable there; name a folder on a disk with --data-dir")
    }
    let runs = outcome.runSummaries()
    var configuration = outcome.configuration()
    configuration.cpuLatencyMicroseconds = options.eventLoop.cpuLatency.map { Int($0) }
    let fastest = outcome.runs.map(\.result.opsPerSecond).max() ?? 0
    return BenchSummary(
      valid: problems.isEmpty, problems: problems, warnings: warnings,
      aborted: outcome.wasAborted, startedUTC: ISO8601DateFormatter().string(from: started),
      durationSeconds: Date().timeIntervalSince(started),
      command: (["bench"] + CommandLine.arguments.dropFirst()).joined(separator: " "), machine: machine,
      storage: storage, configuration: configuration, runs: runs, leaseToSafe: outcome.leaseToSafe(),
      consistency: outcome.consistencySummary(), gossip: outcome.gossipSummary(),
      generator: GeneratorSummary(
        nullTargetOpsPerSecond: headroom.opsPerSecond,
        nullTargetCpuNanosecondsPerOp: headroom.cpuNanosecondsPerOperation,
        headroom: fastest > 0 ? headroom.opsPerSecond / fastest : nil),
      hotPaths: hotPaths)
  }

  private static func show(_ summary: BenchSummary, files: ResultFiles, json: String?) throws {
    if let json {
      try JSONOutput.write(summary, to: json)
      if json == "-" { return }
    }
    print(TerminalSummary.text(summary, files: files.folder.relativePath), terminator: "")
  }
}

/// Ctrl-C and SIGTERM: the first asks the run to end and write what it has, the second ends the process.
final class Interrupts {
  let stop = StopRequest()
  private let signals: TerminationSignals

  init() {
    signals = TerminationSignals(
      first: { [stop] in
        stop.stop()
        FileHandle.standardError.write(Data("\nbench: stopping; once more to end at once\n".utf8))
      },
      later: {
        TemporaryFolder.removeAll()
        Foundation.exit(ExitStatus.interrupted.rawValue)
      })
  }
}

/// One line on standard error that says what is going on, where that is a terminal.
final class ProgressLine {
  private let isShown: Bool
  private var lastShownNanoseconds: UInt64 = 0
  private var lastCompleted: UInt64 = 0

  init(isSilent: Bool) {
    isShown = !isSilent && isatty(STDERR_FILENO) == 1
  }

  /// At most one line a second for a run that goes on; a new phase is shown at once.
  func show(_ phase: String, _ run: RunProgress? = nil) {
    guard isShown else { return }
    let now = cweir_monotonic_nanoseconds()
    guard let run else {
      lastCompleted = 0
      lastShownNanoseconds = now
      return write(phase)
    }
    let elapsed = now - lastShownNanoseconds
    guard elapsed >= 1_000_000_000 else { return }
    let rate = Double(run.completed - min(lastCompleted, run.completed)) * 1e9 / Double(elapsed)
    lastShownNanoseconds = now
    lastCompleted = run.completed
    write(
      "\(phase)  \(Int(run.elapsedSeconds)) of \(Int(run.totalSeconds.rounded(.up))) s  \(Int(rate)) operations/s"
        + (run.errors > 0 ? "  \(run.errors) errors" : ""))
  }

  func clear() {
    if isShown { FileHandle.standardError.write(Data("\r\u{1B}[K".utf8)) }
  }

  private func write(_ text: String) {
    FileHandle.standardError.write(Data("\r\u{1B}[K\(text)".utf8))
  }
}
