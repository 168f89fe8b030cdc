import WeirCore

/// What a stream of random numbers is used for. Each purpose has a stream of its own, so that taking away one fault, or
/// one client, does not change what all the others draw.
public enum RandomPurpose: UInt64, Sendable, CaseIterable {
  case configuration = 1
  case faults = 2
  case network = 3
  case disk = 4
  case workload = 5
  case timeouts = 6
  case crashes = 7
}

/// A seeded generator with the draws that plans are made of.
public struct RandomStream: RandomNumberGenerator, Sendable {
  private var generator: SplitMix64

  /// The stream that starts from `seed`.
  public init(seed: UInt64) { generator = SplitMix64(seed: seed) }

  /// The stream of one purpose and one instance (a client, a node) of a simulation's seed.
  public init(seed: UInt64, purpose: RandomPurpose, instance: UInt64 = 0) {
    var root = RandomStream(seed: seed &+ purpose.rawValue &* 0x9E37_79B9_7F4A_7C15)
    let first = root.next()
    var branch = RandomStream(seed: first ^ (instance &* 0xD1B5_4A32_D192_ED03))
    generator = SplitMix64(seed: branch.next())
  }

  public mutating func next() -> UInt64 { generator.next() }

  /// A number in `0 ..< bound`; 0 if the bound is not above 1. (Multiply-high: for small bounds without a bias that counts.)
  public mutating func below(_ bound: Int) -> Int {
    guard bound > 1 else { return 0 }
    return Int(truncatingIfNeeded: next().multipliedFullWidth(by: UInt64(bound)).high)
  }

  /// A number in `lower ... upper`.
  public mutating func between(_ lower: Int, _ upper: Int) -> Int {
    upper > lower ? lower + below(upper - lower + 1) : lower
  }

  /// True with a probability of `perMillion` in a million. Nothing is drawn for 0.
  public mutating func chance(perMillion: Int) -> Bool {
    perMillion > 0 && below(1_000_000) < perMillion
  }

  /// True every other time.
  public mutating func coin() -> Bool { next() >> 63 == 1 }

  /// One of the elements, of which there is at least one.
  public mutating func pick<Element>(_ elements: [Element]) -> Element { elements[below(elements.count)] }

  /// `count` different numbers of `0 ..< bound`, ascending.
  public mutating func subset(of bound: Int, count: Int) -> [Int] {
    var rest = Array(0..<max(bound, 0))
    var chosen: [Int] = []
    for _ in 0..<max(0, min(count, bound)) { chosen.append(rest.remove(at: below(rest.count))) }
    return chosen.sorted()
  }
}
