import WeirCore

/// Why bytes are not a captured state.
public enum StateRestoreError: Error, Sendable, Hashable {
  /// A record has lengths that no key or value can have.
  case invalidLength(keyBytes: UInt32, valueBytes: UInt32)
  /// The bytes end within a record.
  case truncated
  /// What should say where the members are does not.
  case malformedMembers
}

/// Puts a captured state (`StateCapture` has its layout) into an empty store, from chunks of any size.
///
/// As it is read: who must not see a part of a state is kept away meanwhile, by `KeyValueStore.beginLoading` or because the
/// store is nobody else's yet.
public final class StateRestore {
  private let store: KeyValueStore
  private var records = StateRecords()

  public init(into store: KeyValueStore) { self.store = store }

  /// Where the state says that its members are.
  public var memberAddresses: [NodeID: String] { records.memberAddresses }

  /// Takes the next bytes.
  public func append(_ chunk: [UInt8]) throws(StateRestoreError) {
    try records.read(chunk) { key, value, deadline in _ = store.set(key, to: value, deadline: deadline) }
  }

  /// That was all.
  public func finish() throws(StateRestoreError) { try records.finish() }
}

/// Builds a state beside the one in use, from chunks of any size, and puts it in place at the end.
///
/// For nodes without a disk: where nothing but memory holds a state, the old one cannot be let go of before the new one is
/// whole, or a leader that dies in the middle would leave a member with neither. So such a node needs twice its state while
/// it is sent one; the bound on a node's memory is for those that have files (`SnapshotArrivalFile`).
public final class StateReplacement {
  private let store: KeyValueStore
  private let incoming: KeyValueStore
  private let restore: StateRestore

  public init(of store: KeyValueStore) {
    self.store = store
    incoming = store.makeEmptyTwin()
    restore = StateRestore(into: incoming)
  }

  /// Where the state says that its members are.
  public var memberAddresses: [NodeID: String] { restore.memberAddresses }

  /// Takes the next bytes.
  public func append(_ chunk: [UInt8]) throws(StateRestoreError) { try restore.append(chunk) }

  /// That was all: the new state is whole, unless this throws.
  public func finish() throws(StateRestoreError) { try restore.finish() }

  /// Puts the new state, which is whole, in place of the old one.
  public func commit() { store.adopt(incoming) }
}

/// Reads the records of a captured state from chunks of any size.
struct StateRecords {
  /// The beginning of a record whose end has not come.
  private var pending: [UInt8] = []
  /// Where the state says that its members are.
  private(set) var memberAddresses: [NodeID: String] = [:]

  /// Calls `body` with the key, the value and the deadline (0: none) of each record that is whole.
  mutating func read(
    _ chunk: [UInt8], _ body: (_ key: RawSpan, _ value: RawSpan, _ deadline: UInt64) -> Void
  ) throws(StateRestoreError) {
    let buffer = pending + chunk
    let bytes = unsafe buffer.span.bytes
    var offset = 0
    while true {
      guard offset + 8 <= bytes.byteCount else { break }
      // Safe: eight bytes are there.
      let keyBytes = unsafe UInt32(littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
      let valueBytes = unsafe UInt32(
        littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: offset + 4, as: UInt32.self))
      let deadlineFlag = UInt32(StateCapture.deadlineFlag)
      let hasDeadline = valueBytes & deadlineFlag != 0
      let plainBytes = valueBytes & ~deadlineFlag
      guard keyBytes <= Command.maximumKeyBytes, plainBytes <= Command.maximumValueBytes,
        keyBytes > 0 || !hasDeadline
      else { throw .invalidLength(keyBytes: keyBytes, valueBytes: valueBytes) }
      let keyStart = offset + 8
      let valueStart = keyStart + Int(keyBytes)
      let valueEnd = valueStart + Int(plainBytes)
      let end = valueEnd + (hasDeadline ? 8 : 0)
      guard end <= bytes.byteCount else { break }
      offset = end
      guard keyBytes > 0 else {
        memberAddresses = try MemberAddressRecord.decode(buffer[valueStart..<valueEnd])
        continue
      }
      // Safe: `end` lies eight bytes behind `valueEnd` where there is a deadline.
      let deadline =
        hasDeadline
        ? unsafe UInt64(littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: valueEnd, as: UInt64.self)) : 0
      body(bytes.extracting(keyStart..<valueStart), bytes.extracting(valueStart..<valueEnd), deadline)
    }
    pending = Array(buffer[offset...])
  }

  /// That was all.
  func finish() throws(StateRestoreError) {
    guard pending.isEmpty else { throw .truncated }
  }
}
