import Linearizability

/// Which operations of a run are kept for the linearizability check: all those on a seeded subset of the keys.
///
/// Linearizability is a property of each key, so a subset of keys is checked as strictly as the whole; a subset of
/// the operations on a key would prove nothing. The subsets are nested: lowering the threshold only drops keys.
public struct HistorySelection: Sendable, Equatable {
  public var seed: UInt64
  /// Keys whose hash lies below are kept, of 2⁶⁴; `.max` keeps all.
  public var threshold: UInt64

  public init(seed: UInt64, threshold: UInt64 = .max) {
    self.seed = seed
    self.threshold = threshold
  }

  /// The share of the keys that is kept, 0...1.
  public var share: Double { threshold == .max ? 1 : Double(threshold) * 0x1p-64 }

  @inlinable
  public func keeps(_ keyNumber: UInt64) -> Bool {
    threshold == .max || SeededBits.bits(seed: seed, index: keyNumber) < threshold
  }
}

/// One worker's part of the history: an array of fixed capacity. When it is full, half of the keys are given up.
struct HistoryRecorder: Sendable {
  private(set) var selection: HistorySelection
  private(set) var operations: [HistoryOperation] = []
  private let capacity: Int

  init(selection: HistorySelection, capacity: Int) {
    self.selection = selection
    self.capacity = max(capacity, 16)
    operations.reserveCapacity(self.capacity)
  }

  /// - Parameter operation: one whose key the selection keeps.
  mutating func append(_ operation: HistoryOperation) {
    if operations.count == capacity {
      shrink()
      guard selection.keeps(operation.key) else { return }
    }
    operations.append(operation)
  }

  private mutating func shrink() {
    while operations.count > capacity / 2, selection.threshold > 0 {
      selection.threshold /= 2
      let selection = selection
      operations.removeAll { !selection.keeps($0.key) }
    }
  }
}

extension ValueID {
  /// The name as the one number that a history keeps: 16 bits of run, 48 bits of sequence. Not 0, since neither is.
  @inlinable
  var historyValue: UInt64 { UInt64(client) << 48 | (sequence & 0xFFFF_FFFF_FFFF) }

  /// Most runs of a process whose values can be told apart in a history.
  static let mostClients: UInt32 = 0xFFFF
}
