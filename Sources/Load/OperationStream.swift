/// What the operations of a run are.
public struct Workload: Sendable, Equatable {
  /// 0...100; the rest are writes.
  public var readPercent: Int
  public var keys: Int
  public var distribution: KeyDistribution
  public var valueBytes: Int

  public init(readPercent: Int, keys: Int, distribution: KeyDistribution = .uniform, valueBytes: Int = 128) {
    self.readPercent = readPercent
    self.keys = keys
    self.distribution = distribution
    self.valueBytes = valueBytes
  }

  /// Each key written once, in order.
  public static func preload(keys: Int, valueBytes: Int) -> Workload {
    Workload(readPercent: 0, keys: keys, distribution: .sequential, valueBytes: valueBytes)
  }
}

/// The operations of a run as a pure function of (seed, index). The i-th operation is the same whichever of however
/// many workers sends it: worker w of n takes w, w + n, w + 2n, …
public struct OperationStream: Sendable {
  /// Names the writes of this run; see `ValueID.client`.
  public let client: UInt32
  private let kindSeed: UInt64
  private let keySeed: UInt64
  /// Reads are drawn below this, of 2³².
  private let readThreshold: UInt64
  private let keys: UInt64
  private let valueBytes: UInt32
  private let selector: KeySelector
  /// Empty unless the selector needs it. Beside the selector and not within: taking it out of an enumeration's case
  /// would retain and release it once an operation.
  private let table: ZipfianTable
  private let hotKeys: UInt64
  /// Operations on hot keys are drawn below this, of 2³².
  private let hotThreshold: UInt64

  private enum KeySelector: UInt8 {
    case uniform, table, latest, hotspot, sequential
  }

  /// Building the table of a zipfian stream takes time and memory in proportion to the keys.
  public init(_ workload: Workload, seed: UInt64, client: UInt32) {
    self.client = client
    kindSeed = SeededBits.derive(seed, stream: 1)
    keySeed = SeededBits.derive(seed, stream: 2)
    readThreshold = UInt64(workload.readPercent) * (1 << 32) / 100
    keys = UInt64(workload.keys)
    valueBytes = UInt32(max(workload.valueBytes, ValueID.encodedBytes))
    var table = ZipfianTable(count: 0, theta: 1)
    var hotKeys: UInt64 = 0
    var hotThreshold: UInt64 = 0
    switch workload.distribution {
    case .uniform: selector = .uniform
    case .sequential: selector = .sequential
    case .zipfian(let theta):
      selector = .table
      // The scramble has a fixed seed: runs with different seeds are about the same hot keys.
      table = ZipfianTable(count: workload.keys, theta: theta, scrambleSeed: 0x7A69_7066)
    case .latest:
      selector = .latest
      table = ZipfianTable(count: workload.keys, theta: 0.99)
    case .hotspot(let keyShare, let operationShare):
      selector = .hotspot
      hotKeys = max(1, UInt64(Double(workload.keys) * keyShare))
      hotThreshold = UInt64(operationShare * 0x1p32)
    }
    self.table = table
    self.hotKeys = hotKeys
    self.hotThreshold = hotThreshold
  }

  /// The operation with this number.
  public func operation(at index: UInt64) -> Operation {
    let isRead = SeededBits.bits(seed: kindSeed, index: index) >> 32 < readThreshold
    return Operation(
      kind: isRead ? .get : .set, keyNumber: key(at: index, isRead: isRead),
      value: ValueID(client: client, sequence: index + 1), valueBytes: isRead ? 0 : valueBytes)
  }

  private func key(at index: UInt64, isRead: Bool) -> UInt64 {
    switch selector {
    case .sequential: return index % keys
    case .uniform: return SeededBits.below(keys, SeededBits.bits(seed: keySeed, index: index))
    case .table: return table.draw(SeededBits.bits(seed: keySeed, index: index))
    case .latest:
      guard isRead else { return index % keys }
      let distance = table.draw(SeededBits.bits(seed: keySeed, index: index))
      return (index % keys + keys - distance) % keys
    case .hotspot:
      let bits = SeededBits.bits(seed: keySeed, index: index)
      let place = SeededBits.mix(bits)
      guard bits >> 32 < hotThreshold || hotKeys >= keys else {
        return hotKeys + SeededBits.below(keys - hotKeys, place)
      }
      return SeededBits.below(hotKeys, place)
    }
  }
}
