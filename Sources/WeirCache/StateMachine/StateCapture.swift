import WeirCore

/// The state at one moment, read in chunks while the store goes on changing.
///
/// The chunks together are a sequence of records: key length and value length (4 bytes each, little-endian), key,
/// value. Where the highest bit of the value length is set, the key's deadline follows the value (8 bytes, milliseconds since
/// 1970, little-endian): a state without deadlines is written as it was before there were any, and a node that knows none
/// refuses a state with some by its lengths. Their order is that of the tables, which differs between replicas. In front there may be one record without a
/// key, which no command can make: its value says where the members are (`MemberAddressRecord`).
public final class StateCapture {
  private let store: KeyValueStore
  private var shard = 0
  private var isEnded = false
  /// The record that says where the members are; empty without any.
  private var memberRecord: [UInt8] = []

  init(store: KeyValueStore) { self.store = store }

  deinit { if !isEnded { store.endCapture() } }

  /// Puts a record in front that says where the members are, `host:port`. Before the first chunk is taken. It is made now,
  /// since another thread takes the chunks: a dictionary would stay shared with its owner until then.
  func setMembers(_ addresses: [NodeID: String]) {
    memberRecord.removeAll()
    if !addresses.isEmpty { MemberAddressRecord.append(addresses, to: &memberRecord) }
  }

  /// The next bytes: whole records, about `targetBytes`, more only if one record is larger; nil at the end.
  public func nextChunk(targetBytes: Int = 256 << 10) -> [UInt8]? {
    var chunk: [UInt8] = []
    chunk.reserveCapacity(targetBytes)
    chunk += memberRecord
    memberRecord.removeAll()
    while shard < store.shardCount, chunk.count < targetBytes {
      if store.capture(shard: shard, into: &chunk, maximumBytes: targetBytes) { shard += 1 }
    }
    if chunk.isEmpty {
      isEnded = true
      store.endCapture()
      return nil
    }
    return chunk
  }
}

/// Why bytes are not a captured state.
public enum StateRestoreError: Error, Sendable, Hashable {
  /// A record has lengths that no key or value can have.
  case invalidLength(keyBytes: UInt32, valueBytes: UInt32)
  /// The bytes end within a record.
  case truncated
  /// What should say where the members are does not.
  case malformedMembers
}

/// Builds a state beside the one in use, from chunks of any size, and puts it in place at the end.
public final class StateRestore {
  private let store: KeyValueStore
  private let incoming: KeyValueStore
  private var pending: [UInt8] = []
  private static let deadlineFlag: UInt32 = 1 << 31
  /// Where the state says that its members are.
  private(set) var memberAddresses: [NodeID: String] = [:]

  public init(into store: KeyValueStore) {
    self.store = store
    incoming = store.makeEmptyTwin()
  }

  /// Takes the next bytes.
  public func append(_ chunk: [UInt8]) throws(StateRestoreError) {
    let buffer = pending + chunk
    let bytes = unsafe buffer.span.bytes
    var offset = 0
    while true {
      guard offset + 8 <= bytes.byteCount else { break }
      // Safe: eight bytes are there.
      let keyBytes = unsafe UInt32(littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
      let valueBytes = unsafe UInt32(
        littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: offset + 4, as: UInt32.self))
      let hasDeadline = valueBytes & Self.deadlineFlag != 0
      let plainBytes = valueBytes & ~Self.deadlineFlag
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
      _ = incoming.set(
        bytes.extracting(keyStart..<valueStart), to: bytes.extracting(valueStart..<valueEnd), deadline: deadline)
    }
    pending = Array(buffer[offset...])
  }

  /// Puts the new state in place of the old one. Nothing is changed if it throws.
  public func commit() throws(StateRestoreError) {
    guard pending.isEmpty else { throw .truncated }
    store.adopt(incoming)
  }
}
