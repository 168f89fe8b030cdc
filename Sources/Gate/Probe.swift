import Foundation
import Measure

/// One way of running a bench for the gate: a process of its own, and the series that its result holds.
public struct Probe: Sendable, Equatable {
  /// What the result is.
  public enum Kind: Sendable, Equatable {
    case hotPaths
    case suite
  }

  public var name: String
  public var kind: Kind
  public var arguments: [String]

  /// The core's hot paths: time, allocations and bytes for an operation.
  public static let hotPaths = Probe(
    name: "hot-paths", kind: .hotPaths, arguments: ["hot-paths", "--short", "--json", "-"])

  /// A second of writes, and of reads in either mode, on a cluster whose log is in memory: a disk is shared with
  /// others, and its noise would hide what the code costs.
  public static let cluster = [
    closed("writes", ["--workload", "write"]), closed("safe-reads", ["--workload", "read", "--read", "safe"]),
    closed("lease-reads", ["--workload", "read", "--read", "lease"]),
  ]

  /// One operation in flight: what it takes in messages and bytes does not depend on how many happen to travel together.
  public static let counts = [
    closed("write-alone", ["--workload", "write", "--workers", "1"], concurrency: 1),
    closed("safe-read-alone", ["--workload", "read", "--read", "safe", "--workers", "1"], concurrency: 1),
    closed("lease-read-alone", ["--workload", "read", "--read", "lease", "--workers", "1"], concurrency: 1),
  ]

  /// Lease against Safe, in slices of one run.
  public static let reads = Probe(
    name: "reads", kind: .suite, arguments: ["reads", "--sync", "memory", "--json", "-"])

  private static func closed(_ name: String, _ workload: [String], concurrency: Int = 256) -> Probe {
    let shape = [
      "run", "--closed", "--concurrency", "\(concurrency)", "--duration", "1s", "--warmup", "300ms", "--keys", "20000",
      "--sync", "memory", "--json", "-",
    ]
    return Probe(name: name, kind: .suite, arguments: shape + workload)
  }
}

/// What one process reported.
public enum ProbeResult: Sendable, Equatable {
  case hotPaths(MeasuredHotPaths)
  case suite(MeasuredSummary)

  /// Why nothing that it reported counts; empty if it does.
  public var problems: [String] {
    switch self {
    case .hotPaths: []
    case .suite(let summary): summary.valid ? [] : summary.problems
    }
  }

  /// What is compared in time, by series.
  func timed(_ probe: Probe) -> [TimedValue] {
    switch self {
    case .hotPaths(let report):
      return report.hotPaths.map { path in
        TimedValue(
          series: "\(probe.name)/\(path.name)/nanoseconds-per-op", value: path.nanosecondsPerOp,
          direction: .lowerIsBetter, rule: .micro)
      }
    case .suite(let summary):
      return summary.runs.flatMap { run -> [TimedValue] in
        var values = [
          TimedValue(
            series: "\(probe.name)/ops-per-second", value: run.opsPerSecond, direction: .higherIsBetter,
            rule: .clusterThroughput),
          TimedValue(
            series: "\(probe.name)/cpu-microseconds-per-op", value: run.cpuMicrosecondsPerOp,
            direction: .lowerIsBetter, rule: .clusterThroughput),
        ]
        // A tail of fewer operations is a guess.
        if let p99 = run.responseNanoseconds.p99, run.responseNanoseconds.count >= 10_000 {
          values.append(
            TimedValue(
              series: "\(probe.name)/response-p99-nanoseconds", value: Double(p99), direction: .lowerIsBetter,
              rule: .clusterP99))
        }
        return values
      }
    }
  }

  /// What is counted, by series.
  func counted(_ probe: Probe) -> [String: Double] {
    var counts: [String: Double] = [:]
    switch self {
    case .hotPaths(let report):
      for path in report.hotPaths {
        counts["\(probe.name)/\(path.name)/allocations-per-op"] = path.allocationsPerOp
        counts["\(probe.name)/\(path.name)/allocated-bytes-per-op"] = path.bytesPerOp
      }
    case .suite(let summary):
      for run in summary.runs {
        counts["\(probe.name)/peer-messages-per-op"] = run.messagesPerOp
        counts["\(probe.name)/peer-bytes-per-op"] = run.peerBytesPerOp
        counts["\(probe.name)/fsyncs-per-op"] = run.fsyncsPerOp
      }
    }
    return counts
  }
}

/// One number of one process, and how it is judged.
struct TimedValue: Equatable {
  var series: String
  var value: Double
  var direction: Direction
  var rule: PairedRule
}
