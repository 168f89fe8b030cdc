/// The generator from which every random choice of a membership is drawn (SplitMix64, Steele et al. 2014).
///
/// It is a value with a seed, so a whole simulated cluster replays from one number; the agent seeds it from the
/// system's generator.
public struct GossipRandom: RandomNumberGenerator, Sendable {
  private var state: UInt64

  /// The same seed gives the same sequence in every process.
  public init(seed: UInt64) {
    state = seed
  }

  /// The next 64 bits.
  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// A value in `0..<bound`; 0 when the bound is 0.
  ///
  /// By the high half of a product: a modulo-free draw with a bias below `bound / 2^64`.
  mutating func below(_ bound: Int) -> Int {
    guard bound > 0 else { return 0 }
    return Int(next().multipliedFullWidth(by: UInt64(bound)).high)
  }

  /// A value in `0..<bound`; 0 when the bound is 0.
  mutating func below(_ bound: UInt64) -> UInt64 {
    next().multipliedFullWidth(by: bound).high
  }
}
