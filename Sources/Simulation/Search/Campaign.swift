/// Many seeds in a row, and what they came to.
public struct CampaignSummary: Sendable {
  public var seeds = 0
  public var events = 0
  public var virtualNanoseconds: UInt64 = 0
  public var elections = 0
  public var committedEntries: UInt64 = 0
  public var operations = 0
  public var answeredOperations = 0
  public var seedsOnRealLog = 0
  public var marks: [Int] = Array(repeating: 0, count: Mark.allCases.count)
  /// The first failures, seed and what broke.
  public var failures: [(seed: UInt64, profile: Profile, violation: Violation)] = []
  public var failedSeeds = 0
  /// Digest of all trace hashes, in order.
  public private(set) var traceHash = TraceHash()

  public init() {}

  public subscript(mark: Mark) -> Int { marks[mark.rawValue] }

  /// Situations that no seed passed through.
  public var missedMarks: [Mark] { Mark.allCases.filter { marks[$0.rawValue] == 0 } }

  /// Adds a run.
  public mutating func add(_ report: RunReport, plan: SimulationPlan, profile: Profile) {
    seeds += 1
    events += report.events
    virtualNanoseconds += report.virtualNanoseconds
    elections += report.elections
    committedEntries += report.committedEntries
    operations += report.operations
    answeredOperations += report.answeredOperations
    if plan.disk.kind == .writeAheadLog { seedsOnRealLog += 1 }
    for position in marks.indices { marks[position] += report.marks[position] }
    traceHash.add(report.traceHash)
    if let violation = report.violation {
      failedSeeds += 1
      if failures.count < 20 { failures.append((report.seed, profile, violation)) }
    }
  }
}
