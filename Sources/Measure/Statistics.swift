import Foundation

/// The statistics that the results and the gate stand on. None assumes a normal distribution: run times are skewed.
public enum Statistics {
  /// An estimate with its confidence interval.
  public struct Interval: Sendable, Equatable, Codable {
    public var estimate: Double
    public var low: Double
    public var high: Double

    public init(estimate: Double, low: Double, high: Double) {
      self.estimate = estimate
      self.low = low
      self.high = high
    }
  }

  /// The middle value; the mean of the two middle ones of an even number; NaN of nothing.
  public static func median(_ values: [Double]) -> Double {
    guard !values.isEmpty else { return .nan }
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count.isMultiple(of: 2) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
  }

  /// 1.4826 times the median distance from the median: a standard deviation that outliers do not move.
  public static func scaledMedianAbsoluteDeviation(_ values: [Double]) -> Double {
    let center = median(values)
    return 1.4826 * median(values.map { abs($0 - center) })
  }

  /// The means of all pairs i ≤ j, sorted.
  public static func walshAverages(_ values: [Double]) -> [Double] {
    var averages: [Double] = []
    averages.reserveCapacity(values.count * (values.count + 1) / 2)
    for i in values.indices {
      for j in i..<values.count {
        averages.append((values[i] + values[j]) / 2)
      }
    }
    return averages.sorted()
  }

  /// The Hodges–Lehmann estimate: the median of the Walsh averages. Up to 29 % of outliers do not carry it away.
  public static func hodgesLehmann(_ values: [Double]) -> Double {
    median(walshAverages(values))
  }

  /// Hodges–Lehmann estimate with the distribution-free interval that inverts the signed-rank test.
  ///
  /// With few values no interval reaches the confidence asked for; the widest there is (the extremes) is returned.
  public static func hodgesLehmannInterval(_ values: [Double], confidence: Double = 0.95) -> Interval {
    let averages = walshAverages(values)
    guard let first = averages.first, let last = averages.last else {
      return Interval(estimate: .nan, low: .nan, high: .nan)
    }
    let tail = (1 - confidence) / 2
    let distribution = signedRankDistribution(doubledRanks: (1...values.count).map { 2 * $0 })
    // The largest c with P(W ≤ c − 1) ≤ α/2 gives the interval from the c-th to the c-th last average.
    var cumulative = 0.0
    var cut = 0
    for rank in 0...averages.count {
      cumulative += distribution[2 * rank]
      guard cumulative <= tail else { break }
      cut = rank + 1
    }
    guard cut > 0, cut <= averages.count else {
      return Interval(estimate: median(averages), low: first, high: last)
    }
    return Interval(
      estimate: median(averages), low: averages[cut - 1], high: averages[averages.count - cut])
  }

  /// P(W⁺ ≥ observed) of the Wilcoxon signed-rank test: the chance of so large a rank sum of the positive values if
  /// their signs were coin flips. Exact, also with ties (mid-ranks); zeros are left out. 1 of nothing.
  public static func signedRankPValue(_ values: [Double]) -> Double {
    let ranked = doubledRanks(values.filter { $0 != 0 })
    guard !ranked.isEmpty else { return 1 }
    let observed = ranked.reduce(0) { $0 + ($1.isPositive ? $1.doubledRank : 0) }
    let distribution = signedRankDistribution(doubledRanks: ranked.map(\.doubledRank))
    return min(1, distribution[observed...].reduce(0, +))
  }

  private struct RankedSign {
    var doubledRank: Int
    var isPositive: Bool
  }

  /// Ranks of the magnitudes, doubled so that mid-ranks stay whole.
  private static func doubledRanks(_ values: [Double]) -> [RankedSign] {
    let sorted = values.sorted { abs($0) < abs($1) }
    var ranked: [RankedSign] = []
    var start = 0
    while start < sorted.count {
      var end = start
      while end < sorted.count, abs(sorted[end]) == abs(sorted[start]) { end += 1 }
      // Ranks start + 1 ... end share their mean, (start + 1 + end) / 2.
      for index in start..<end {
        ranked.append(RankedSign(doubledRank: start + 1 + end, isPositive: sorted[index] > 0))
      }
      start = end
    }
    return ranked
  }

  /// The probability of each doubled rank sum when each rank counts with probability one half.
  static func signedRankDistribution(doubledRanks: [Int]) -> [Double] {
    var distribution = [Double](repeating: 0, count: doubledRanks.reduce(0, +) + 1)
    distribution[0] = 1
    var reach = 0
    for rank in doubledRanks {
      reach += rank
      for sum in stride(from: reach, through: 0, by: -1) {
        let withRank = sum >= rank ? distribution[sum - rank] : 0
        distribution[sum] = (distribution[sum] + withRank) / 2
      }
    }
    return distribution
  }

  /// The ranks (from 1, of `count` sorted samples) between which the true quantile lies with 95 % confidence.
  ///
  /// Nil where the samples are too few for the upper rank to exist.
  public static func orderStatisticRanks(count: UInt64, quantile: Double) -> (low: UInt64, high: UInt64)? {
    let n = Double(count)
    let spread = 1.96 * (n * quantile * (1 - quantile)).squareRoot()
    let low = (n * quantile - spread).rounded(.down)
    let high = (n * quantile + spread).rounded(.up) + 1
    guard low >= 1, high <= n else { return nil }
    return (UInt64(low), UInt64(high))
  }

  /// The 95 % confidence interval of a histogram's quantile, by order statistics; nil where samples are too few.
  public static func quantileInterval(of histogram: LatencyHistogram, quantile: Double) -> Interval? {
    guard let ranks = orderStatisticRanks(count: histogram.count, quantile: quantile) else { return nil }
    let n = Double(histogram.count)
    return Interval(
      estimate: Double(histogram.quantile(quantile)),
      low: Double(histogram.quantile(Double(ranks.low) / n)),
      high: Double(histogram.quantile(Double(ranks.high) / n)))
  }

  /// How much of the start of a series is warm-up, by the MSER-5 rule (White, 1997): of all cuts, the one that
  /// leaves the smallest squared standard error of the mean, over means of five.
  public struct WarmUp: Sendable, Equatable {
    /// Values to drop from the start.
    public var truncated: Int
    /// False where the best cut lies in the second half: then the series has not settled.
    public var isSteady: Bool
  }

  public static func warmUp(_ values: [Double]) -> WarmUp {
    let batch = 5
    let means = stride(from: 0, to: values.count - values.count % batch, by: batch).map { start in
      values[start..<start + batch].reduce(0, +) / Double(batch)
    }
    guard means.count >= 2 else { return WarmUp(truncated: 0, isSteady: values.count >= 2) }
    var best = (cut: 0, error: Double.infinity)
    // A cut that leaves one mean has no spread left to judge by, so the last few are not candidates.
    for cut in 0..<max(1, means.count - 2) {
      let rest = means[cut...]
      let mean = rest.reduce(0, +) / Double(rest.count)
      let squares = rest.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
      let error = squares / Double(rest.count * rest.count)
      if error < best.error { best = (cut, error) }
    }
    return WarmUp(truncated: best.cut * batch, isSteady: best.cut <= means.count / 2)
  }

  /// The Mann–Kendall test for a trend.
  public struct Trend: Sendable, Equatable {
    /// Pairs that rise less pairs that fall.
    public var score: Int
    /// Two-sided, by the normal approximation with the correction for ties.
    public var pValue: Double
  }

  public static func trend(_ values: [Double]) -> Trend {
    var score = 0
    for i in values.indices {
      for j in values.indices where j > i {
        score += values[j] > values[i] ? 1 : (values[j] < values[i] ? -1 : 0)
      }
    }
    let n = Double(values.count)
    var variance = n * (n - 1) * (2 * n + 5)
    let sorted = values.sorted()
    var start = 0
    while start < sorted.count {
      var end = start
      while end < sorted.count, sorted[end] == sorted[start] { end += 1 }
      let ties = Double(end - start)
      variance -= ties * (ties - 1) * (2 * ties + 5)
      start = end
    }
    guard variance > 0, score != 0 else { return Trend(score: score, pValue: 1) }
    let z = Double(score - (score > 0 ? 1 : -1)) / (variance / 18).squareRoot()
    return Trend(score: score, pValue: erfc(abs(z) / 2.0.squareRoot()))
  }
}

/// The mean of the natural logarithms.
func meanOfLogs(_ values: [Double]) -> Double {
  values.reduce(0) { $0 + log($1) } / Double(values.count)
}

func exponential(_ value: Double) -> Double { exp(value) }
