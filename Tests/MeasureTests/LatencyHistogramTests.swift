import Testing

@testable import Measure

/// A small seeded generator for the tests of this module.
struct TestRandom: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

@Suite("Latency histogram")
struct LatencyHistogramTests {
  @Test("Quantiles are within a thousandth of the exact ones")
  func accuracy() {
    var random = TestRandom(state: 7)
    var histogram = LatencyHistogram()
    // Log-uniform from 100 ns to 10 s: each decade is as likely as the next.
    let values = (0..<200_000).map { _ -> UInt64 in
      let exponent = Double.random(in: 2...10, using: &random)
      return UInt64(Self.power(10, exponent))
    }
    for value in values { histogram.record(value) }
    let sorted = values.sorted()
    for quantile in [0.5, 0.9, 0.99, 0.999, 0.9999] {
      let exact = Double(sorted[Int((Double(sorted.count) * quantile).rounded(.up)) - 1])
      let measured = Double(histogram.quantile(quantile))
      #expect(abs(measured - exact) / exact <= 1e-3, "quantile \(quantile): \(measured), exact \(exact)")
    }
    #expect(histogram.maxNanoseconds == sorted.last)
    #expect(histogram.sumNanoseconds == values.reduce(0, +))
    #expect(histogram.count == 200_000)
  }

  private static func power(_ base: Double, _ exponent: Double) -> Double {
    // Avoids importing a mathematics library into a test that needs one function of it.
    var result = 1.0
    for _ in 0..<Int(exponent) { result *= base }
    let fraction = exponent - exponent.rounded(.down)
    return result * (1 + fraction * (base - 1))
  }

  @Test("Merged workers are the same as one that recorded everything")
  func merging() {
    var random = TestRandom(state: 11)
    var whole = LatencyHistogram()
    var parts = [LatencyHistogram](repeating: LatencyHistogram(), count: 3)
    for i in 0..<30_000 {
      let value = UInt64.random(in: 0...50_000_000, using: &random)
      whole.record(value)
      parts[i % 3].record(value)
    }
    var merged = LatencyHistogram()
    for part in parts { merged.merge(part) }
    #expect(merged == whole)
  }

  @Test("A quantile is printed only where ten operations lie beyond it")
  func printable() {
    var histogram = LatencyHistogram()
    for value in 1...999 { histogram.record(UInt64(value)) }
    #expect(histogram.printableQuantile(0.99) == nil)
    histogram.record(1000)
    #expect(histogram.printableQuantile(0.99) == 990)
    #expect(histogram.printableQuantile(0.999) == nil)
    histogram.record(5, count: 9_000)
    #expect(histogram.printableQuantile(0.999) != nil)
    #expect(histogram.printableQuantile(0.9999) == nil)
    #expect(LatencyHistogram().printableQuantile(0.5) == nil)
  }

  @Test("The maximum is the value itself, not the end of its bucket; what is beyond the range is clamped and counted")
  func extremes() {
    var histogram = LatencyHistogram()
    histogram.record(3_003_689_900)
    #expect(histogram.maxNanoseconds == 3_003_689_900)
    histogram.record(61_000_000_000)
    histogram.record(.max, count: 2)
    #expect(histogram.clamped == 3)
    #expect(histogram.count == 4)
    #expect(histogram.maxNanoseconds == LatencyHistogram.highestNanoseconds)
    histogram.reset()
    #expect(histogram == LatencyHistogram())
  }

  @Test("A count is the same as that many records")
  func counted() {
    var one = LatencyHistogram()
    var other = LatencyHistogram()
    for _ in 0..<64 { one.record(12_345) }
    other.record(12_345, count: 64)
    #expect(one == other)
  }
}
