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

/// Steele, Lea and Flood's SplitMix64 (OOPSLA 2014): small, and the same everywhere.
struct SplitMix64: RandomNumberGenerator, Sendable {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }

  /// A number from 0 up to, not including, `limit`.
  mutating func below(_ limit: Int) -> Int {
    precondition(limit > 0, "an empty range")
    return Int(next() % UInt64(limit))
  }
}
