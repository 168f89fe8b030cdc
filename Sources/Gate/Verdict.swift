/// How one series of a comparison ends.
public enum Verdict: String, Sendable, Codable, CaseIterable {
  case pass = "PASS"
  case fail = "FAIL"
  case improved = "IMPROVED"
  /// The measurement cannot tell: too noisy, or its own control moved.
  case inconclusive = "INCONCLUSIVE"
  /// Nothing to compare with on this machine. Listed, never silently green.
  case noBaseline = "NO-BASELINE"
  /// The base has it and the head does not: a benchmark that vanished is not one that passed.
  case missing = "MISSING"
}

/// One series and why it ended as it did.
public struct SeriesVerdict: Sendable, Equatable, Codable {
  public var series: String
  public var verdict: Verdict
  /// One sentence with the numbers.
  public var reason: String

  public init(series: String, verdict: Verdict, reason: String) {
    self.series = series
    self.verdict = verdict
    self.reason = reason
  }
}

/// How a gate ends; the numbers are `bench`'s exit codes.
public enum GateExit: Int32, Sendable {
  case ok = 0
  case regression = 2
  case thresholdMissed = 3
  case invalidRun = 4
  case inconclusive = 5

  /// An invalid run outweighs all, since nothing that it measured means anything; then what is certainly worse, then
  /// what misses a limit, then what cannot be told.
  public static func of(_ series: [SeriesVerdict], runsAreValid: Bool, thresholdsHold: Bool) -> GateExit {
    if !runsAreValid { return .invalidRun }
    let verdicts = Set(series.map(\.verdict))
    if verdicts.contains(.fail) || verdicts.contains(.missing) { return .regression }
    if !thresholdsHold { return .thresholdMissed }
    if verdicts.contains(.inconclusive) || series.isEmpty { return .inconclusive }
    return .ok
  }
}
