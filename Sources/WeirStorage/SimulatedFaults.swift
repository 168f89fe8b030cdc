import WeirCore

/// What goes wrong on a simulated disk, and how often, in strikes per million operations of the kind.
public struct SimulatedFaults: Sendable, Hashable {
  /// EIO from any operation.
  public var errorsPerMillion = 0
  /// EIO from a write, of which a part was done.
  public var tornWritesPerMillion = 0
  /// EIO from a sync: what was to become durable looks written until the power fails, and never is.
  public var failedSyncsPerMillion = 0
  /// A sync that says it worked and did nothing. No log survives this on a quorum; it must be seen to fail.
  public var lostSyncsPerMillion = 0
  /// A write that lands elsewhere in the same file.
  public var misdirectedWritesPerMillion = 0
  /// How much all files may have, in bytes; nil is no limit.
  public var capacityBytes: Int?
  /// Writes that were not durable survive a crash in any order.
  public var reordersAtCrash = true
  /// The error number that the operation of this number (from 0) gets.
  public var failures: [Int: Int32] = [:]

  public init() {}

  func strikes(_ perMillion: Int, _ generator: inout SplitMix64) -> Bool {
    perMillion > 0 && generator.below(1_000_000) < perMillion
  }

  func code(
    for operation: FileError.Operation, number: Int, _ generator: inout SplitMix64
  ) -> Int32? {
    if let code = failures[number] { return code }
    return strikes(errorsPerMillion, &generator) ? SimulatedFileSystem.inputOutputError : nil
  }

  /// How many bytes of a write are done before it fails, if it does.
  func tornWrite(_ generator: inout SplitMix64, byteCount: Int) -> Int? {
    guard strikes(tornWritesPerMillion, &generator) else { return nil }
    return generator.below(byteCount + 1)
  }
}

extension SplitMix64 {
  /// A number from 0 up to, not including, `limit`.
  mutating func below(_ limit: Int) -> Int {
    precondition(limit > 0, "an empty range")
    return Int(next() % UInt64(limit))
  }
}
