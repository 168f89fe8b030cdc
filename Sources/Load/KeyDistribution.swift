import Foundation

/// Which keys a workload touches, and how often.
public enum KeyDistribution: Sendable, Equatable, CustomStringConvertible {
  case uniform
  /// The k-th most popular key is asked for in proportion to 1/k^θ. Which key is the k-th is scrambled, the same way
  /// for all workers: with a scramble of its own for each, their sum would look uniform.
  case zipfian(theta: Double)
  /// Writes go round the keys in order; reads go back from the newest by a zipfian (0.99) distance.
  case latest
  /// A share of the keys gets a share of the operations.
  case hotspot(keyShare: Double, operationShare: Double)
  /// Each key in turn: what the preload uses.
  case sequential

  /// Most keys that a zipfian table is made for (16 bytes each).
  public static let mostZipfianKeys = 1 << 22

  /// Reads `uniform`, `zipfian:0.99`, `latest`, `hotspot` or `hotspot:0.2:0.8`; nil for anything else.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    switch (parts.first, parts.count) {
    case ("uniform", 1): self = .uniform
    case ("latest", 1): self = .latest
    case ("hotspot", 1): self = .hotspot(keyShare: 0.2, operationShare: 0.8)
    case ("zipfian", 1): self = .zipfian(theta: 0.99)
    case ("zipfian", 2):
      guard let theta = Double(parts[1]), theta >= 0, theta <= 5 else { return nil }
      self = .zipfian(theta: theta)
    case ("hotspot", 3):
      guard let keys = Double(parts[1]), let operations = Double(parts[2]), keys > 0, keys < 1, operations >= 0,
        operations <= 1
      else { return nil }
      self = .hotspot(keyShare: keys, operationShare: operations)
    default: return nil
    }
  }

  public var description: String {
    switch self {
    case .uniform: "uniform"
    case .zipfian(let theta): "zipfian:\(theta)"
    case .latest: "latest"
    case .hotspot(let keyShare, let operationShare): "hotspot:\(keyShare):\(operationShare)"
    case .sequential: "sequential"
    }
  }
}

/// Draws ranks 0 ..< n with probability in proportion to 1/(rank + 1)^θ, in constant time, by Walker's alias method
/// (as Vose builds it): one random place in a table, then either its own rank or the alias beside it.
public struct ZipfianTable: Sendable {
  @frozen
  @usableFromInline
  struct Place: Sendable {
    /// The place's own rank is taken where the low 32 random bits lie below this.
    @usableFromInline var threshold: UInt32
    @usableFromInline var own: UInt32
    @usableFromInline var alias: UInt32

    @usableFromInline
    init(threshold: UInt32, own: UInt32, alias: UInt32) {
      self.threshold = threshold
      self.own = own
      self.alias = alias
    }
  }

  @usableFromInline let places: [Place]
  /// Σ 1/k^θ over all ranks.
  public let zeta: Double

  /// - Parameter scrambleSeed: permutes which number stands for which rank; nil leaves rank 0 the most popular.
  public init(count: Int, theta: Double, scrambleSeed: UInt64? = nil) {
    let weights = (0..<count).map { pow(Double($0 + 1), -theta) }
    let zeta = weights.reduce(0, +)
    self.zeta = zeta
    let names = Self.names(count: count, seed: scrambleSeed)
    var scaled = weights.map { $0 * Double(count) / zeta }
    var places = (0..<count).map { Place(threshold: .max, own: names[$0], alias: names[$0]) }
    var small = scaled.indices.filter { scaled[$0] < 1 }
    var large = scaled.indices.filter { scaled[$0] >= 1 }
    while let less = small.last, let more = large.last {
      small.removeLast()
      places[less].threshold = UInt32(min(scaled[less] * 0x1p32, 0x1p32 - 1))
      places[less].alias = names[more]
      scaled[more] -= 1 - scaled[less]
      if scaled[more] < 1 {
        large.removeLast()
        small.append(more)
      }
    }
    self.places = places
  }

  private static func names(count: Int, seed: UInt64?) -> [UInt32] {
    var names = (0..<UInt32(count)).map(\.self)
    guard let seed, count > 1 else { return names }
    // Fisher–Yates.
    for index in stride(from: count - 1, to: 0, by: -1) {
      let other = Int(SeededBits.below(UInt64(index + 1), SeededBits.bits(seed: seed, index: UInt64(index))))
      names.swapAt(index, other)
    }
    return names
  }

  /// The number that `bits` draws. Inlinable: asked once for each operation.
  @inlinable
  public func draw(_ bits: UInt64) -> UInt64 {
    let place = places[Int(SeededBits.below(UInt64(places.count), bits))]
    // The place came from the high bits; the low ones are as good as independent of it.
    return UInt64(UInt32(truncatingIfNeeded: bits) < place.threshold ? place.own : place.alias)
  }
}
