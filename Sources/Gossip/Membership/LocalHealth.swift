/// How well the local node believes itself to be doing (Lifeguard's "local health multiplier"; memberlist calls
/// it awareness).
///
/// A node that misses the acknowledgements and nacks it should have had is more likely slow itself than right
/// about everyone else, so it gives others more time: every probe interval is multiplied by `score + 1`.
public struct LocalHealth: Sendable, Equatable {
  /// 0 is perfect health; never above `maximumScore`.
  public private(set) var score = 0
  /// The highest score, `AwarenessMaxMultiplier - 1`.
  public let maximumScore: Int

  /// - Parameter maximumMultiplier: the factor that the interval never exceeds; below 1 counts as 1.
  public init(maximumMultiplier: Int) {
    maximumScore = max(0, maximumMultiplier - 1)
  }

  /// Adds `delta` and clamps to `0...maximumScore`.
  public mutating func apply(_ delta: Int) {
    let (sum, overflow) = score.addingReportingOverflow(delta)
    score = overflow ? (delta > 0 ? maximumScore : 0) : min(max(0, sum), maximumScore)
  }

  /// `nanoseconds × (score + 1)`.
  public func scale(_ nanoseconds: UInt64) -> UInt64 {
    Formulas.saturatingProduct(nanoseconds, UInt64(score) + 1)
  }
}
