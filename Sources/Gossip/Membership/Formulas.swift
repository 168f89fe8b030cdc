import WeirCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Foundation
#endif

/// The arithmetic of SWIM and Lifeguard as memberlist does it, so that nodes of either kind in one cluster keep
/// the same time.
///
/// All durations are nanoseconds. Sums and products saturate: a configuration may hold any value, and an
/// hour-long interval times a large multiplier must become "never", not a trap.
public enum Formulas {
  /// One millisecond in nanoseconds.
  static let millisecond: UInt64 = 1_000_000

  /// How often each broadcast is transmitted: `multiplier × ceil(log10(nodeCount + 1))`.
  ///
  /// - Parameters:
  ///   - multiplier: memberlist's `RetransmitMult`.
  ///   - nodeCount: known members, the local one among them.
  /// - Returns: the number of transmissions, 0 for an empty cluster, at most 255.
  public static func retransmitLimit(multiplier: Int, nodeCount: Int) -> Int {
    BroadcastQueue.retransmitLimit(multiplier: multiplier, nodeCount: nodeCount)
  }

  /// How often each member sends a user broadcast that everybody passes on: `ceil(ln nodeCount) + 7`.
  ///
  /// When n members have each sent it to L random others, a given one was missed by all with probability about `e^-L`, and
  /// some member by `n × e^-L`: at `L = ln n + 7` one broadcast in a thousand. memberlist's count grows in steps and is low
  /// at their ends: 8 for 99 members, where every thirtieth broadcast misses somebody, 4 for 9, where it is every tenth.
  public static func userBroadcastTransmissions(nodeCount: Int) -> Int {
    guard nodeCount > 1 else { return 1 }
    return min(255, Int(log(Double(nodeCount)).rounded(.up)) + 7)
  }

  /// The shortest time a suspicion lasts before it becomes a death:
  /// `multiplier × max(1, log10(nodeCount)) × probeInterval`, the middle factor cut to three decimals.
  ///
  /// - Parameters:
  ///   - multiplier: memberlist's `SuspicionMult`.
  ///   - nodeCount: known members, dead ones that are not yet reaped included.
  ///   - probeIntervalNanoseconds: the unscaled probe interval.
  public static func suspicionTimeoutNanoseconds(
    multiplier: Int, nodeCount: Int, probeIntervalNanoseconds: UInt64
  ) -> UInt64 {
    let scale = max(1.0, log10(max(1.0, Double(nodeCount))))
    let thousandths = UInt64(scale * 1000)
    let product = saturatingProduct(
      saturatingProduct(UInt64(max(0, multiplier)), thousandths), probeIntervalNanoseconds)
    return product / 1000
  }

  /// How long a suspicion lasts in all, given what has been confirmed so far (Lifeguard, "LHA-Suspicion").
  ///
  /// - Parameters:
  ///   - confirmations: independent members that confirmed the suspicion, the first accuser not counted.
  ///   - expectedConfirmations: how many are waited for; 0 means the minimum holds at once.
  ///   - minimumNanoseconds: the time after all the expected confirmations.
  ///   - maximumNanoseconds: the time with none.
  /// - Returns: nanoseconds since the suspicion began, rounded down to a millisecond, never below the minimum.
  public static func suspicionDurationNanoseconds(
    confirmations: Int, expectedConfirmations: Int, minimumNanoseconds: UInt64, maximumNanoseconds: UInt64
  ) -> UInt64 {
    guard expectedConfirmations >= 1 else { return minimumNanoseconds }
    // Nothing has shortened it yet, so the maximum holds as configured, not rounded to a millisecond.
    guard confirmations >= 1 else { return maximumNanoseconds }
    let fraction = log(Double(confirmations) + 1) / log(Double(expectedConfirmations) + 1)
    let maximum = Double(maximumNanoseconds) / 1e9
    let minimum = Double(minimumNanoseconds) / 1e9
    let raw = (maximum - fraction * (maximum - minimum)) * 1000
    guard raw > 0 else { return minimumNanoseconds }
    let floored = saturatingProduct(UInt64(min(raw, 1e13)), millisecond)
    return max(minimumNanoseconds, floored)
  }

  /// The time between two full state exchanges: constant up to 32 members, then one more interval for each
  /// doubling, so that a large cluster does not spend its network on them.
  public static func pushPullIntervalNanoseconds(baseNanoseconds: UInt64, nodeCount: Int) -> UInt64 {
    guard nodeCount > 32 else { return baseNanoseconds }
    // ceil(log2 n) for n > 1 is the bit width of n - 1.
    let ceilLog2 = Int.bitWidth - (nodeCount - 1).leadingZeroBitCount
    return saturatingProduct(UInt64(ceilLog2 - 5 + 1), baseNanoseconds)
  }

  static func saturatingProduct(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let (product, overflow) = a.multipliedReportingOverflow(by: b)
    return overflow ? .max : product
  }

  static func saturatingSum(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let (sum, overflow) = a.addingReportingOverflow(b)
    return overflow ? .max : sum
  }
}
