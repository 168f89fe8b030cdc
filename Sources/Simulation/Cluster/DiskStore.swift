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

  /// From now on there is no room for new bytes, or there is.
  func setFull(_ isFull: Bool)

  /// Changes stored bytes as disks do, while the process is down; says which.
  func damage(_ random: inout RandomStream) -> String

  /// Lets a write of the process land at another place of its file, or does nothing; says whether it did.
  func misdirectWrite(_ random: inout RandomStream) -> Bool

  /// Forgets everything.
  func wipe()

  /// From now on the plan's faults strike.
  func begin()

  /// From now on nothing goes wrong.
  func heal()

  /// What is there after the power came back, or that the disk is damaged.
  func recover() throws(StoreFailure) -> StableImage
}
