import Synchronization
import WeirCore

/// The replicated state: a map from keys to values, both bytes.
///
/// One thread writes, the one that applies committed entries; any thread reads. Keys are spread over shards, each with
/// a lock of its own that is held for one probe and one copy, so readers meet the writer only on the same shard.
public final class KeyValueStore: Sendable {
  private final class Shard: Sendable {
    let table: Mutex<RecordTable>
    /// Where the table's slots lie, for the writer to look ahead without the lock.
    let slotsAddress = Atomic<UInt>(0)
    let slotCount = Atomic<Int>(1)

    init() {
      table = Mutex(RecordTable())
      note(table.withLock { $0.slotsLocation })
    }

    func note(_ location: (address: UInt, count: Int)) {
      slotsAddress.store(location.address, ordering: .relaxed)
      slotCount.store(location.count, ordering: .relaxed)
    }
  }

  private let shards: [Shard]
  private let shardShift: UInt64
  private let hashSeed: UInt64
  private let captureCount = Atomic<UInt32>(0)

  /// - Parameters:
  ///   - shardCount: a power of two.
  ///   - hashSeed: a secret number, so that clients cannot choose keys that collide.
  public init(shardCount: Int = 256, hashSeed: UInt64) {
    precondition(shardCount > 0 && shardCount & (shardCount - 1) == 0, "the shard count is a power of two")
    shards = (0..<shardCount).map { _ in Shard() }
    shardShift = UInt64(64 - shardCount.trailingZeroBitCount)
    self.hashSeed = hashSeed
  }

  // MARK: Reading, on any thread

  /// The value of `key`, or nil.
  public func get(_ key: [UInt8]) -> [UInt8]? {
    unsafe read(key.span.bytes) { value in
      guard let value else { return nil }
      return unsafe value.withUnsafeBytes { unsafe [UInt8]($0) }
    }
  }

  /// Calls `body` with the value of `key`, or nil, while its shard is locked: copy what is needed and return.
  public func read<Result>(_ key: RawSpan, _ body: (RawSpan?) -> Result) -> Result {
    let hash = ByteHash.hash(key, seed: hashSeed)
    var result: Result?
    shard(of: hash).table.withLock { table in
      result = table.read(key: key, hash: hash, body)
    }
    guard let result else { preconditionFailure("the lock runs its closure") }
    return result
  }

  /// Number of keys.
  public var count: Int { sum { $0.count } }

  /// Size of all keys and values, in bytes.
  public var liveBytes: Int { sum { $0.liveBytes } }

  /// Memory held for them, in bytes.
  public var memoryBytes: Int { sum { $0.memoryBytes } }

  /// Equal on replicas that hold the same keys and values. Meaningful while nothing is being applied.
  public var stateHash: UInt64 {
    var total: UInt64 = 0
    for shard in shards { shard.table.withLock { total &+= $0.contentHash } }
    return total
  }

  private func sum(_ quantity: (borrowing RecordTable) -> Int) -> Int {
    var total = 0
    for shard in shards { shard.table.withLock { total += quantity($0) } }
    return total
  }

  // MARK: Writing, on the applying thread

  /// Applies the payload of one committed entry. A payload that is no command changes nothing, on all replicas alike.
  @discardableResult
  public func apply(_ payload: RawSpan) -> CommandResult {
    let layout: Command.Layout
    do { layout = try Command.decode(payload) } catch { return .refused(error) }
    let key = payload.extracting(layout.key)
    switch layout.operation {
    case .set: return .set(existed: set(key, to: payload.extracting(layout.value)))
    case .delete: return .deleted(existed: remove(key))
    }
  }

  func set(_ key: RawSpan, to value: RawSpan) -> Bool {
    set(key, to: value, hash: ByteHash.hash(key, seed: hashSeed))
  }

  private func set(_ key: RawSpan, to value: RawSpan, hash: UInt64) -> Bool {
    var existed = false
    let shard = shard(of: hash)
    shard.table.withLock { table in
      existed = table.set(key: key, value: value, hash: hash)
      if !existed { shard.note(table.slotsLocation) }
    }
    return existed
  }

  // MARK: Looking ahead, on the applying thread

  /// Begins to fetch what applying `payload` will look at first. Applying a batch in three passes (this for all,
  /// `prefetchRecord` for all, `apply` for all) overlaps the cache misses of its commands, which are most of its cost:
  /// two for each command, one behind the other.
  /// - Returns: the hash of the command's key, for the other passes; nil if the payload is no command.
  func prefetchSlot(_ payload: RawSpan) -> UInt64? {
    guard let layout = try? Command.decode(payload) else { return nil }
    let hash = ByteHash.hash(payload.extracting(layout.key), seed: hashSeed)
    let shard = shard(of: hash)
    RecordTable.prefetchSlot(
      hash, address: shard.slotsAddress.load(ordering: .relaxed), count: shard.slotCount.load(ordering: .relaxed))
    return hash
  }

  func prefetchRecord(hash: UInt64) {
    let shard = shard(of: hash)
    unsafe RecordTable.prefetchRecord(
      hash, address: shard.slotsAddress.load(ordering: .relaxed), count: shard.slotCount.load(ordering: .relaxed))
  }

  /// As `apply(_:)`, with the hash of the command's key.
  func apply(_ payload: RawSpan, hash: UInt64) -> CommandResult {
    let layout: Command.Layout
    do { layout = try Command.decode(payload) } catch { return .refused(error) }
    let key = payload.extracting(layout.key)
    switch layout.operation {
    case .set: return .set(existed: set(key, to: payload.extracting(layout.value), hash: hash))
    case .delete: return .deleted(existed: remove(key))
    }
  }

  func remove(_ key: RawSpan) -> Bool {
    let hash = ByteHash.hash(key, seed: hashSeed)
    var existed = false
    shard(of: hash).table.withLock { existed = $0.remove(key: key, hash: hash) }
    return existed
  }

  private func shard(of hash: UInt64) -> Shard {
    shards.count == 1 ? shards[0] : shards[Int(truncatingIfNeeded: hash >> shardShift)]
  }

  // MARK: Snapshots

  /// Begins a capture of the state as it is now, which goes on to be read in chunks on any thread while commands are
  /// applied. Called by the applying thread between two entries. One capture runs at a time.
  public func beginCapture() -> StateCapture {
    let epoch = captureCount.wrappingAdd(1, ordering: .relaxed).newValue
    for shard in shards { shard.table.withLock { $0.beginCapture(epoch: epoch) } }
    return StateCapture(store: self)
  }

  func capture(shard position: Int, into output: inout [UInt8], maximumBytes: Int) -> Bool {
    var done = false
    shards[position].table.withLock { done = $0.capture(into: &output, maximumBytes: maximumBytes) }
    return done
  }

  func endCapture() { for shard in shards { shard.table.withLock { $0.endCapture() } } }

  var shardCount: Int { shards.count }

  /// Exchanges the whole state for that of `other`, which has the same seed and shards and is good for nothing but being
  /// dropped afterwards: that frees every record of the old state, so it is done where nobody waits.
  func adopt(_ other: KeyValueStore) {
    precondition(other.shards.count == shards.count && other.hashSeed == hashSeed, "stores of one shape")
    for position in shards.indices {
      var incoming = RecordTable()
      other.shards[position].table.withLock { swap(&$0, &incoming) }
      shards[position].table.withLock { table in
        swap(&table, &incoming)
        shards[position].note(table.slotsLocation)
      }
      other.shards[position].table.withLock { swap(&$0, &incoming) }
    }
  }

  /// An empty store of the same shape.
  func makeEmptyTwin() -> KeyValueStore { KeyValueStore(shardCount: shards.count, hashSeed: hashSeed) }
}
