import Foundation

/// Writes a distribution as the percentile table (`.hgrm`) that HdrHistogram's plotters read.
public enum PercentileFile {
  /// - Parameters:
  ///   - unitNanoseconds: the unit of the value column, e.g. 1000 for microseconds.
  ///   - ticksPerHalfDistance: lines for each halving of the distance to 100 %.
  public static func text(
    of histogram: LatencyHistogram, unitNanoseconds: Double = 1000, ticksPerHalfDistance: Int = 5
  ) -> String {
    var text = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n"
    for line in lines(of: histogram.buckets(), total: histogram.count, ticksPerHalfDistance: ticksPerHalfDistance) {
      let value = decimal(Double(line.nanoseconds) / unitNanoseconds, digits: 3, width: 12)
      let percentile = decimal(line.quantile, digits: 12, width: 14)
      text += "\(value) \(percentile) \(padded(String(line.totalCount), width: 10))"
      text += line.quantile < 1 ? " \(decimal(1 / (1 - line.quantile), digits: 2, width: 14))\n" : "\n"
    }
    let mean = decimal(histogram.meanNanoseconds / unitNanoseconds, digits: 3, width: 12)
    let deviation = decimal(standardDeviation(of: histogram) / unitNanoseconds, digits: 3, width: 12)
    let maximum = decimal(Double(histogram.maxNanoseconds) / unitNanoseconds, digits: 3, width: 12)
    text += "#[Mean    = \(mean), StdDeviation   = \(deviation)]\n"
    text += "#[Max     = \(maximum), Total count    = \(padded(String(histogram.count), width: 12))]\n"
    text += "#[Buckets = \(padded("26", width: 12)), SubBuckets     = \(padded("2048", width: 12))]\n"
    text += "#[Unit    = \(unitNanoseconds == 1000 ? "microseconds" : "\(unitNanoseconds) nanoseconds")]\n"
    return text
  }

  /// One line of the table.
  public struct Line: Sendable, Equatable {
    public var nanoseconds: UInt64
    /// 0...1.
    public var quantile: Double
    /// Operations that took no longer than `nanoseconds`.
    public var totalCount: UInt64
  }

  /// The table's lines: quantiles that close in on 1 with `ticksPerHalfDistance` steps for each halving of the
  /// remaining distance, until every operation is covered.
  public static func lines(
    of buckets: [HistogramBucket], total: UInt64, ticksPerHalfDistance: Int
  ) -> [Line] {
    guard total > 0 else { return [] }
    var lines: [Line] = []
    var quantile = 0.0
    var covered: UInt64 = 0
    for (index, bucket) in buckets.enumerated() {
      covered += bucket.count
      let reached = Double(covered) / Double(total)
      if index == buckets.count - 1 {
        lines.append(Line(nanoseconds: bucket.highestNanoseconds, quantile: 1, totalCount: covered))
        break
      }
      while quantile <= reached {
        lines.append(Line(nanoseconds: bucket.highestNanoseconds, quantile: quantile, totalCount: covered))
        // Half-distances passed so far: each next one takes steps half as wide.
        let halvings = (log2(1 / (1 - quantile))).rounded(.down) + 1
        quantile += 1 / (Double(ticksPerHalfDistance) * pow(2, halvings))
        guard quantile < 1 else { break }
      }
    }
    return lines
  }

  private static func standardDeviation(of histogram: LatencyHistogram) -> Double {
    guard histogram.count > 0 else { return 0 }
    let mean = histogram.meanNanoseconds
    let sum = histogram.buckets().reduce(0.0) { sum, bucket in
      let distance = Double(bucket.highestNanoseconds) - mean
      return sum + distance * distance * Double(bucket.count)
    }
    return (sum / Double(histogram.count)).squareRoot()
  }

  private static func decimal(_ value: Double, digits: Int, width: Int) -> String {
    padded(String(format: "%.\(digits)f", value), width: width)
  }

  private static func padded(_ text: String, width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.utf8.count)) + text
  }
}
