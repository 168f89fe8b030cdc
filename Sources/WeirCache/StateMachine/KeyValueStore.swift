import Synchronization
import WeirCore

/// The replicated state: a map from keys to values, both bytes.
///
/// One thread writes, the one that applies committed entries; any thread reads. Keys are spread over shards, each with
/// a lock of its own that is held for one probe and one copy, so readers meet the writer only on the same shard.
///
/// While another state is put in place (`isLoading`) there is none to read from, and every look-up says so: it finds the
/// state before or the one after, never a part of one, nor a part of each.
public final class KeyValueStore: Sendable {
  let shards: StoreShards
  let hashSeed: UInt64
  /// Whether a key with a deadline was ever here.
  let mayHaveDeadlines = Atomic<Bool>(false)
  /// Set before the first key of the old state goes, cleared behind the last one of the new. Looked at under the locks of
  /// the keys that are looked up: who holds them and finds it clear sees them all as they were before or as they are
  /// after, since in between each of their tables is changed, for which the lock is needed.
  /// Here, beside what a look-up reads anyway, and not beside the counts that a write changes while a capture is read.
  let loading = Atomic<Bool>(false)
  let captureBound = CaptureBound()

  var shardCount: Int { shards.count }

  /// - Parameters:
  ///   - shardCount: a power of two.
  ///   - hashSeed: a secret number, so that clients cannot choose keys that collide.
  public init(shardCount: Int = 256, hashSeed: UInt64) {
    shards = StoreShards(count: shardCount)
    self.hashSeed = hashSeed
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
    shards.withTable(at: shards.position(of: hash)) { table in
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
        shards.prefetchLock(hash: hash)
      }
      for place in 0..<group {
        shards.prefetchSlot(hash: hashes[place])
      }
      for place in 0..<group {
        shards.withTable(at: shards.position(of: hashes[place])) { $0.prefetchRecord(hashes[place]) }
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
  struct ShardPlace {
    var shard: Int
    var hash: UInt64
    var position: Int
  }

  func place(of key: RawSpan, _ position: Int) -> ShardPlace {
    let hash = ByteHash.hash(key, seed: hashSeed)
    return ShardPlace(shard: shards.position(of: hash), hash: hash, position: position)
  }

  /// Calls `body` for each place, those of a shard in their order, and lets no lock go before all are done. Locks are taken
  /// in the order of the shards, so that nobody waits for somebody who waits for them.
  func withTables(of places: [ShardPlace], _ body: (inout RecordTable, ShardPlace) -> Void) {
    let sorted = places.sorted { ($0.shard, $0.position) < ($1.shard, $1.position) }
    lock(sorted[...], body)
  }

  /// Recursive, by one level for each shard: locks can only be nested.
  private func lock(_ places: ArraySlice<ShardPlace>, _ body: (inout RecordTable, ShardPlace) -> Void) {
    guard let first = places.first else { return }
    let mine = places.prefix { $0.shard == first.shard }
    shards.withTable(at: first.shard) { table in
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
      let isCounted = shards.withTable(at: position) { table in
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
    for position in 0..<shardCount { shards.withTable(at: position) { total &+= $0.contentHash } }
    return total
  }

  private func sum(_ quantity: (borrowing RecordTable) -> Int) -> Int {
    var total = 0
    for position in 0..<shardCount { shards.withTable(at: position) { total += quantity($0) } }
    return total
  }
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
