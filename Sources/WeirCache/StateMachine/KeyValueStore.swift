import CWeir
import Synchronization
import WeirCore

/// The replicated state: a map from keys to values, both bytes.
///
/// One thread writes, the one that applies committed entries; any thread reads. Keys are spread over shards, each with
/// a lock of its own that is held for one probe and one copy, so readers meet the writer only on the same shard.
///
/// Sendable although it holds a pointer: it never changes, and what it points to is a lock and what lies under it.
@safe
public final class KeyValueStore: @unchecked Sendable {
  /// What a look-up needs lies in the first cache line: these words, the lock, and the table's own first words.
  private struct Shard: ~Copyable {
    /// Where the table's slots lie, to look ahead without the lock.
    let slotsAddress = Atomic<UInt>(0)
    let slotCount = Atomic<Int>(1)
    let table: Mutex<RecordTable>

    init() {
      table = Mutex(RecordTable())
      note(table.withLock { $0.slotsLocation })
    }

    func note(_ location: (address: UInt, count: Int)) {
      slotsAddress.store(location.address, ordering: .relaxed)
      slotCount.store(location.count, ordering: .relaxed)
    }
  }

  /// Shards lie in one allocation, each at the start of a cache line of its own. Objects in an array would cost two
  /// atomic additions to a reference count for each look-up, on a line that all readers share.
  private let shards: UnsafeMutableRawPointer
  let shardCount: Int
  private let shardShift: UInt64
  private let hashSeed: UInt64
  private let captureCount = Atomic<UInt64>(0)
  /// Size of the records that are in memory for a capture alone, in bytes.
  private let preservedTotal = Atomic<Int>(0)
  private let mostPreserved = Atomic<Int>(.max)
  private let isCaptureOutgrown = Atomic<Bool>(false)

  private static let cacheLineBytes = 64
  private static let shardStride =
    (MemoryLayout<Shard>.stride + cacheLineBytes - 1) / cacheLineBytes * cacheLineBytes

  /// - Parameters:
  ///   - shardCount: a power of two.
  ///   - hashSeed: a secret number, so that clients cannot choose keys that collide.
  public init(shardCount: Int = 256, hashSeed: UInt64) {
    precondition(shardCount > 0 && shardCount & (shardCount - 1) == 0, "the shard count is a power of two")
    unsafe shards = .allocate(byteCount: shardCount * Self.shardStride, alignment: Self.cacheLineBytes)
    self.shardCount = shardCount
    // A shift of 64 gives 0, which is the only shard's number where there is one.
    shardShift = UInt64(64 - shardCount.trailingZeroBitCount)
    self.hashSeed = hashSeed
    for position in 0..<shardCount { unsafe shard(at: position).initialize(to: Shard()) }
  }

  deinit {
    for position in 0..<shardCount { unsafe shard(at: position).deinitialize(count: 1) }
    unsafe shards.deallocate()
  }

  @inline(__always)
  private func shard(at position: Int) -> UnsafeMutablePointer<Shard> {
    precondition(position >= 0 && position < shardCount, "a shard's number")
    return unsafe (shards + position &* Self.shardStride).assumingMemoryBound(to: Shard.self)
  }

  @inline(__always)
  private func shard(of hash: UInt64) -> UnsafeMutablePointer<Shard> {
    unsafe shard(at: Int(truncatingIfNeeded: hash >> shardShift))
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
    unsafe shard(of: hash).pointee.table.withLock { table in
      result = table.read(key: key, hash: hash, body)
    }
    guard let result else { preconditionFailure("the lock runs its closure") }
    return result
  }

  /// Reads a batch of keys of the same length, which lie one behind the other in `keys`, and calls `body` with each
  /// one's position and its value, or nil, while its shard is locked: copy what is needed and return.
  ///
  /// Each read alone waits for three cache misses, one behind the other: the shard (whose line the other readers and
  /// the writer own in turn), the slot and the record. Here the misses of `readGroup` keys overlap: a pass over the
  /// shards, one over the slots, one over the records, then the reads. The group is small so that what was fetched
  /// for writing (a lock is written to) is still ours when it is used: with 256 keys in a group and two readers, more
  /// than half of the lines would have gone back to the other one.
  public func readEach(_ keys: RawSpan, keyBytes: Int, _ body: (_ position: Int, _ value: RawSpan?) -> Void) {
    precondition(keyBytes > 0 && keys.byteCount % keyBytes == 0, "whole keys")
    let count = keys.byteCount / keyBytes
    var hashes = InlineArray<16, UInt64>(repeating: 0)
    var first = 0
    while first < count {
      let group = min(Self.readGroup, count - first)
      for place in 0..<group {
        let offset = (first + place) * keyBytes
        let hash = ByteHash.hash(keys.extracting(offset..<offset + keyBytes), seed: hashSeed)
        hashes[place] = hash
        unsafe cweir_prefetch_for_write(UInt(bitPattern: shard(of: hash)))
      }
      for place in 0..<group {
        prefetchSlot(hash: hashes[place])
      }
      for place in 0..<group {
        unsafe shard(of: hashes[place]).pointee.table.withLock { $0.prefetchRecord(hashes[place]) }
      }
      for place in 0..<group {
        let offset = (first + place) * keyBytes
        let key = keys.extracting(offset..<offset + keyBytes)
        unsafe shard(of: hashes[place]).pointee.table.withLock { table in
          table.read(key: key, hash: hashes[place]) { body(first + place, $0) }
        }
      }
      first += group
    }
  }

  private static let readGroup = 16

  /// Number of keys.
  public var count: Int { sum { $0.count } }

  /// Size of all keys and values, in bytes.
  public var liveBytes: Int { sum { $0.liveBytes } }

  /// Memory held for them, in bytes.
  public var memoryBytes: Int { sum { $0.memoryBytes } }

  /// Equal on replicas that hold the same keys and values. Meaningful while nothing is being applied.
  public var stateHash: UInt64 {
    var total: UInt64 = 0
    for position in 0..<shardCount { unsafe shard(at: position).pointee.table.withLock { total &+= $0.contentHash } }
    return total
  }

  private func sum(_ quantity: (borrowing RecordTable) -> Int) -> Int {
    var total = 0
    for position in 0..<shardCount { unsafe shard(at: position).pointee.table.withLock { total += quantity($0) } }
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
    var kept = 0
    let preserves = !isCaptureOutgrown.load(ordering: .relaxed)
    let shard = unsafe shard(of: hash)
    unsafe shard.pointee.table.withLock { table in
      let before = table.preservedBytes
      existed = table.set(key: key, value: value, hash: hash, preserves: preserves)
      kept = table.preservedBytes - before
      if !existed { unsafe shard.pointee.note(table.slotsLocation) }
    }
    if kept > 0 { notePreserved(kept) }
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
    prefetchSlot(hash: hash)
    return hash
  }

  /// Begins to fetch the slot where a key with this hash is looked for first. A table that moves meanwhile makes it
  /// fetch in vain, no more.
  @inline(__always)
  private func prefetchSlot(hash: UInt64) {
    let shard = unsafe shard(of: hash)
    unsafe RecordTable.prefetchSlot(
      hash, address: shard.pointee.slotsAddress.load(ordering: .relaxed),
      count: shard.pointee.slotCount.load(ordering: .relaxed))
  }

  func prefetchRecord(hash: UInt64) {
    let shard = unsafe shard(of: hash)
    unsafe RecordTable.prefetchRecord(
      hash, address: shard.pointee.slotsAddress.load(ordering: .relaxed),
      count: shard.pointee.slotCount.load(ordering: .relaxed))
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
    var kept = 0
    let preserves = !isCaptureOutgrown.load(ordering: .relaxed)
    unsafe shard(of: hash).pointee.table.withLock { table in
      let before = table.preservedBytes
      existed = table.remove(key: key, hash: hash, preserves: preserves)
      kept = table.preservedBytes - before
    }
    if kept > 0 { notePreserved(kept) }
    return existed
  }

  /// A write had to keep the record that it replaced. Beyond the bound nothing is kept any more: whoever reads the capture
  /// finds that it has been outgrown.
  private func notePreserved(_ byteCount: Int) {
    let total = preservedTotal.wrappingAdd(byteCount, ordering: .relaxed).newValue
    if total > mostPreserved.load(ordering: .relaxed) { isCaptureOutgrown.store(true, ordering: .relaxed) }
  }

  // MARK: Snapshots

  /// Begins a capture of the state as it is now, which goes on to be read in chunks on any thread while commands are
  /// applied. Called by the applying thread between two entries. One capture runs at a time.
  ///
  /// What is overwritten meanwhile is kept until the capture has taken it, up to `mostPreservedBytes`: half of that and the
  /// capture takes it first. Beyond, the writes outrun whoever reads the capture, and it is given up: keeping all of it
  /// would be the state twice.
  /// - Parameter mostPreservedBytes: a quarter of the state, if it is nil, or 32 MiB where that is more.
  public func beginCapture(mostPreservedBytes: Int? = nil) -> StateCapture {
    let most = mostPreservedBytes ?? max(liveBytes / 4, Self.leastPreservedBytes)
    mostPreserved.store(most, ordering: .relaxed)
    isCaptureOutgrown.store(false, ordering: .relaxed)
    let count = captureCount.wrappingAdd(1, ordering: .relaxed).newValue
    for position in 0..<shardCount {
      unsafe shard(at: position).pointee.table.withLock { $0.beginCapture(count) }
    }
    return StateCapture(store: self, pressingBytes: most / 2)
  }

  private static let leastPreservedBytes = 32 << 20

  /// Size of the records that are in memory for a capture alone, in bytes.
  var preservedBytes: Int { preservedTotal.load(ordering: .relaxed) }

  /// Whether the capture under way lacks what was overwritten meanwhile.
  var hasOutgrownCapture: Bool { isCaptureOutgrown.load(ordering: .relaxed) }

  func capture(shard position: Int, into output: inout [UInt8], maximumBytes: Int) -> Bool {
    withCapture(shard: position) { $0.capture(into: &output, maximumBytes: maximumBytes) }
  }

  /// As `capture`, but only what is in memory for the capture alone.
  func capturePreserved(shard position: Int, into output: inout [UInt8], maximumBytes: Int) {
    withCapture(shard: position) { $0.capturePreserved(into: &output, maximumBytes: maximumBytes) }
  }

  func endCapture() {
    for position in 0..<shardCount { withCapture(shard: position) { $0.endCapture() } }
  }

  private func withCapture<Result>(shard position: Int, _ body: (inout RecordTable) -> Result) -> Result {
    var result: Result?
    var released = 0
    unsafe shard(at: position).pointee.table.withLock { table in
      released = table.preservedBytes
      result = body(&table)
      released -= table.preservedBytes
    }
    if released != 0 { preservedTotal.wrappingSubtract(released, ordering: .relaxed) }
    guard let result else { preconditionFailure("the lock runs its closure") }
    return result
  }

  /// Exchanges the whole state for that of `other`, which has the same seed and shards and is good for nothing but being
  /// dropped afterwards: that frees every record of the old state, so it is done where nobody waits.
  func adopt(_ other: KeyValueStore) {
    precondition(other.shardCount == shardCount && other.hashSeed == hashSeed, "stores of one shape")
    for position in 0..<shardCount {
      var incoming = RecordTable()
      unsafe other.shard(at: position).pointee.table.withLock { swap(&$0, &incoming) }
      let shard = unsafe shard(at: position)
      unsafe shard.pointee.table.withLock { table in
        swap(&table, &incoming)
        unsafe shard.pointee.note(table.slotsLocation)
      }
      unsafe other.shard(at: position).pointee.table.withLock { swap(&$0, &incoming) }
    }
  }

  /// An empty store of the same shape.
  func makeEmptyTwin() -> KeyValueStore { KeyValueStore(shardCount: shardCount, hashSeed: hashSeed) }
}
