import Foundation
import Measure
import Testing

/// Nodes as processes of their own: what they answer, and that none is left behind.
@Suite("Node processes", .serialized)
struct ProcessesTests {
  /// A bench that runs, and what it has started.
  private final class Running {
    let process = Process()

    init(_ arguments: [String], in folder: URL) throws {
      let executable = try #require(BenchProcess.executable, "bench is not built beside the test runner")
      process.executableURL = executable
      process.arguments = arguments
      process.currentDirectoryURL = folder
      process.standardInput = FileHandle.nullDevice
      process.standardOutput = FileHandle.nullDevice
      process.standardError = FileHandle.nullDevice
      try process.run()
    }

    /// Processes whose parent it is.
    var children: [Int32] {
      let own = process.processIdentifier
      let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
      return entries.compactMap { Int32($0) }.filter { Self.parent(of: $0) == own }
    }

    private static func parent(of process: Int32) -> Int32? {
      // The name, in parentheses, may have spaces.
      let text = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
      return text?.split(separator: ")").last?.split(separator: " ").dropFirst().first.flatMap { Int32($0) }
    }

    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }
  }

  private static func isThere(_ process: Int32) -> Bool {
    // A zombie has no command line any more.
    let line = FileManager.default.contents(atPath: "/proc/\(process)/cmdline") ?? Data()
    return String(decoding: line, as: UTF8.self).contains("node-process")
  }

  private static func eventually(_ seconds: Double = 60, _ condition: () -> Bool) -> Bool {
    let end = Date().addingTimeInterval(seconds)
    while Date() < end {
      if condition() { return true }
      usleep(20_000)
    }
    return condition()
  }

  private static let arguments = ["processes", "--keys", "500"]

  @Test("The suite over processes is checked like any other, compared with one process, and every process ends with it")
  func suite() throws {
    try BenchProcess.withFolder { folder in
      let file = folder.appendingPathComponent("apart.json")
      let output = try BenchProcess.run(
        ["processes", "--scale", "0.02", "--keys", "500", "--compare", "--json", file.path], in: folder)
      let summary = try JSONDecoder().decode(BenchSummary.self, from: Data(contentsOf: file))
      let table = output.standardOutput.components(separatedBy: "processes, one process").last ?? ""
      for run in summary.runs { #expect(table.contains(run.name), "\(output.standardOutput)") }
      #expect(CommandLineTests.timingAside(summary.problems) == [])
      #expect(summary.configuration.target == "processes")
      #expect(summary.configuration.readiness == "poll")
      #expect(summary.consistency.linearizable && summary.consistency.operationsChecked > 500)
      #expect(summary.consistency.replicasAgree == true && summary.consistency.replicas.count == 3)
      #expect(summary.runs.allSatisfy { $0.operations > 0 && $0.errors == 0 })
      // The nodes' CPU time is in other processes, and counted.
      #expect(summary.runs.allSatisfy { $0.cpuMicrosecondsPerOp >= ($0.nodeCpuMicrosecondsPerOp ?? .infinity) })
    }
  }

  @Test("A parent that is killed leaves no node behind")
  func killedParent() throws {
    try BenchProcess.withFolder { folder in
      let bench = try Running(Self.arguments, in: folder)
      #expect(Self.eventually { bench.children.count(where: Self.isThere) == 3 })
      let children = bench.children
      kill(bench.process.processIdentifier, SIGKILL)
      #expect(Self.eventually { !children.contains(where: Self.isThere) })
    }
  }

  @Test("Ctrl-C, which reaches the children too, ends the run in order and leaves no node behind")
  func interrupted() throws {
    try BenchProcess.withFolder { folder in
      let bench = try Running(Self.arguments, in: folder)
      #expect(Self.eventually { bench.children.count(where: Self.isThere) == 3 })
      let children = bench.children
      for process in children + [bench.process.processIdentifier] { kill(process, SIGINT) }
      bench.process.waitUntilExit()
      #expect(bench.process.terminationStatus == 130)
      #expect(Self.eventually { !children.contains(where: Self.isThere) })
    }
  }

  @Test("A node process that dies makes the run invalid, and the others end with it")
  func lostChild() throws {
    try BenchProcess.withFolder { folder in
      let bench = try Running(Self.arguments + ["--scale", "0.05"], in: folder)
      #expect(Self.eventually { bench.children.count(where: Self.isThere) == 3 })
      let children = bench.children
      // Not before the cluster serves: a cluster that does not come up is another failure.
      #expect(Self.eventually { FileManager.default.fileExists(atPath: folder.path + "/results/runs") })
      usleep(2_000_000)
      if let victim = children.last { kill(victim, SIGKILL) }
      bench.process.waitUntilExit()
      #expect(bench.process.terminationStatus != 0)
      #expect(Self.eventually { !children.contains(where: Self.isThere) })
    }
  }

  private static let isLong = ProcessInfo.processInfo.environment["WEIR_LONG_TESTS"] == "1"

  @Test("A follower that hangs under full load costs the leader at most 64 MiB", arguments: [isLong ? 60.0 : 3.0])
  func stoppedPeer(seconds: Double) throws {
    try BenchProcess.withFolder { folder in
      let output = try BenchProcess.run(
        ["stopped-peer", "--seconds", "\(seconds)", "--before", "2", "--outstanding", "256"], in: folder)
      #expect(output.status == 0, "\(output.standardOutput)\(output.standardError)")
      #expect(output.standardOutput.contains("the replicas hold the same"))
    }
  }
}
