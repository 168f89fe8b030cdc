import Measure

/// The distribution of one operation of one run.
public struct LatencySpectrum: Sendable {
  public var run: String
  public var operation: String
  public var isOpen: Bool
  public var response: LatencyHistogram
  public var service: LatencyHistogram

  public init(
    run: String, operation: String, isOpen: Bool, response: LatencyHistogram, service: LatencyHistogram
  ) {
    self.run = run
    self.operation = operation
    self.isOpen = isOpen
    self.response = response
    self.service = service
  }
}

/// One rate of a sweep: what was asked for, what was reached, and what it cost in latency.
public struct SweepPoint: Codable, Sendable, Equatable {
  /// What the points of one line have in common, e.g. `read lease`.
  public var series: String
  public var offeredPerSecond: Double
  public var achievedPerSecond: Double
  public var p50Nanoseconds: UInt64?
  public var p99Nanoseconds: UInt64?
  public var p999Nanoseconds: UInt64?

  public init(
    series: String, offeredPerSecond: Double, achievedPerSecond: Double, p50Nanoseconds: UInt64?,
    p99Nanoseconds: UInt64?, p999Nanoseconds: UInt64?
  ) {
    self.series = series
    self.offeredPerSecond = offeredPerSecond
    self.achievedPerSecond = achievedPerSecond
    self.p50Nanoseconds = p50Nanoseconds
    self.p99Nanoseconds = p99Nanoseconds
    self.p999Nanoseconds = p999Nanoseconds
  }
}

/// Everything that a report is drawn from. The same data gives the same file, byte for byte.
public struct ReportData: Sendable {
  public var summary: BenchSummary
  public var spectra: [LatencySpectrum]
  public var rows: [IntervalRow]
  public var sweep: [SweepPoint]

  public init(
    summary: BenchSummary, spectra: [LatencySpectrum], rows: [IntervalRow], sweep: [SweepPoint] = []
  ) {
    self.summary = summary
    self.spectra = spectra
    self.rows = rows
    self.sweep = sweep
  }
}
