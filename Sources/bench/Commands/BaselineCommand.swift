import ArgumentParser
import Foundation
import Gate
import Measure

/// Where accepted results lie.
struct BaselineFolder: ParsableArguments {
  @Option(name: .customLong("baselines"), help: ArgumentHelp("Folder of accepted results.", valueName: "folder"))
  var path = "results/baselines"

  func counts(of machine: MachineFingerprint) throws -> CountBaseline? {
    try read(CountBaseline.self, countsFile(machine))
  }

  func runs(of machine: MachineFingerprint) throws -> MachineBaseline? {
    try read(MachineBaseline.self, runsFile(machine.key))
  }

  func countsFile(_ machine: MachineFingerprint) -> String {
    "\(path)/\(CountBaseline.fileName(architecture: machine.architecture, toolchain: machine.toolchain))"
  }

  func runsFile(_ machineKey: String) -> String { "\(path)/\(machineKey)/suite.json" }

  private func read<Value: Decodable>(_ type: Value.Type, _ file: String) throws -> Value? {
    guard let data = FileManager.default.contents(atPath: file) else { return nil }
    do {
      return try JSONDecoder().decode(type, from: data)
    } catch {
      throw UsageError("\(file) is no baseline (\(error)): restore it from version control")
    }
  }

  func write(_ value: some Encodable, to file: String) throws {
    let url = URL(fileURLWithPath: file)
    try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
    try JSONOutput.write(value, to: file)
  }
}

/// `bench baseline`: what `bench gate` compares with.
struct BaselineCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "baseline", abstract: "Accepts results as what later builds are held against.",
    subcommands: [AcceptCounts.self, AcceptRuns.self])

  /// `bench baseline counts`.
  struct AcceptCounts: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "counts", abstract: "Counts allocations, messages and bytes an operation, and accepts them.")

    @Option(help: "Why these counts are right: kept in the file.")
    var reason: String

    @OptionGroup var folder: BaselineFolder

    func run() throws {
      let machine = MachineReader.fingerprint()
      let report = try GateCommand.count()
      let baseline = CountBaseline(
        architecture: machine.architecture, toolchain: machine.toolchain, reason: reason,
        revision: machine.shortRevision, counts: report)
      try folder.write(baseline, to: folder.countsFile(machine))
      print("\(report.count) counts accepted in \(folder.countsFile(machine))")
    }
  }

  /// `bench baseline accept`.
  struct AcceptRuns: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "accept",
      abstract: "Accepts complete runs of this kind of machine: their summaries, five or more.")

    @Option(help: "Why these runs are right: kept in the file.")
    var reason: String

    @OptionGroup var folder: BaselineFolder

    @Argument(help: "summary.json of each run.")
    var summaries: [String]

    func run() throws {
      let runs = try summaries.map { path in
        guard let data = FileManager.default.contents(atPath: path) else {
          throw UsageError("\(path) cannot be read: give the summary.json of a run")
        }
        return try MeasuredSummary(json: data)
      }
      let baseline = try MachineBaseline(summaries: runs, reason: reason)
      try folder.write(baseline, to: folder.runsFile(baseline.machine))
      print("\(baseline.runs.count) runs accepted in \(folder.runsFile(baseline.machine))")
    }
  }
}
