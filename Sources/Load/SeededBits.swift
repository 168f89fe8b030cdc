/// Random bits as a pure function of a seed and an index: no state, so that a stream can start anywhere, be split over
/// workers and be replayed.
public enum SeededBits {
  /// 64 well-mixed bits for `index` under `seed` (the finalizer of SplitMix64 over a Weyl sequence).
  @inlinable
  public static func bits(seed: UInt64, index: UInt64) -> UInt64 {
    mix(seed &+ (index &+ 1) &* 0x9E37_79B9_7F4A_7C15)
  }

  /// A bijection of 64 bits in which each input bit moves each output bit.
  @inlinable
  public static func mix(_ value: UInt64) -> UInt64 {
    var z = value
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// A seed for one of several streams under the same seed.
  public static func derive(_ seed: UInt64, stream: UInt64) -> UInt64 {
    mix(seed ^ mix(stream &+ 0x5851_F42D_4C95_7F2D))
  }

  /// `bits` as a number in (0, 1]: never 0, so that its logarithm exists.
  @inlinable
  public static func unitInterval(_ bits: UInt64) -> Double {
    (Double(bits >> 11) + 1) * 0x1p-53
  }

  /// `bits` as a whole number below `bound`, without division; the bias is below `bound` / 2⁶⁴.
  @inlinable
  public static func below(_ bound: UInt64, _ bits: UInt64) -> UInt64 {
    bits.multipliedFullWidth(by: bound).high
  }
}
