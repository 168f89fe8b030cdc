import Foundation
import Measure

/// Whether more of a quantity is better.
public enum Direction: String, Sendable, Codable {
  case lowerIsBetter
  case higherIsBetter
}

/// Four measurements taken in the order base head head base, or head base base head, each in a process of its own.
/// Slow drift meets both sides alike, and drift that is even within the block cancels.
public struct PairedBlock: Sendable, Equatable, Codable {
  public var base: [Double]
  public var head: [Double]

  public init(base: [Double], head: [Double]) {
    self.base = base
    self.head = head
  }

  /// How much worse the head is, as a natural logarithm; nil where a measurement is missing or not positive.
  public func logRatio(_ direction: Direction) -> Double? {
    guard !base.isEmpty, base.count == head.count, (base + head).allSatisfy({ $0 > 0 && $0.isFinite }) else {
      return nil
    }
    let difference = (zip(head, base).reduce(0) { $0 + log($1.0) - log($1.1) }) / Double(base.count)
    return direction == .lowerIsBetter ? difference : -difference
  }
}

/// When a paired comparison says that something got worse.
public struct PairedRule: Sendable, Equatable {
  /// Slowdown that is let pass, e.g. 0.1 for 10 %: effects below may be relinking and alignment.
  public var tolerance: Double
  public var significance = 0.01
  /// Blocks that must at least be there; with 12 the smallest possible p-value is 1/4096.
  public var leastBlocks = 12
  /// A pass that could not have seen a slowdown of this size is not one.
  public var largestBlindness = 0.4
  /// Largest spread of the control series for any failure to count.
  public var largestControlSpread = 0.15

  public init(tolerance: Double) {
    self.tolerance = tolerance
  }

  /// One-threaded micro-benchmarks.
  public static let micro = PairedRule(tolerance: 0.10)
  public static let clusterThroughput: PairedRule = {
    var rule = PairedRule(tolerance: 0.20)
    rule.leastBlocks = 20
    return rule
  }()
  public static let clusterP99: PairedRule = {
    var rule = PairedRule(tolerance: 0.30)
    rule.leastBlocks = 20
    return rule
  }()
}

/// What one stage of a comparison found.
public struct PairedStage: Sendable, Equatable {
  /// Relative slowdown of the head: Hodges–Lehmann over the blocks, 0.1 for 10 %.
  public var effect: Double
  /// Its 95 % confidence interval.
  public var low: Double
  public var high: Double
  /// One-sided, exact signed rank: the chance of so much "worse" if there were no difference.
  public var pValueWorse: Double
  public var pValueBetter: Double
  /// Robust standard deviation of a block's log ratio.
  public var spread: Double
  /// Tolerance in force: the rule's, or more where the control series is noisy.
  public var tolerance: Double
  /// Slowdown that would be found nine times in ten.
  public var detectableEffect: Double
  public var blocks: Int
  public var isWorse: Bool
  public var isBetter: Bool

  /// - Parameter control: log ratios of the base against a copy of itself, from the same job; may be empty.
  public init(logRatios: [Double], rule: PairedRule, control: [Double]) {
    let interval = Statistics.hodgesLehmannInterval(logRatios)
    // The Hodges–Lehmann estimate has 0.955 of the mean's efficiency for normal data.
    let root = (0.955 * Double(max(logRatios.count, 1))).squareRoot()
    let noise = control.isEmpty ? 0 : 3 * Statistics.scaledMedianAbsoluteDeviation(control) / root
    let logTolerance = max(log(1 + rule.tolerance), noise)
    spread = Statistics.scaledMedianAbsoluteDeviation(logRatios)
    pValueWorse = Statistics.signedRankPValue(logRatios)
    pValueBetter = Statistics.signedRankPValue(logRatios.map { -$0 })
    effect = exp(interval.estimate) - 1
    low = exp(interval.low) - 1
    high = exp(interval.high) - 1
    tolerance = exp(logTolerance) - 1
    blocks = logRatios.count
    // Normal quantiles: 1.2816 for nine in ten, 2.3263 for the significance of one in a hundred.
    let byFloor = logTolerance + 1.2816 * spread / root
    let bySignificance = (2.3263 + 1.2816) * spread / root
    detectableEffect = exp(max(byFloor, bySignificance)) - 1
    isWorse = interval.estimate > logTolerance && pValueWorse < rule.significance
    isBetter = interval.estimate < -logTolerance && pValueBetter < rule.significance
  }
}

/// Two stages and a control: a slowdown counts only if fresh measurements repeat it and the control held still.
public enum PairedGate {
  /// - Parameters:
  ///   - second: fresh blocks; empty until the first stage finds something. See `needsSecondStage`.
  ///   - control: the base against a copy of itself through the same pipeline.
  public static func judge(
    series: String, first: [PairedBlock], second: [PairedBlock], control: [PairedBlock], direction: Direction,
    rule: PairedRule
  ) -> SeriesVerdict {
    let controlRatios = control.compactMap { $0.logRatio(direction) }
    let firstRatios = first.compactMap { $0.logRatio(direction) }
    guard firstRatios.count >= rule.leastBlocks else {
      return SeriesVerdict(
        series: series, verdict: .inconclusive,
        reason: "\(firstRatios.count) usable blocks of \(first.count); \(rule.leastBlocks) are needed")
    }
    let stage = PairedStage(logRatios: firstRatios, rule: rule, control: controlRatios)
    let numbers = describe(stage)
    guard stage.isWorse || stage.isBetter else {
      guard stage.detectableEffect <= rule.largestBlindness else {
        return SeriesVerdict(
          series: series, verdict: .inconclusive,
          reason: "blind below \(percent(stage.detectableEffect)): \(numbers)")
      }
      return SeriesVerdict(series: series, verdict: .pass, reason: numbers)
    }
    let secondRatios = second.compactMap { $0.logRatio(direction) }
    guard secondRatios.count >= rule.leastBlocks else {
      return SeriesVerdict(
        series: series, verdict: .inconclusive,
        reason: "not confirmed: \(secondRatios.count) usable blocks in the second stage; first: \(numbers)")
    }
    let confirmation = PairedStage(logRatios: secondRatios, rule: rule, control: controlRatios)
    guard confirmation.isWorse == stage.isWorse, confirmation.isBetter == stage.isBetter else {
      // One run's artefact: fresh measurements do not show it.
      return SeriesVerdict(
        series: series, verdict: .pass, reason: "not reproduced (\(describe(confirmation))); first: \(numbers)")
    }
    guard stage.isWorse else {
      return SeriesVerdict(series: series, verdict: .improved, reason: describe(confirmation))
    }
    if let moved = movedControl(controlRatios, rule) {
      return SeriesVerdict(series: series, verdict: .inconclusive, reason: "\(moved); \(describe(confirmation))")
    }
    return SeriesVerdict(series: series, verdict: .fail, reason: describe(confirmation))
  }

  /// Whether the first stage found anything that fresh blocks must confirm.
  public static func needsSecondStage(
    first: [PairedBlock], control: [PairedBlock], direction: Direction, rule: PairedRule
  ) -> Bool {
    let ratios = first.compactMap { $0.logRatio(direction) }
    guard ratios.count >= rule.leastBlocks else { return false }
    let stage = PairedStage(
      logRatios: ratios, rule: rule, control: control.compactMap { $0.logRatio(direction) })
    return stage.isWorse || stage.isBetter
  }

  /// Why the control series forbids to blame the head; nil where it does not, or where there is none.
  private static func movedControl(_ ratios: [Double], _ rule: PairedRule) -> String? {
    guard !ratios.isEmpty else { return nil }
    let shift = Statistics.hodgesLehmann(ratios)
    let spread = Statistics.scaledMedianAbsoluteDeviation(ratios)
    if abs(shift) > log(1 + rule.tolerance / 2) {
      return "the base differs from a copy of itself by \(percent(exp(shift) - 1))"
    }
    if spread > rule.largestControlSpread { return "the control series spreads by \(percent(spread))" }
    return nil
  }

  private static func describe(_ stage: PairedStage) -> String {
    "\(signedPercent(stage.effect)) [\(signedPercent(stage.low)), \(signedPercent(stage.high))] over "
      + "\(stage.blocks) blocks, p \(String(format: "%.2g", min(stage.pValueWorse, stage.pValueBetter))), "
      + "tolerance \(percent(stage.tolerance)), a block spreads by \(percent(stage.spread)), "
      + "detects \(percent(stage.detectableEffect))"
  }

  private static func percent(_ share: Double) -> String { String(format: "%.1f %%", share * 100) }
  private static func signedPercent(_ share: Double) -> String { String(format: "%+.1f %%", share * 100) }
}
