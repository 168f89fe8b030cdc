import Foundation
import Measure
import Testing

/// The executable beside the test runner, run as a user runs it.
struct BenchProcess {
  struct Output {
    var status: Int32
    var standardOutput: String
    var standardError: String
  }

  static var executable: URL? {
    guard let runner = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") else { return nil }
    let bench = URL(fileURLWithPath: runner).deletingLastPathComponent().appendingPathComponent("bench")
    return FileManager.default.isExecutableFile(atPath: bench.path) ? bench : nil
  }

  /// - Parameter interruptWhen: asked ten times a second; true sends SIGINT once.
  static func run(
    _ arguments: [String], in folder: URL, interruptWhen: (() -> Bool)? = nil
  ) throws -> Output {
    let process = Process()
    let bench = try #require(executable, "bench is not built beside the test runner")
    process.executableURL = bench
    process.arguments = arguments
    process.currentDirectoryURL = folder
    process.standardInput = FileHandle.nullDevice
    // Files and not pipes: a pipe that nobody empties would stop the process.
    let output = folder.appendingPathComponent("stdout-\(UUID().uuidString)")
    let errors = folder.appendingPathComponent("stderr-\(UUID().uuidString)")
    for file in [output, errors] { try Data().write(to: file) }
    process.standardOutput = try FileHandle(forWritingTo: output)
    process.standardError = try FileHandle(forWritingTo: errors)
    try process.run()
    if let interruptWhen {
      while process.isRunning, !interruptWhen() { usleep(100_000) }
      process.interrupt()
    }
    process.waitUntilExit()
    defer {
      try? FileManager.default.removeItem(at: output)
      try? FileManager.default.removeItem(at: errors)
    }
    return Output(
      status: process.terminationStatus, standardOutput: try String(contentsOf: output, encoding: .utf8),
      standardError: try String(contentsOf: errors, encoding: .utf8))
  }

  /// A folder that is removed after the test.
  static func withFolder<T>(_ body: (URL) throws -> T) throws -> T {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("weir-bench-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    return try body(folder)
  }
}

@Suite("bench, the command", .serialized)
struct CommandLineTests {
  static let bad: [[String]] = [
    ["--nonsense"], ["nonsense"], ["run"], ["run", "--rate", "0"], ["run", "--rate", "-5"], ["run", "--rate", "x"],
    ["run", "--closed", "--rate", "5"], ["run", "--closed", "--workload", "mixed:101"],
    ["run", "--closed", "--duration", "10"], ["run", "--closed", "--duration", "0s"],
    ["run", "--closed", "--read", "stale"], ["run", "--closed", "--concurrency", "0"], ["--workers", "0"],
    ["--workers", "100000"], ["--nodes", "2"], ["--nodes", "99"], ["--keys", "0"], ["--keys", "99999999999"],
    ["--value-size", "3"], ["--distribution", "zipfian:x"], ["--distribution", "zipfian", "--keys", "9999999"],
    ["--seed", "-1"], ["--cpu-latency=-1"], ["--sync", "hope"], ["--sync", "interval:0"],
    ["--data-dir", "/proc/nowhere"], ["--results", "/proc/nowhere"],
    ["--json", "/nowhere/at/all/x.json"], ["--history", "/nowhere/at/all/x"], ["generator", "--workers", "0"],
  ]

  @Test("Bad input is one clear line, exit code 1, and nothing is started or left", arguments: bad)
  func badInput(arguments: [String]) throws {
    try BenchProcess.withFolder { folder in
      let output = try BenchProcess.run(arguments, in: folder)
      #expect(output.status == 1)
      #expect(output.standardOutput.isEmpty)
      #expect(output.standardError.split(separator: "\n").count == 1, "\(output.standardError)")
      #expect(output.standardError.hasPrefix("bench: "))
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
    }
  }

  @Test(
    "Help goes to standard output, with exit code 0", arguments: [["--help"], ["run", "--help"], ["help", "reads"]])
  func help(arguments: [String]) throws {
    try BenchProcess.withFolder { folder in
      let output = try BenchProcess.run(arguments, in: folder)
      #expect(output.status == 0)
      #expect(output.standardOutput.contains("USAGE: bench"))
      #expect(output.standardError.isEmpty)
    }
  }

  /// What a loaded machine may make of a run is not this test's question; that the answers were right is.
  static func timingAside(_ problems: [String]) -> [String] {
    problems.filter { problem in
      // A slice of a shortened run lasts a few milliseconds: on a machine that does other work one may pass with nothing.
      ![
        "schedule missed", "Little", "held the generator", "leader elections", "had no answer",
        "no operation was answered",
      ].contains { problem.contains($0) }
    }
  }

  @Test("A run drives a real cluster, checks it, and leaves all its files")
  func wholeRun() throws {
    try BenchProcess.withFolder { folder in
      let output = try BenchProcess.run(
        [
          "run", "--closed", "--workload", "mixed:80", "--read", "lease", "--duration", "1s", "--warmup", "100ms",
          "--keys", "500", "--concurrency", "32", "--json", "-", "--history", "history.jsonl", "--seed", "9",
          "--mechanism", "dispatch", "--repoll", "5",
        ], in: folder)
      let summary = try JSONDecoder().decode(BenchSummary.self, from: Data(output.standardOutput.utf8))
      #expect(Self.timingAside(summary.problems) == [])
      #expect(output.status == (summary.valid ? 0 : 4))
      #expect(summary.consistency.linearizable)
      #expect(summary.consistency.replicasAgree == true)
      #expect(summary.consistency.operationsChecked > 500)
      #expect(summary.runs.map(\.operation) == ["read", "write"])
      #expect(summary.runs.allSatisfy { $0.operations > 0 && $0.readMode == "lease" && $0.loop == "closed" })
      #expect(summary.configuration.seed == 9)
      #expect(summary.configuration.readiness == "dispatch" && summary.configuration.repollMicroseconds == 5)
      #expect(summary.machine.logicalCores > 0)

      let results = folder.appendingPathComponent("results/runs")
      let runs = try FileManager.default.contentsOfDirectory(atPath: results.path)
      #expect(runs.count == 1)
      let files = try FileManager.default.contentsOfDirectory(
        atPath: results.appendingPathComponent(try #require(runs.first)).path)
      #expect(
        Set(files) == [
          "summary.json", "report.html", "series.csv", "latency.hlog", "mixed-80-read.hgrm", "mixed-80-write.hgrm",
        ])
      let history = try String(contentsOf: folder.appendingPathComponent("history.jsonl"), encoding: .utf8)
      #expect(UInt64(history.split(separator: "\n").count) == summary.consistency.operationsChecked)
    }
  }

  @Test("Ctrl-C ends a run early; what was measured is written and marked, and no process is left")
  func interrupt() throws {
    try BenchProcess.withFolder { folder in
      let results = folder.appendingPathComponent("results/runs")
      let output = try BenchProcess.run(
        [
          "run", "--rate", "500", "--workload", "write", "--duration", "10m", "--warmup", "0ms", "--keys", "100",
          "--json", "-",
        ], in: folder,
        // Its folder is made before anything is started, and the signals are its own before that.
        interruptWhen: { FileManager.default.fileExists(atPath: results.path) })
      #expect(output.status == 130)
      let summary = try JSONDecoder().decode(BenchSummary.self, from: Data(output.standardOutput.utf8))
      #expect(summary.aborted && !summary.valid)
      #expect(summary.problems.contains("aborted before the end"))
      #expect(try FileManager.default.contentsOfDirectory(atPath: results.path).count == 1)
    }
  }
}
