import Testing

@testable import Measure

@Suite("Statistics")
struct StatisticsTests {
  @Test("Median and Hodges–Lehmann of small samples, by hand")
  func location() {
    #expect(Statistics.median([3, 1, 2]) == 2)
    #expect(Statistics.median([4, 1, 2, 3]) == 2.5)
    #expect(Statistics.median([]).isNaN)
    // Walsh averages of 1, 2, 6: 1, 1.5, 2, 3.5, 4, 6.
    #expect(Statistics.walshAverages([1, 6, 2]) == [1, 1.5, 2, 3.5, 4, 6])
    #expect(Statistics.hodgesLehmann([1, 6, 2]) == 2.75)
    // One wild value of five does not carry the estimate away.
    #expect(Statistics.hodgesLehmann([1, 1.1, 0.9, 1, 1000]) < 1.2)
    #expect(abs(Statistics.scaledMedianAbsoluteDeviation([1, 2, 3, 4, 5]) - 1.4826) < 1e-12)
  }

  @Test("The signed-rank test is exact")
  func signedRank() {
    // All of n positive: 1 in 2^n.
    #expect(Statistics.signedRankPValue([1, 2, 3, 4, 5]) == 1.0 / 32)
    #expect(Statistics.signedRankPValue(Array(repeating: 1.0, count: 12)) == 1.0 / 4096)
    // Signs of ranks (1,2,3) = (−,+,+): W⁺ = 5, reached by {2,3} and {1,2,3}: 2 of 8.
    #expect(Statistics.signedRankPValue([-1, 2, 3]) == 0.25)
    #expect(Statistics.signedRankPValue([-1, -2, -3]) == 1)
    #expect(Statistics.signedRankPValue([]) == 1)
    #expect(Statistics.signedRankPValue([0, 0]) == 1)
    // The distribution sums to 1 and is symmetric.
    let distribution = Statistics.signedRankDistribution(doubledRanks: (1...20).map { 2 * $0 })
    #expect(abs(distribution.reduce(0, +) - 1) < 1e-12)
    #expect(zip(distribution, distribution.reversed()).allSatisfy { abs($0 - $1) < 1e-15 })
  }

  @Test("The signed-rank p-value agrees with counting all sign patterns, ties and all")
  func signedRankByEnumeration() {
    var random = TestRandom(state: 3)
    for _ in 0..<50 {
      let values = (0..<Int.random(in: 1...10, using: &random)).map { _ in
        Double(Int.random(in: -4...6, using: &random))
      }
      let magnitudes = values.filter { $0 != 0 }.map(abs)
      guard !magnitudes.isEmpty else { continue }
      let ranks = magnitudes.map { value in
        // Mid-rank: those below, plus the middle of those equal.
        Double(magnitudes.count { $0 < value }) + (Double(magnitudes.count { $0 == value }) + 1) / 2
      }
      let signs = values.filter { $0 != 0 }.map { $0 > 0 }
      let observed = zip(ranks, signs).reduce(0) { $0 + ($1.1 ? $1.0 : 0) }
      var atLeast = 0
      for pattern in 0..<(1 << ranks.count) {
        let sum = ranks.indices.reduce(0.0) { $0 + (pattern >> $1 & 1 == 1 ? ranks[$1] : 0) }
        if sum >= observed { atLeast += 1 }
      }
      let exact = Double(atLeast) / Double(1 << ranks.count)
      #expect(abs(Statistics.signedRankPValue(values) - exact) < 1e-12, "\(values)")
    }
  }

  @Test("The Walsh interval has the published cut-offs")
  func walshInterval() {
    // n = 10 at 95 %: the 9th of 55 averages from either end (tables give 8 as the critical value of W).
    let values = (1...10).map(Double.init)
    let averages = Statistics.walshAverages(values)
    let interval = Statistics.hodgesLehmannInterval(values)
    #expect(interval.low == averages[8])
    #expect(interval.high == averages[46])
    #expect(interval.estimate == 5.5)
    // Four values cannot reach 95 %: the extremes are all there is.
    let few = Statistics.hodgesLehmannInterval([1, 2, 3, 4])
    #expect(few.low == 1 && few.high == 4)
    #expect(Statistics.hodgesLehmannInterval([]).low.isNaN)
  }

  @Test("The Walsh interval covers the true centre in about 95 of 100 samples")
  func walshCoverage() {
    var random = TestRandom(state: 19)
    var covered = 0
    for _ in 0..<2000 {
      // Symmetric about 0 and not normal.
      let values = (0..<16).map { _ in
        Double.random(in: -1...1, using: &random) * Double.random(in: 0...3, using: &random)
      }
      let interval = Statistics.hodgesLehmannInterval(values)
      if interval.low <= 0, interval.high >= 0 { covered += 1 }
    }
    #expect((1860...1980).contains(covered), "\(covered) of 2000")
  }

  @Test("Order-statistic ranks bracket the quantile's own rank")
  func orderStatistics() throws {
    let ranks = try #require(Statistics.orderStatisticRanks(count: 10_000, quantile: 0.99))
    // 9900 ± 1.96·√99 = ± 19.5
    #expect(ranks.low == 9880)
    #expect(ranks.high == 9921)
    #expect(Statistics.orderStatisticRanks(count: 100, quantile: 0.99) == nil)
    var histogram = LatencyHistogram()
    for value in 1...10_000 { histogram.record(UInt64(value)) }
    let interval = try #require(Statistics.quantileInterval(of: histogram, quantile: 0.99))
    #expect(interval.low <= interval.estimate && interval.estimate <= interval.high)
    #expect(interval.high - interval.low < 60)
  }

  @Test("Warm-up is cut where the series settles; one that never settles is not steady")
  func warmUp() {
    var random = TestRandom(state: 23)
    let settled = (0..<200).map { i in
      (i < 30 ? 50 - Double(i) : 10) + Double.random(in: -1...1, using: &random)
    }
    let cut = Statistics.warmUp(settled)
    #expect((30...95).contains(cut.truncated), "cut at \(cut.truncated)")
    #expect(cut.isSteady)
    // Flat for nearly all of it, then a last stretch far away: the best cut is near the end.
    let unsettled = (0..<200).map { i in (i < 150 ? Double(i) : 150) + Double.random(in: -0.1...0.1, using: &random) }
    #expect(!Statistics.warmUp(unsettled).isSteady)
    #expect(!Statistics.warmUp([]).isSteady)
  }

  @Test("A trend is found where there is one")
  func trend() {
    var random = TestRandom(state: 29)
    let rising = (0..<60).map { Double($0) / 30 + Double.random(in: -0.5...0.5, using: &random) }
    #expect(Statistics.trend(rising).pValue < 0.001)
    #expect(Statistics.trend(rising).score > 0)
    let flat = (0..<60).map { _ in Double.random(in: -0.5...0.5, using: &random) }
    #expect(Statistics.trend(flat).pValue > 0.01)
    #expect(Statistics.trend([5, 5, 5, 5]).pValue == 1)
    // Ten rising values: S = 45, variance 125, z = 44/√125 = 3.935, p = 8.3e-5.
    let ten = Statistics.trend((1...10).map(Double.init))
    #expect(ten.score == 45)
    #expect(abs(ten.pValue - 8.3e-5) < 1e-6)
  }
}
