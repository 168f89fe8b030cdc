// Cost: 2 instructions for a minimum or a maximum, nothing in memory, no branch. Of 3 numbers 4 of them, of 5 10, of 7 20,
// of 9 34. Expected: 1 ns to 6. Measured (`bench hot-paths --parts`, 2-core EPYC 9005): of 3 numbers 2.8 ns,
// where each waits for the one in front of it, of 9 4.9.

/// The middle one of 3, 5, 7 or 9 numbers by minima and maxima.
///
/// The rule: of half of the numbers and two more, neither the least nor the greatest can be the middle one of all, since
/// too many lie on its one side. Both are dropped, the next number joins, until three are left.
@usableFromInline
enum Median {
  @inlinable
  @inline(__always)
  static func of(_ a: UInt64, _ b: UInt64, _ c: UInt64) -> UInt64 {
    max(min(a, b), min(max(a, b), c))
  }

  @inlinable
  @inline(__always)
  static func of(_ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64, _ e: UInt64) -> UInt64 {
    let kept = withoutExtremes(a, b, c, d)
    return of(kept.0, kept.1, e)
  }

  @inlinable
  @inline(__always)
  static func of(
    _ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64, _ e: UInt64, _ f: UInt64, _ g: UInt64
  ) -> UInt64 {
    let kept = withoutExtremes(a, b, c, d, e)
    return of(kept.0, kept.1, kept.2, f, g)
  }

  @inlinable
  @inline(__always)
  static func of(
    _ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64, _ e: UInt64, _ f: UInt64, _ g: UInt64, _ h: UInt64,
    _ i: UInt64
  ) -> UInt64 {
    let kept = withoutExtremes(a, b, c, d, e, f)
    return of(kept.0, kept.1, kept.2, kept.3, g, h, i)
  }

  /// Four without their least and their greatest: of two ordered pairs, the greater of the low ones and the lesser of the
  /// high ones.
  @inlinable
  @inline(__always)
  static func withoutExtremes(_ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64) -> (UInt64, UInt64) {
    (max(min(a, b), min(c, d)), min(max(a, b), max(c, d)))
  }

  /// Five: the extremes of four meet the fifth.
  @inlinable
  @inline(__always)
  static func withoutExtremes(
    _ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64, _ e: UInt64
  ) -> (UInt64, UInt64, UInt64) {
    let kept = withoutExtremes(a, b, c, d)
    let least = min(min(a, b), min(c, d))
    let greatest = max(max(a, b), max(c, d))
    return (kept.0, kept.1, min(max(least, e), greatest))
  }

  /// Six: of three ordered pairs, the low ones without the least of them and the high ones without the greatest.
  @inlinable
  @inline(__always)
  static func withoutExtremes(
    _ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64, _ e: UInt64, _ f: UInt64
  ) -> (UInt64, UInt64, UInt64, UInt64) {
    let low = (min(a, b), min(c, d), min(e, f))
    let high = (max(a, b), max(c, d), max(e, f))
    return (
      max(low.0, low.1), max(min(low.0, low.1), low.2),
      min(high.0, high.1), min(max(high.0, high.1), high.2)
    )
  }
}
