import Foundation
import Measure

/// Counts that do not depend on the machine, as somebody accepted them: committed, one file for an architecture and a
/// toolchain, since a compiler alone may change how often a program allocates.
public struct CountBaseline: Codable, Sendable, Equatable {
  public var architecture: String
  public var toolchain: String
  /// Why these are right, in the words of whoever accepted them.
  public var reason: String
  public var revision: String
  /// By series.
  public var counts: [String: Double]

  public init(architecture: String, toolchain: String, reason: String, revision: String, counts: [String: Double]) {
    self.architecture = architecture
    self.toolchain = toolchain
    self.reason = reason
    self.revision = revision
    self.counts = counts
  }

  /// Where it lies below the folder of baselines: by the toolchain's major and minor number.
  public static func fileName(architecture: String, toolchain: String) -> String {
    let version = toolchain.split(separator: ".").prefix(2).joined(separator: ".")
    return "counts-\(architecture)-swift\(version).json"
  }
}

/// What a kind of machine measured, as somebody accepted it: every run, not their mean, so that the spread is kept.
public struct MachineBaseline: Codable, Sendable, Equatable {
  public struct Run: Codable, Sendable, Equatable {
    public var startedUTC: String
    /// By series.
    public var values: [String: Double]
  }

  public static let leastRuns = 5

  public var machine: String
  public var toolchain: String
  public var revision: String
  public var reason: String
  public var runs: [Run]

  /// - Parameter summaries: of complete benches; those that are not valid are left out.
  public init(summaries: [MeasuredSummary], reason: String) throws(GateError) {
    let valid = summaries.filter(\.valid)
    guard let first = valid.first, valid.count >= Self.leastRuns else {
      throw .tooFewRuns(valid: valid.count, needed: Self.leastRuns)
    }
    guard valid.allSatisfy({ $0.machine.key == first.machine.key }) else { throw .mixedRuns("machine") }
    guard valid.allSatisfy({ $0.machine.toolchain == first.machine.toolchain }) else { throw .mixedRuns("toolchain") }
    guard valid.allSatisfy({ $0.machine.gitRevision == first.machine.gitRevision }) else {
      throw .mixedRuns("revision")
    }
    machine = first.machine.key
    toolchain = first.machine.toolchain
    revision = first.machine.gitRevision
    self.reason = reason
    runs = valid.map { Run(startedUTC: $0.startedUTC, values: Self.values(of: $0)) }
  }

  /// The median over the runs; nil where none has the series.
  public func median(_ series: String) -> Double? {
    let values = runs.compactMap { $0.values[series] }
    return values.isEmpty ? nil : Statistics.median(values)
  }

  /// Name of the series that holds Lease's throughput over Safe's.
  public static let leaseToSafe = "lease-to-safe"

  private static func values(of summary: MeasuredSummary) -> [String: Double] {
    var values: [String: Double] = [:]
    for run in summary.runs {
      values["\(run.name)/\(run.operation)/ops-per-second"] = run.opsPerSecond
      values["\(run.name)/\(run.operation)/cpu-microseconds-per-op"] = run.cpuMicrosecondsPerOp
      if let p99 = run.responseNanoseconds.p99 {
        values["\(run.name)/\(run.operation)/response-p99-nanoseconds"] = Double(p99)
      }
    }
    if let ratio = summary.leaseToSafe { values[leaseToSafe] = ratio.throughputRatio.estimate }
    return values
  }
}
