import Foundation
import Measure

/// A ratio within one run (Lease over Safe, batched over unbatched): both sides share the machine and the minute, so
/// it may be judged on any machine.
public enum RatioGate {
  /// - Parameters:
  ///   - atLeast: the ratio that the confidence interval must lie above.
  ///   - baseline: what it was on this machine; nil where it has not been measured there.
  ///   - tolerance: how far below the baseline the estimate may fall.
  public static func judge(
    series: String, ratio: Statistics.Interval, atLeast: Double = 1, baseline: Double?, tolerance: Double = 0.2
  ) -> SeriesVerdict {
    let text = String(format: "%.3f [%.3f, %.3f]", ratio.estimate, ratio.low, ratio.high)
    guard ratio.low.isFinite, ratio.high.isFinite else {
      return SeriesVerdict(series: series, verdict: .inconclusive, reason: "no ratio was measured")
    }
    if ratio.high <= atLeast {
      return SeriesVerdict(
        series: series, verdict: .fail, reason: "\(text) is not above \(String(format: "%.3f", atLeast))")
    }
    if ratio.low <= atLeast {
      return SeriesVerdict(
        series: series, verdict: .inconclusive,
        reason: "\(text) does not exclude \(String(format: "%.3f", atLeast))")
    }
    guard let baseline else {
      return SeriesVerdict(series: series, verdict: .pass, reason: "\(text); no baseline here")
    }
    let floor = baseline * (1 - tolerance)
    guard ratio.estimate >= floor else {
      return SeriesVerdict(
        series: series, verdict: .fail,
        reason: "\(text) is below \(String(format: "%.3f", floor)), the baseline less \(Int(tolerance * 100)) %")
    }
    return SeriesVerdict(
      series: series, verdict: .pass, reason: "\(text), baseline \(String(format: "%.3f", baseline))")
  }
}

/// A count that does not depend on the machine: messages, bytes, fsyncs, allocations, instructions for an operation.
public enum CountGate {
  /// - Parameters:
  ///   - baseline: the committed count; nil where there is none.
  ///   - measured: nil where the head did not report it.
  ///   - relative: what is let pass, as a share of the baseline. 0 for counts that are exact.
  ///   - absolute: an increase of no more than this passes as well; both limits must be exceeded to fail.
  public static func judge(
    series: String, baseline: Double?, measured: Double?, relative: Double = 0, absolute: Double = 0
  ) -> SeriesVerdict {
    guard let measured, measured.isFinite else {
      return SeriesVerdict(
        series: series, verdict: baseline == nil ? .noBaseline : .missing, reason: "not measured")
    }
    guard let baseline else {
      return SeriesVerdict(series: series, verdict: .noBaseline, reason: "\(number(measured)), nothing to compare with")
    }
    let change = measured - baseline
    let text = "\(number(measured)), baseline \(number(baseline))"
    // Counting nothing where there was something is a counter that broke.
    if measured == 0, baseline > 0 {
      return SeriesVerdict(series: series, verdict: .missing, reason: "\(text): nothing was counted")
    }
    if change > 0, change > relative * baseline, change > absolute {
      return SeriesVerdict(series: series, verdict: .fail, reason: text)
    }
    if change < 0, -change > relative * baseline, -change > absolute {
      return SeriesVerdict(series: series, verdict: .improved, reason: "\(text): accept it as the new baseline")
    }
    return SeriesVerdict(series: series, verdict: .pass, reason: text)
  }

  private static func number(_ value: Double) -> String {
    value == value.rounded() && abs(value) < 1e15 ? String(Int(value)) : String(format: "%.4g", value)
  }
}
