import ArgumentParser
import Foundation
import HotPaths

/// `bench hot-paths`: the four hot paths of the core and the Raft core, each beside its reference in the same run.
struct HotPathsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hot-paths",
    abstract: "Measures the core's hot paths: time, allocations and bytes an operation, beside a reference each.",
    discussion: """
      Times are CPU time of the measuring thread, the median over rounds that alternate with the reference's. \
      Allocations are counted exactly. Exits with 3 if a path that must not allocate does.
      """)

  @Flag(help: "A few milliseconds a path, as in the default suite.")
  var short = false

  @Flag(help: "Count instructions an operation under callgrind instead (exact; needs valgrind).")
  var instructions = false

  @Flag(help: "Measure what the hot paths are made of instead, part by part.")
  var parts = false

  @Option(help: "Write JSON to a file; - is standard output.")
  var json: String?

  @Argument(help: "Only paths whose name contains one of these.")
  var names: [String] = []

  /// What a process under callgrind does: this path, and nothing else.
  @Option(help: .hidden)
  var counted: String?

  func run() throws {
    if let counted {
      guard let path = HotPaths.named(counted) else { throw UsageError("no hot path is named \(counted)") }
      return InstructionCount.runCounted(path)
    }
    let all = parts ? HotPaths.parts : HotPaths.all
    let paths = names.isEmpty ? all : all.filter { path in names.contains { path.name.contains($0) } }
    guard !paths.isEmpty else {
      throw UsageError("no hot path is named like that; there are \(all.map(\.name).joined(separator: ", "))")
    }
    if instructions { return try countInstructions(paths) }
    let report = HotPathReport.measure(short: short, paths: paths)
    if let json {
      try JSONOutput.write(report, to: json)
    } else {
      print(Self.table(report))
    }
    guard report.areAllocationsCounted else { throw UsageError("the allocation counter does not serve this process") }
    let allocating = zip(paths, report.hotPaths).filter { $0.isAllocationFree && $1.allocationsPerOp > 0 }
    for (path, measured) in allocating {
      FileHandle.standardError.write(
        Data("bench: \(path.name) must not allocate, and does \(measured.allocationsPerOp) times an operation\n".utf8))
    }
    if !allocating.isEmpty { throw ExitStatus.thresholdMissed }
  }

  private func countInstructions(_ paths: [HotPath]) throws {
    let counts: [InstructionCount]
    do {
      counts = try InstructionCount.measure(paths: paths) { ["hot-paths", "--counted", $0] }
    } catch let failure as InstructionCount.Failure {
      throw UsageError(failure.description)
    }
    if let json { return try JSONOutput.write(["instructions": counts], to: json) }
    print(InstructionCount.table(counts))
  }

  /// One line a path; also what the default suite shows.
  static func table(_ report: HotPathReport) -> String {
    var lines = ["     ns/op        ±  alloc/op  bytes/op   x faster  path (reference)"]
    for path in report.hotPaths {
      let reference = path.reference.map { " (\($0.name): \(number($0.nanosecondsPerOp)) ns)" } ?? ""
      lines.append(
        padded(number(path.nanosecondsPerOp), to: 10) + padded(number(path.spreadNanosecondsPerOp), to: 9)
          + padded(number(path.allocationsPerOp), to: 10) + padded(number(path.bytesPerOp), to: 10)
          + padded(path.referenceRatio.map(number) ?? "-", to: 11) + "  \(path.name)\(reference)")
    }
    return lines.joined(separator: "\n")
  }

  private static func number(_ value: Double) -> String {
    value == 0 ? "0" : value < 100 ? "\((value * 10).rounded() / 10)" : "\(Int(value.rounded()))"
  }

  private static func padded(_ text: String, to width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }
}
