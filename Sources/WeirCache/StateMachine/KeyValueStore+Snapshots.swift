import CWeir
import Synchronization

/// Taking the state out, as it was at one moment, and putting another one in its place.
extension KeyValueStore {
  // MARK: Captures

  /// Begins a capture of the state as it is now, which goes on to be read in chunks on any thread while commands are
  /// applied. Called by the applying thread between two entries. One capture runs at a time.
  ///
  /// What is overwritten meanwhile is kept until the capture has taken it, up to `mostPreservedBytes`: half of that and the
  /// capture takes it first. Beyond, the writes outrun whoever reads the capture, and it is given up: keeping all of it
  /// would be the state twice.
  /// - Parameter mostPreservedBytes: a quarter of the state, if it is nil, or 32 MiB where that is more.
  public func beginCapture(mostPreservedBytes: Int? = nil) -> StateCapture {
    let most = mostPreservedBytes ?? max(liveBytes / 4, Self.leastPreservedBytes)
    let number = captureBound.begin(mostBytes: most)
    for position in 0..<shardCount { shards.withTable(at: position) { $0.beginCapture(number) } }
    return StateCapture(store: self, pressingBytes: most / 2)
  }

  private static let leastPreservedBytes = 32 << 20

  /// Size of the records that are in memory for a capture alone, in bytes.
  var preservedBytes: Int { captureBound.preservedBytes }

  /// Whether the capture under way lacks what was overwritten meanwhile.
  var hasOutgrownCapture: Bool { captureBound.isOutgrown }

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
    let (result, released) = shards.withTable(at: position) { table in
      let before = table.preservedBytes
      let result = body(&table)
      return (result, before - table.preservedBytes)
    }
    if released != 0 { captureBound.released(bytes: released) }
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
    shards.withTable(at: position) { table in
      swap(&table, &other)
      shards.noteSlots(of: table, at: position)
    }
  }

  /// An empty store of the same shape.
  func makeEmptyTwin() -> KeyValueStore { KeyValueStore(shardCount: shardCount, hashSeed: hashSeed) }
}

/// What is kept in memory for the capture of a store that is under way, and beyond which size it is given up. Used on the
/// applying thread and on the one that reads the capture.
struct CaptureBound: ~Copyable {
  private let count = Atomic<UInt64>(0)
  private let preservedTotal = Atomic<Int>(0)
  private let mostPreserved = Atomic<Int>(.max)
  private let outgrown = Atomic<Bool>(false)

  /// A capture begins.
  /// - Parameter mostBytes: how much may be kept for it.
  /// - Returns: its number.
  func begin(mostBytes: Int) -> UInt64 {
    mostPreserved.store(mostBytes, ordering: .relaxed)
    outgrown.store(false, ordering: .relaxed)
    return count.wrappingAdd(1, ordering: .relaxed).newValue
  }

  /// Size of the records that are in memory for a capture alone, in bytes.
  var preservedBytes: Int { preservedTotal.load(ordering: .relaxed) }

  /// Whether the capture under way lacks what was overwritten meanwhile.
  @inline(__always)
  var isOutgrown: Bool { outgrown.load(ordering: .relaxed) }

  /// A write had to keep the record that it replaced. Beyond the bound nothing is kept any more: whoever reads the capture
  /// finds that it has been outgrown.
  func preserved(bytes: Int) {
    let total = preservedTotal.wrappingAdd(bytes, ordering: .relaxed).newValue
    if total > mostPreserved.load(ordering: .relaxed) { outgrown.store(true, ordering: .relaxed) }
  }

  /// The capture has taken such records, or was given up.
  func released(bytes: Int) { preservedTotal.wrappingSubtract(bytes, ordering: .relaxed) }
}
