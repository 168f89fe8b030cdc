import WeirCore

/// The generator from which every random choice of a membership is drawn (`SplitMix64`).
///
/// It is a value with a seed, so a whole simulated cluster replays from one number; the agent seeds it from the
/// system's generator.
public struct GossipRandom: RandomNumberGenerator, Sendable {
  private var generator: SplitMix64

  /// The same seed gives the same sequence in every process.
  public init(seed: UInt64) {
    generator = SplitMix64(seed: seed)
  }

  /// The next 64 bits.
  public mutating func next() -> UInt64 {
    generator.next()
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
