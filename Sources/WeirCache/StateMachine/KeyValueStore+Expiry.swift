/// Finding keys whose time has passed.
extension KeyValueStore {
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
      shards.withTable(at: search.shard) { table in
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
}
