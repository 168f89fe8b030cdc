import ArgumentParser
import Foundation
import Gate

extension GateTier: ExpressibleByArgument {}

/// `bench gate`: is this build worse than that one?
struct GateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "gate",
    abstract: "Judges a build: its counts, Lease against Safe, and its times against another build's.",
    discussion: """
      Every process checks its own answers; a run that is not valid never passes. Counts (allocations, messages and \
      bytes an operation) are held against committed ones. Times are only compared within one job: processes of base \
      and head in turn, a slowdown beyond the tolerance must show twice, and a copy of the base tells how much of it \
      is noise. Exits with 2 for a regression, 4 if runs were invalid, 5 where nothing can be told.
      """)

  @Option(help: ArgumentHelp("A bench built from what the head is compared with.", valueName: "program"))
  var base: String?

  @Option(help: ArgumentHelp("The bench to judge; this one if not given.", valueName: "program"))
  var head: String?

  @Option(
    parsing: .upToNextOption,
    help: "Which parts: counts, ratio, micro, cluster. All that are possible if not given; in time only with --base.")
  var tiers: [GateTier] = GateTier.allCases

  @OptionGroup var folder: BaselineFolder

  @Option(help: ArgumentHelp("Write the verdicts there as JSON; - is standard output.", valueName: "file|-"))
  var json: String?

  func run() throws {
    let programs = try GatePrograms(base: base, head: head ?? GatePrograms.this)
    defer { programs.remove() }
    let progress = ProgressLine(isSilent: false)
    var pipeline = GatePipeline(
      head: programs.head, base: programs.base, control: programs.control, run: GatePrograms.run,
      progress: { progress.show($0) })
    pipeline.resultsFolder = programs.folder
    let machine = MachineReader.fingerprint()
    let report = try pipeline.judge(
      tiers: Set(tiers), counts: folder.counts(of: machine), machine: folder.runs(of: machine))
    progress.clear()
    try show(report)
    if report.exit != .ok { throw ExitStatus(rawValue: report.exit.rawValue) ?? .usage }
  }

  /// Counts what this program takes for an operation.
  static func count() throws -> [String: Double] {
    let programs = try GatePrograms(base: nil, head: GatePrograms.this)
    defer { programs.remove() }
    var pipeline = GatePipeline(head: programs.head, base: nil, control: nil, run: GatePrograms.run)
    pipeline.resultsFolder = programs.folder
    let report = try pipeline.judge(tiers: [.counts], counts: nil, machine: nil)
    guard report.problems.isEmpty else { throw UsageError(report.problems.joined(separator: "; ")) }
    return report.counts
  }

  private func show(_ report: GateReport) throws {
    if let json {
      try JSONOutput.write(report, to: json)
      if json == "-" { return }
    }
    for problem in report.problems { print("INVALID       \(problem)") }
    for verdict in report.series {
      let name = verdict.verdict.rawValue.padding(toLength: 12, withPad: " ", startingAt: 0)
      print("\(name)  \(verdict.series): \(verdict.reason)")
    }
    print("VERDICT: \(Self.word(report.exit))")
  }

  private static func word(_ exit: GateExit) -> String {
    switch exit {
    case .ok: "no regression"
    case .regression: "regression"
    case .thresholdMissed: "a threshold is missed"
    case .invalidRun: "invalid: a run's answers or schedule did not hold"
    case .inconclusive: "inconclusive: this machine cannot tell now"
    }
  }
}

/// The programs that a gate runs, and the folder that goes with it.
private struct GatePrograms {
  var head: String
  var base: String?
  var control: String?
  var folder: String

  static var this: String {
    (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
  }

  init(base: String?, head: String) throws {
    for program in [base, head].compactMap(\.self) where !FileManager.default.isExecutableFile(atPath: program) {
      throw UsageError("\(program) is no program: build it with swift build -c release --product bench")
    }
    self.head = head
    self.base = base
    folder = NSTemporaryDirectory() + "weir-gate-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    // A copy in another file: what only the place in memory or on disk changes shows as a difference here.
    if let base {
      control = folder + "/base-copy"
      try FileManager.default.copyItem(atPath: base, toPath: folder + "/base-copy")
    }
  }

  func remove() { try? FileManager.default.removeItem(atPath: folder) }

  /// Runs a program to its end. A run that calls itself invalid is a result too.
  static func run(_ program: String, _ arguments: [String]) throws -> Data {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    let output = Pipe()
    process.standardOutput = output
    process.standardError = FileHandle.standardError
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    let accepted: [Int32] = [0, ExitStatus.thresholdMissed.rawValue, ExitStatus.invalidRun.rawValue]
    guard process.terminationReason == .exit, accepted.contains(process.terminationStatus) else {
      throw GateError.failed(
        program: program, arguments: arguments, status: process.terminationStatus,
        output: String(decoding: data.suffix(2000), as: UTF8.self))
    }
    return data
  }
}
