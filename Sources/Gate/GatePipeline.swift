import Foundation
import Measure

/// Runs a program with arguments and returns what it wrote to standard output.
public typealias ProgramRunner = (_ program: String, _ arguments: [String]) throws -> Data

/// How much of the gate to run.
public enum GateTier: String, Sendable, CaseIterable, Codable {
  /// Messages, bytes and allocations for an operation, against committed counts.
  case counts
  /// Lease over Safe within one run.
  case ratio
  /// The core's hot paths, base against head, in alternating processes.
  case micro
  /// A cluster's throughput, CPU and tail, base against head, in alternating processes.
  case cluster
}

/// What a gate found.
public struct GateReport: Sendable, Codable, Equatable {
  public var series: [SeriesVerdict]
  /// Why runs did not count, if any did not after all attempts.
  public var problems: [String]
  /// What the head was counted at: what `bench baseline counts` would accept.
  public var counts: [String: Double]

  public var exit: GateExit { GateExit.of(series, runsAreValid: problems.isEmpty, thresholdsHold: true) }
}

/// From programs to verdicts: which processes run in which order, and what is made of their numbers.
///
/// Validity comes first: every process checks its own answers (errors, history, replicas), and one that did not hold is
/// run again, `attempts` times in all; after that the gate as a whole is invalid, whatever its other numbers say.
public struct GatePipeline {
  public var head: String
  /// A build of what the head is compared with; nil leaves the tiers in time out.
  public var base: String?
  /// A copy of the base, whose difference from it is the noise of machine and method.
  public var control: String?
  public var attempts = 3
  /// Where the processes leave their own result files.
  public var resultsFolder: String?
  private let run: ProgramRunner
  private let progress: (String) -> Void

  private var problems: [String] = []

  public init(
    head: String, base: String?, control: String?, run: @escaping ProgramRunner,
    progress: @escaping (String) -> Void = { _ in }
  ) {
    self.head = head
    self.base = base
    self.control = control
    self.run = run
    self.progress = progress
  }

  /// - Parameters:
  ///   - counts: committed counts; nil where there are none for this architecture and toolchain.
  ///   - machine: what this kind of machine measured before; nil where nothing was accepted.
  public mutating func judge(
    tiers: Set<GateTier>, counts: CountBaseline?, machine: MachineBaseline?
  ) throws -> GateReport {
    problems = []
    var verdicts: [SeriesVerdict] = []
    var measuredCounts: [String: Double] = [:]
    if tiers.contains(.counts) {
      measuredCounts = try count()
      verdicts += Self.judge(measuredCounts, against: counts)
    }
    if tiers.contains(.ratio) { verdicts.append(try judgeRatio(machine)) }
    if base != nil {
      if tiers.contains(.micro) { verdicts += try compare(.hotPaths, blocks: PairedRule.micro.leastBlocks) }
      if tiers.contains(.cluster) {
        for probe in Probe.cluster { verdicts += try compare(probe, blocks: PairedRule.clusterThroughput.leastBlocks) }
      }
    }
    return GateReport(series: verdicts, problems: problems, counts: measuredCounts)
  }

  // MARK: Counts and ratio

  /// What the head takes in allocations, messages and bytes.
  private mutating func count() throws -> [String: Double] {
    var counts: [String: Double] = [:]
    for probe in [Probe.hotPaths] + Probe.counts {
      progress("counting: \(probe.name)")
      guard let result = try measure(probe, of: head) else { continue }
      counts.merge(result.counted(probe)) { $1 }
    }
    return counts
  }

  static func judge(_ measured: [String: Double], against baseline: CountBaseline?) -> [SeriesVerdict] {
    let known = baseline?.counts ?? [:]
    return Set(measured.keys).union(known.keys).sorted().map { series in
      // Allocations are exact. Messages and bytes of one operation contain the heartbeats that pass meanwhile, and a
      // follower that falls behind answers two messages at once: on a busy machine a write takes 3.6 instead of 4, on
      // a slow one 4.5. What counts is a whole message more.
      let isExact = series.hasPrefix("hot-paths/")
      return CountGate.judge(
        series: series, baseline: known[series], measured: measured[series], relative: isExact ? 0 : 0.15,
        absolute: isExact ? 0 : 0.9)
    }
  }

  private mutating func judgeRatio(_ machine: MachineBaseline?) throws -> SeriesVerdict {
    progress("Lease against Safe")
    guard case .suite(let summary)? = try measure(.reads, of: head), let ratio = summary.leaseToSafe else {
      return SeriesVerdict(series: MachineBaseline.leaseToSafe, verdict: .missing, reason: "no valid run measured it")
    }
    return RatioGate.judge(
      series: MachineBaseline.leaseToSafe, ratio: ratio.throughputRatio,
      baseline: machine?.median(MachineBaseline.leaseToSafe))
  }

  // MARK: Base against head

  private mutating func compare(_ probe: Probe, blocks: Int) throws -> [SeriesVerdict] {
    guard let base else { return [] }
    let control = try self.control.map { try block(probe, base, $0, blocks, "control") } ?? [:]
    let first = try block(probe, base, head, blocks, "first stage")
    let suspects = first.values.contains { paired in
      PairedGate.needsSecondStage(
        first: paired.blocks, control: control[paired.series]?.blocks ?? [], direction: paired.direction,
        rule: paired.rule)
    }
    let second = suspects ? try block(probe, base, head, blocks, "second stage") : [:]
    return first.values.sorted { $0.series < $1.series }.map { paired in
      PairedGate.judge(
        series: paired.series, first: paired.blocks, second: second[paired.series]?.blocks ?? [],
        control: control[paired.series]?.blocks ?? [], direction: paired.direction, rule: paired.rule)
    }
  }

  private struct PairedSeries {
    var series: String
    var direction: Direction
    var rule: PairedRule
    var blocks: [PairedBlock] = []
  }

  /// `count` blocks of A B B A or B A A B, alternating, each letter a process.
  private mutating func block(
    _ probe: Probe, _ a: String, _ b: String, _ count: Int, _ stage: String
  ) throws -> [String: PairedSeries] {
    var series: [String: PairedSeries] = [:]
    for number in 0..<count {
      progress("\(probe.name), \(stage): block \(number + 1) of \(count)")
      let order = number.isMultiple(of: 2) ? [false, true, true, false] : [true, false, false, true]
      var sides: [Bool: [String: [Double]]] = [:]
      for isHead in order {
        guard let result = try measure(probe, of: isHead ? b : a) else { continue }
        for value in result.timed(probe) {
          sides[isHead, default: [:]][value.series, default: []].append(value.value)
          if series[value.series] == nil {
            series[value.series] = PairedSeries(
              series: value.series, direction: value.direction, rule: value.rule)
          }
        }
      }
      for name in series.keys {
        // A series that only one side has makes blocks that do not count, and so ends as inconclusive.
        series[name]?.blocks.append(
          PairedBlock(base: sides[false]?[name] ?? [], head: sides[true]?[name] ?? []))
      }
    }
    return series
  }

  // MARK: Processes

  /// One process's result; nil if no attempt was valid, which is kept as a problem.
  private mutating func measure(_ probe: Probe, of program: String) throws -> ProbeResult? {
    var reasons: [String] = []
    for _ in 0..<attempts {
      let folder = probe.kind == .suite ? resultsFolder.map { ["--results", $0] } ?? [] : []
      let output = try run(program, probe.arguments + folder)
      let result: ProbeResult =
        switch probe.kind {
        case .hotPaths: .hotPaths(try MeasuredHotPaths(json: output))
        case .suite: .suite(try MeasuredSummary(json: output))
        }
      if result.problems.isEmpty { return result }
      reasons = result.problems
    }
    problems.append("\(probe.name) of \(program) was invalid \(attempts) times: \(reasons.joined(separator: "; "))")
    return nil
  }
}
