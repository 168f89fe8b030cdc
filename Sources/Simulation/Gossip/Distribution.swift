#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Foundation
#endif

/// Values observed in the trials of an experiment.
public struct Distribution: Sendable {
  public private(set) var values: [Double] = []

  public init() {}

  public var count: Int { values.count }

  public mutating func add(_ value: Double) { values.append(value) }

  /// 0 without values.
  public var mean: Double { values.isEmpty ? 0 : values.reduce(0, +) / Double(values.count) }

  public var maximum: Double { values.max() ?? 0 }

  /// The smallest value that `percent` of all do not exceed; 0 without values.
  public func percentile(_ percent: Double) -> Double {
    guard !values.isEmpty else { return 0 }
    let rank = Int((percent / 100 * Double(values.count)).rounded(.up))
    return values.sorted()[min(max(rank, 1), values.count) - 1]
  }
}

enum NaturalLogarithm {
  static func of(_ value: Double) -> Double { log(value) }
}
