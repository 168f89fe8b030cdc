import WeirCore

/// The state at one moment, read in chunks while the store goes on changing.
///
/// The chunks together are a sequence of records: key length and value length (4 bytes each, little-endian), key,
/// value. Where the highest bit of the value length is set, the key's deadline follows the value (8 bytes, milliseconds since
/// 1970, little-endian): a state without deadlines is written as it was before there were any, and a node that knows none
/// refuses a state with some by its lengths. Their order is that of the tables, which differs between replicas. In front
/// there may be one record without a key, which no command can make: its value says where the members are
/// (`MemberAddressRecord`).
public final class StateCapture {
  /// Set in a value's length if a deadline follows the value.
  static let deadlineFlag: UInt64 = 1 << 31

  private let store: KeyValueStore
  private let pressingBytes: Int
  private var shard = 0
  /// Where to look next for what is in memory for this capture alone.
  private var pressedShard = 0
  private var isEnded = false
  /// The record that says where the members are; empty without any.
  private var memberRecord: [UInt8] = []

  init(store: KeyValueStore, pressingBytes: Int) {
    self.store = store
    self.pressingBytes = pressingBytes
  }

  deinit { if !isEnded { store.endCapture() } }

  /// Puts a record in front that says where the members are, `host:port`. Before the first chunk is taken. It is made now,
  /// since another thread takes the chunks: a dictionary would stay shared with its owner until then.
  func setMembers(_ addresses: [NodeID: String]) {
    memberRecord.removeAll()
    if !addresses.isEmpty { MemberAddressRecord.append(addresses, to: &memberRecord) }
  }

  /// So much of what was overwritten is kept for this capture that whoever reads it should not rest.
  public var isPressed: Bool { store.preservedBytes > pressingBytes }

  /// The next bytes: whole records, about `targetBytes`, more only if one record is larger; nil at the end.
  /// - Throws: `StateCaptureError.outgrown`: begin another one, or read it faster.
  public func nextChunk(targetBytes: Int = 256 << 10) throws(StateCaptureError) -> [UInt8]? {
    guard !store.hasOutgrownCapture else { throw .outgrown }
    var chunk: [UInt8] = []
    chunk.reserveCapacity(targetBytes)
    chunk += memberRecord
    memberRecord.removeAll()
    takePreserved(&chunk, targetBytes)
    while shard < store.shardCount, chunk.count < targetBytes {
      if store.capture(shard: shard, into: &chunk, maximumBytes: targetBytes) { shard += 1 }
    }
    // It counts only if nothing was lost by the time that it had been put together.
    guard !store.hasOutgrownCapture else { throw .outgrown }
    if chunk.isEmpty {
      isEnded = true
      store.endCapture()
      return nil
    }
    return chunk
  }

  /// Takes what is kept for this capture before anything else while there is much of it; records come in any order.
  private func takePreserved(_ chunk: inout [UInt8], _ targetBytes: Int) {
    var left = store.shardCount
    while left > 0, chunk.count < targetBytes, isPressed {
      store.capturePreserved(shard: pressedShard, into: &chunk, maximumBytes: targetBytes)
      if chunk.count < targetBytes { pressedShard = (pressedShard + 1) % store.shardCount }
      left -= 1
    }
  }
}

/// Why a capture cannot be read to its end.
public enum StateCaptureError: Error, Sendable, Hashable {
  /// The state was overwritten faster than the capture was read, and more than may be kept for it is gone.
  case outgrown
}
