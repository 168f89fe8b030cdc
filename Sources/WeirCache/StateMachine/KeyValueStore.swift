import CWeir
import Synchronization
import WeirCore

/// The replicated state: a map from keys to values, both bytes.
///
/// One thread writes, the one that applies committed entries; any thread reads. Keys are spread over shards, each with
/// a lock of its own that is held for one probe and one copy, so readers meet the writer only on the same shard.
///
/// While another state is put in place (`isLoading`) there is none to read from, and every look-up says so: it finds the
/// state before or the one after, never a part of one, nor a part of each.
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
  /// Whether a key with a deadline was ever here.
  private let mayHaveDeadlines = Atomic<Bool>(false)
  /// Set before the first key of the old state goes, cleared behind the last one of the new. Looked at under the locks of
  /// the keys that are looked up: who holds them and finds it clear sees them all as they were before or as they are
  /// after, since in between each of their tables is changed, for which the lock is needed.
  /// Here, beside what a look-up reads anyway, and not beside the counts that a write changes while a capture is read.
  private let loading = Atomic<Bool>(false)
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

  /// Calls `body` with a shard's table while it is locked.
  @unsafe
  @inline(__always)
  private func locked<Result>(
    _ shard: UnsafeMutablePointer<Shard>, _ body: (inout RecordTable) -> Result
  ) -> Result {
    // The lock lets nothing out of itself that it does not know to be sendable.
    var result: Result?
    unsafe shard.pointee.table.withLock { result = body(&$0) }
    guard let result else { preconditionFailure("the lock runs its closure") }
    return result
  }

  // MARK: Reading, on any thread

  /// The value of `key`, or nil; nil of every key while `isLoading`, which whoever answers others tells apart with `read`.
  public func get(_ key: [UInt8]) -> [UInt8]? { readCopy(key) ?? nil }

  /// The value of `key`, or nil within; nil as a whole while there is no state to read from (`isLoading`).
  func readCopy(_ key: [UInt8]) -> [UInt8]?? {
    unsafe read(key.span.bytes) { value -> [UInt8]? in
      guard let value else { return nil }
      return unsafe value.withUnsafeBytes { unsafe [UInt8]($0) }
    }
  }

  /// Calls `body` with the value of `key`, or nil, while its shard is locked: copy what is needed and return.
  /// - Returns: what `body` returns; nil, without calling it, while there is no state to read from (`isLoading`).
  public func read<Result>(_ key: RawSpan, _ body: (RawSpan?) -> Result) -> Result? {
    let hash = ByteHash.hash(key, seed: hashSeed)
    return look(hash) { $0.read(key: key, hash: hash, body) }
  }

  /// Looks into the table where keys with this hash lie, while it is locked; nil while there is no state to read from.
  @inline(__always)
  private func look<Result>(_ hash: UInt64, _ body: (borrowing RecordTable) -> Result) -> Result? {
    unsafe locked(shard(of: hash)) { table in
      loading.load(ordering: .relaxed) ? nil : body(table)
    }
  }

  /// Reads a batch of keys of the same length, which lie one behind the other in `keys`, and calls `body` with each
  /// one's position and its value, or nil, while its shard is locked: copy what is needed and return.
  ///
  /// Each read alone waits for three cache misses, one behind the other: the shard (whose line the other readers and
  /// the writer own in turn), the slot and the record. Here the misses of `readGroup` keys overlap: a pass over the
  /// shards, one over the slots, one over the records, then the reads. The group is small so that what was fetched
  /// for writing (a lock is written to) is still ours when it is used: with 256 keys in a group and two readers, more
  /// than half of the lines would have gone back to the other one.
  /// - Returns: false if there was no state to read from (`isLoading`) for some of them, of which `body` has not heard.
  public func readEach(
    _ keys: RawSpan, keyBytes: Int, _ body: (_ position: Int, _ value: RawSpan?) -> Void
  ) -> Bool {
    precondition(keyBytes > 0 && keys.byteCount % keyBytes == 0, "whole keys")
    var isComplete = true
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
        let read: Void? = look(hashes[place]) { table in
          table.read(key: key, hash: hashes[place]) { body(first + place, $0) }
        }
        if read == nil { isComplete = false }
      }
      first += group
    }
    return isComplete
  }

  private static let readGroup = 16

  /// Calls `body` with the value of `key`, or nil, and its deadline in milliseconds since 1970, 0 if it has none, while its
  /// shard is locked. A key whose deadline has passed is there until a command has removed it.
  /// - Returns: what `body` returns; nil, without calling it, while there is no state to read from (`isLoading`).
  public func lookUp<Result>(_ key: RawSpan, _ body: (RawSpan?, UInt64) -> Result) -> Result? {
    let hash = ByteHash.hash(key, seed: hashSeed)
    return look(hash) { $0.lookUp(key: key, hash: hash, body) }
  }

  /// Looks keys up as they are at one moment: no command falls between two of them. Calls `body` with each one's position,
  /// in any order, while the shards of all are locked.
  /// - Returns: false if there was no state to read from (`isLoading`): then what `body` was told counts for nothing.
  public func lookUpTogether(
    _ keys: [Range<Int>], in bytes: RawSpan, _ body: (_ position: Int, _ value: RawSpan?, _ deadline: UInt64) -> Void
  ) -> Bool {
    var places: [ShardPlace] = []
    places.reserveCapacity(keys.count)
    for (position, key) in keys.enumerated() {
      places.append(place(of: bytes.extracting(key), position))
    }
    var isReadable = true
    withTables(of: places) { table, place in
      // Asked with the last lock as well, which is when it counts for all of them.
      guard !loading.load(ordering: .relaxed) else {
        isReadable = false
        return
      }
      table.lookUp(key: bytes.extracting(keys[place.position]), hash: place.hash) { body(place.position, $0, $1) }
    }
    return isReadable
  }

  // MARK: Several keys at once

  /// Which of several keys lies in which shard.
  private struct ShardPlace {
    var shard: Int
    var hash: UInt64
    var position: Int
  }

  private func place(of key: RawSpan, _ position: Int) -> ShardPlace {
    let hash = ByteHash.hash(key, seed: hashSeed)
    return ShardPlace(shard: Int(truncatingIfNeeded: hash >> shardShift), hash: hash, position: position)
  }

  /// Calls `body` for each place, those of a shard in their order, and lets no lock go before all are done. Locks are taken
  /// in the order of the shards, so that nobody waits for somebody who waits for them.
  private func withTables(of places: [ShardPlace], _ body: (inout RecordTable, ShardPlace) -> Void) {
    let sorted = places.sorted { ($0.shard, $0.position) < ($1.shard, $1.position) }
    lock(sorted[...], body)
  }

  /// Recursive, by one level for each shard: locks can only be nested.
  private func lock(_ places: ArraySlice<ShardPlace>, _ body: (inout RecordTable, ShardPlace) -> Void) {
    guard let first = places.first else { return }
    let mine = places.prefix { $0.shard == first.shard }
    unsafe shard(at: first.shard).pointee.table.withLock { table in
      for place in mine { body(&table, place) }
      lock(places[mine.endIndex...], body)
    }
  }

  // MARK: Looking

  /// How much it holds; nil while there is no state to count (`isLoading`): what is there of one by then tells how far the
  /// loading has come, and whoever watches a node would take it for a loss of keys. Shards are counted one after the other,
  /// so beside commands it is not all of one moment.
  public var size: StoreSize? {
    var size = StoreSize()
    for position in 0..<shardCount {
      let isCounted = unsafe locked(shard(at: position)) { table in
        guard !loading.load(ordering: .relaxed) else { return false }
        size.keys += table.count
        size.deadlines += table.deadlineCount
        size.liveBytes += table.liveBytes
        return true
      }
      guard isCounted else { return nil }
    }
    return size
  }

  /// Number of keys, of a part of a state while `isLoading`: to tell others, there is `size`.
  public var count: Int { sum { $0.count } }

  /// Size of all keys and values, in bytes, of a part of a state while `isLoading`: to tell others, there is `size`.
  public var liveBytes: Int { sum { $0.liveBytes } }

  /// Memory held for them, in bytes. True at any time.
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
    return apply(layout, payload, hash: ByteHash.hash(payload.extracting(layout.key), seed: hashSeed))
  }

  /// As `apply(_:)`, with the hash of the command's key.
  func apply(_ payload: RawSpan, hash: UInt64) -> CommandResult {
    let layout: Command.Layout
    do { layout = try Command.decode(payload) } catch { return .refused(error) }
    return apply(layout, payload, hash: hash)
  }

  @inline(__always)
  private func apply(_ layout: Command.Layout, _ payload: RawSpan, hash: UInt64) -> CommandResult {
    let key = payload.extracting(layout.key)
    switch layout.operation {
    case .set where layout.flags == 0:
      return .set(existed: set(key, to: payload.extracting(layout.value), hash: hash))
    case .delete where layout.flags == 0: return .deleted(existed: remove(key, hash: hash))
    case .several: return applySeveral(payload)
    case .set, .delete, .increment, .expire, .removeExpired: return applyOne(layout, payload, hash)
    }
  }

  private func applyOne(_ layout: Command.Layout, _ payload: RawSpan, _ hash: UInt64) -> CommandResult {
    change(hash) { $0.apply(layout, payload, hash: hash) }
  }

  private func applySeveral(_ payload: RawSpan) -> CommandResult {
    var commands: [(range: Range<Int>, layout: Command.Layout)] = []
    do throws(CommandError) {
      try Command.forEach(ofSeveral: payload) { commands.append(($0, $1)) }
    } catch { return .refused(error) }
    var places: [ShardPlace] = []
    places.reserveCapacity(commands.count)
    for (position, command) in commands.enumerated() {
      places.append(place(of: payload.extracting(command.range).extracting(command.layout.key), position))
    }
    var existing: Int64 = 0
    withTables(of: places) { table, place in
      let (range, layout) = commands[place.position]
      let result = unsafe change(&table, of: shard(at: place.shard)) {
        $0.apply(layout, payload.extracting(range), hash: place.hash)
      }
      switch result {
      case .set(true), .deleted(true): existing += 1
      default: break
      }
    }
    return .number(existing)
  }

  func set(_ key: RawSpan, to value: RawSpan, deadline: UInt64 = 0) -> Bool {
    set(key, to: value, deadline: deadline, hash: ByteHash.hash(key, seed: hashSeed))
  }

  private func set(_ key: RawSpan, to value: RawSpan, deadline: UInt64 = 0, hash: UInt64) -> Bool {
    change(hash) { $0.set(key: key, value: value, hash: hash, deadline: deadline) }
  }

  func remove(_ key: RawSpan) -> Bool { remove(key, hash: ByteHash.hash(key, seed: hashSeed)) }

  private func remove(_ key: RawSpan, hash: UInt64) -> Bool {
    change(hash) { $0.remove(key: key, hash: hash) }
  }

  /// Changes the table where keys with this hash lie.
  @inline(__always)
  private func change<Result>(_ hash: UInt64, _ body: (inout RecordTable) -> Result) -> Result {
    let shard = unsafe shard(of: hash)
    return unsafe locked(shard) { unsafe change(&$0, of: shard, body) }
  }

  /// Changes a table that is locked, and notes what others see of it without the lock. What a capture under way still
  /// needs is kept for it, unless it has been outgrown.
  @unsafe
  @inline(__always)
  private func change<Result>(
    _ table: inout RecordTable, of shard: UnsafeMutablePointer<Shard>, _ body: (inout RecordTable) -> Result
  ) -> Result {
    let before = table.preservedBytes
    table.preserves = !isCaptureOutgrown.load(ordering: .relaxed)
    let result = body(&table)
    unsafe shard.pointee.note(table.slotsLocation)
    if table.deadlineCount > 0 { mayHaveDeadlines.store(true, ordering: .relaxed) }
    if table.preservedBytes > before { notePreserved(table.preservedBytes - before) }
    return result
  }

  /// A write had to keep the record that it replaced. Beyond the bound nothing is kept any more: whoever reads the capture
  /// finds that it has been outgrown.
  private func notePreserved(_ byteCount: Int) {
    let total = preservedTotal.wrappingAdd(byteCount, ordering: .relaxed).newValue
    if total > mostPreserved.load(ordering: .relaxed) { isCaptureOutgrown.store(true, ordering: .relaxed) }
  }

  // MARK: Looking ahead, on the applying thread

  /// Begins to fetch what applying `payload` will look at first. Applying a batch in three passes (this for all,
  /// `prefetchRecord` for all, `apply` for all) overlaps the cache misses of its commands, which are most of its cost:
  /// two for each command, one behind the other.
  /// - Returns: the hash of the command's key, for the other passes; nil if the payload is no command.
  func prefetchSlot(_ payload: RawSpan) -> UInt64? {
    guard let layout = try? Command.decode(payload) else { return nil }
    // Its keys are looked for when it is applied.
    guard layout.operation != .several else { return 0 }
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

  // MARK: Deadlines

  /// Number of keys that have a deadline.
  public var deadlineCount: Int { mayHaveDeadlines.load(ordering: .relaxed) ? sum { $0.deadlineCount } : 0 }

  /// How far a search for keys that are past their deadline has come.
  struct ExpirySearch {
    fileprivate var shard = 0
    fileprivate var slot = 0
  }

  /// Goes on with a search for keys whose deadline is not after `asOf`, looking at about `maximumSlots` slots, and round
  /// all shards once at most. What it finds is still there: a command has to remove it.
  func collectExpired(
    asOf: UInt64, _ search: inout ExpirySearch, maximumSlots: Int, maximumKeys: Int
  ) -> [[UInt8]] {
    guard mayHaveDeadlines.load(ordering: .relaxed) else { return [] }
    var keys: [[UInt8]] = []
    var slots = maximumSlots
    var visited = 0
    while visited < shardCount, slots > 0, keys.count < maximumKeys {
      let start = search.slot
      // A part of a shard at a time: its readers wait meanwhile.
      let part = min(slots, 256)
      var next: Int?
      unsafe shard(at: search.shard).pointee.table.withLock { table in
        next = table.collectExpired(asOf: asOf, from: start, maximumSlots: part, into: &keys)
      }
      slots -= next == nil && start == 0 ? 1 : part
      search.slot = next ?? 0
      guard next == nil else { continue }
      search.shard = (search.shard + 1) & (shardCount - 1)
      visited += 1
    }
    return keys
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
    let (result, released) = unsafe locked(shard(at: position)) { table in
      let before = table.preservedBytes
      let result = body(&table)
      return (result, before - table.preservedBytes)
    }
    if released != 0 { preservedTotal.wrappingSubtract(released, ordering: .relaxed) }
    return result
  }

  // MARK: Another state

  /// Whether another state is being put in place, and there is none to read from. For who wants to say so; a look-up
  /// finds out by itself.
  public var isLoading: Bool { loading.load(ordering: .acquiring) }

  /// Lets every key go, so that those of another state can be set, on this thread, which takes the applying one's place
  /// until `endLoading`. Not beside a capture. A million records take tens of milliseconds to free: not for a node's queue.
  func beginLoading() {
    loading.store(true, ordering: .releasing)
    for position in 0..<shardCount {
      // Freed without the lock, a shard at a time.
      var old = RecordTable()
      exchange(&old, shard: position)
    }
    cweir_release_free_memory()
  }

  /// The other state is whole.
  func endLoading() { loading.store(false, ordering: .releasing) }

  /// Exchanges the whole state for that of `other`, which has the same seed and shards and is good for nothing but being
  /// dropped afterwards: that frees every record of the old state, so it is done where nobody waits.
  func adopt(_ other: KeyValueStore) {
    precondition(other.shardCount == shardCount && other.hashSeed == hashSeed, "stores of one shape")
    mayHaveDeadlines.store(true, ordering: .relaxed)
    loading.store(true, ordering: .releasing)
    for position in 0..<shardCount {
      var table = RecordTable()
      other.exchange(&table, shard: position)
      exchange(&table, shard: position)
      other.exchange(&table, shard: position)
    }
    endLoading()
  }

  private func exchange(_ other: inout RecordTable, shard position: Int) {
    let shard = unsafe shard(at: position)
    unsafe shard.pointee.table.withLock { table in
      swap(&table, &other)
      unsafe shard.pointee.note(table.slotsLocation)
    }
  }

  /// An empty store of the same shape.
  func makeEmptyTwin() -> KeyValueStore { KeyValueStore(shardCount: shardCount, hashSeed: hashSeed) }
}

/// How much a store holds.
public struct StoreSize: Sendable, Hashable {
  /// Number of keys.
  public var keys = 0
  /// Number of keys that have a deadline.
  public var deadlines = 0
  /// Size of all keys and values, in bytes.
  public var liveBytes = 0

  public init() {}
}
