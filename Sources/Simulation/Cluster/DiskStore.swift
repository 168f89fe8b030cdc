import WeirCore

/// Why storage could not do as it was told.
struct StoreFailure: Error, Sendable {
  var text: String
  /// The disk was told to fail; otherwise the storage code is wrong.
  var isExpected: Bool
  /// The node must never start from this disk again.
  var isFinal = false
}

/// Where a node's bytes lie. Without one, the checks' own picture of what is durable is what a node restarts from.
protocol DiskStore: AnyObject {
  /// Writes; not durable yet.
  func write(_ write: StableWrite, entries: EntryBatch) throws(StoreFailure)

  /// Makes what was written durable.
  func synchronize() throws(StoreFailure)

  /// The power goes: of what was not synced, anything may be left.
  func crash(_ random: inout RandomStream, tears: Bool)

  /// The process ends; the machine and its cache go on.
  func kill()

  /// Flips a stored bit; says which.
  func damage(_ random: inout RandomStream) -> String

  /// Forgets everything.
  func wipe()

  /// From now on the plan's faults strike.
  func begin()

  /// From now on nothing goes wrong.
  func heal()

  /// What is there after the power came back, or that the disk is damaged.
  func recover() throws(StoreFailure) -> StableImage
}
