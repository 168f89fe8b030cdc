import Histogram

/// A distribution of latencies: an HdrHistogram of nanoseconds up to 60 s at three significant digits, and the exact
/// sum beside it. A value type: one per worker and operation, merged by adding counts, never by averaging quantiles.
public struct LatencyHistogram: Sendable, Equatable {
  /// What is longer is recorded as this long, and counted in `clamped`.
  public static let highestNanoseconds: UInt64 = 60_000_000_000

  @usableFromInline var histogram: Histogram<UInt64>
  @usableFromInline var sum: UInt64 = 0
  /// How many latencies were longer than `highestNanoseconds`.
  public private(set) var clamped: UInt64 = 0

  public init() {
    histogram = Histogram(
      highestTrackableValue: Self.highestNanoseconds, numberOfSignificantValueDigits: .three)
  }

  /// Sum of all recorded latencies, which makes the mean exact where the histogram's own is rounded to buckets.
  public var sumNanoseconds: UInt64 { sum }
  public var count: UInt64 { histogram.totalCount }
  public var isEmpty: Bool { histogram.totalCount == 0 }

  /// The longest latency recorded, exactly. (The histogram's own `max` is the end of that value's bucket.)
  public var maxNanoseconds: UInt64 { histogram.maxRecorded }

  /// Exact mean in nanoseconds; 0 of nothing.
  public var meanNanoseconds: Double { isEmpty ? 0 : Double(sumNanoseconds) / Double(count) }

  /// Records one latency. Inlinable: the generator's workers call it for each operation.
  @inlinable
  public mutating func record(_ nanoseconds: UInt64) {
    guard nanoseconds <= Self.highestNanoseconds else {
      return recordClamped(count: 1)
    }
    histogram.record(nanoseconds)
    sum &+= nanoseconds
  }

  /// Records the same latency `count` times: what a batch that was sent and answered together shares.
  @inlinable
  public mutating func record(_ nanoseconds: UInt64, count: UInt64) {
    guard nanoseconds <= Self.highestNanoseconds else {
      return recordClamped(count: count)
    }
    histogram.record(nanoseconds, count: count)
    sum &+= nanoseconds &* count
  }

  @usableFromInline
  mutating func recordClamped(count: UInt64) {
    clamped += count
    histogram.record(Self.highestNanoseconds, count: count)
    sum &+= Self.highestNanoseconds &* count
  }

  /// Adds all that `other` holds.
  public mutating func merge(_ other: LatencyHistogram) {
    guard !other.isEmpty else { return }
    histogram.add(other.histogram)
    sum &+= other.sum
    clamped += other.clamped
  }

  public mutating func reset() {
    histogram.reset()
    sum = 0
    clamped = 0
  }

  /// The latency that a share `q` (0...1) of the operations did not exceed, to three digits; 0 of nothing.
  public func quantile(_ q: Double) -> UInt64 {
    isEmpty ? 0 : histogram.valueAtPercentile(q * 100)
  }

  /// `quantile(q)` where at least ten operations lie beyond it, which is what a quantile needs to be more than a
  /// guess; nil otherwise, and never the maximum in disguise.
  public func printableQuantile(_ q: Double) -> UInt64? {
    // The tolerance keeps 10,000 operations enough for q = 0.999, whose 1 - q is a little below 0.001 in binary.
    Double(count) * (1 - q) >= 10 - 1e-6 ? quantile(q) : nil
  }

  /// Every bucket that holds something, in ascending order.
  public func buckets() -> [HistogramBucket] {
    histogram.recordedValues().map { value in
      HistogramBucket(
        highestNanoseconds: histogram.highestEquivalentForValue(value.value), count: value.count)
    }
  }
}

/// One bucket of a histogram.
public struct HistogramBucket: Sendable, Equatable {
  /// The end of the bucket: the longest latency that it may stand for.
  public var highestNanoseconds: UInt64
  public var count: UInt64

  public init(highestNanoseconds: UInt64, count: UInt64) {
    self.highestNanoseconds = highestNanoseconds
    self.count = count
  }
}

/// A distribution in six numbers, as the results print it. A quantile is nil where fewer than ten operations lie
/// beyond it.
public struct LatencySummary: Codable, Sendable, Equatable {
  public var count: UInt64
  public var mean: Double
  public var p50: UInt64?
  public var p90: UInt64?
  public var p99: UInt64?
  public var p999: UInt64?
  public var p9999: UInt64?
  public var max: UInt64

  public init(_ histogram: LatencyHistogram) {
    count = histogram.count
    mean = histogram.meanNanoseconds
    p50 = histogram.printableQuantile(0.5)
    p90 = histogram.printableQuantile(0.9)
    p99 = histogram.printableQuantile(0.99)
    p999 = histogram.printableQuantile(0.999)
    p9999 = histogram.printableQuantile(0.9999)
    max = histogram.maxNanoseconds
  }

  /// Nil is written as null, not left out: scripts may rely on the names.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(count, forKey: .count)
    try container.encode(mean, forKey: .mean)
    try container.encode(p50, forKey: .p50)
    try container.encode(p90, forKey: .p90)
    try container.encode(p99, forKey: .p99)
    try container.encode(p999, forKey: .p999)
    try container.encode(p9999, forKey: .p9999)
    try container.encode(max, forKey: .max)
  }
}
