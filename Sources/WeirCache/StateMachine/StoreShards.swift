import CWeir
import Synchronization

/// The tables that a store's keys are spread over by their hashes, each under a lock of its own.
///
/// They lie in one allocation, each at the start of a cache line of its own. Objects in an array would cost two atomic
/// additions to a reference count for each look-up, on a line that all readers share.
///
/// Sendable although it holds a pointer: it never changes, and what it points to is a lock and what lies under it.
@safe
struct StoreShards: ~Copyable, @unchecked Sendable {
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

  private let memory: UnsafeMutableRawPointer
  let count: Int
  private let shift: UInt64

  private static let cacheLineBytes = 64
  private static let stride = (MemoryLayout<Shard>.stride + cacheLineBytes - 1) / cacheLineBytes * cacheLineBytes

  /// - Parameter count: a power of two.
  init(count: Int) {
    precondition(count > 0 && count & (count - 1) == 0, "the shard count is a power of two")
    unsafe memory = .allocate(byteCount: count * Self.stride, alignment: Self.cacheLineBytes)
    self.count = count
    // A shift of 64 gives 0, which is the only shard's number where there is one.
    shift = UInt64(64 - count.trailingZeroBitCount)
    for position in 0..<count { unsafe shard(at: position).initialize(to: Shard()) }
  }

  deinit {
    for position in 0..<count { unsafe shard(at: position).deinitialize(count: 1) }
    unsafe memory.deallocate()
  }

  @inline(__always)
  private func shard(at position: Int) -> UnsafeMutablePointer<Shard> {
    precondition(position >= 0 && position < count, "a shard's number")
    return unsafe (memory + position &* Self.stride).assumingMemoryBound(to: Shard.self)
  }

  /// Where keys with this hash lie.
  @inline(__always)
  func position(of hash: UInt64) -> Int { Int(truncatingIfNeeded: hash >> shift) }

  /// Calls `body` with a table while it is locked. What changes it notes its slots.
  @inline(__always)
  func withTable<Result>(at position: Int, _ body: (inout RecordTable) -> Result) -> Result {
    // The lock lets nothing out of itself that it does not know to be sendable.
    var result: Result?
    unsafe shard(at: position).pointee.table.withLock { result = body(&$0) }
    guard let result else { preconditionFailure("the lock runs its closure") }
    return result
  }

  /// Notes what is seen of a table without its lock, which is held.
  @inline(__always)
  func noteSlots(of table: borrowing RecordTable, at position: Int) {
    unsafe shard(at: position).pointee.note(table.slotsLocation)
  }

  // MARK: Looking ahead

  /// Begins to fetch the lock of keys with this hash, to be taken.
  @inline(__always)
  func prefetchLock(hash: UInt64) {
    unsafe cweir_prefetch_for_write(UInt(bitPattern: shard(at: position(of: hash))))
  }

  /// Begins to fetch the slot where a key with this hash is looked for first. A table that moves meanwhile makes it fetch in
  /// vain, no more.
  @inline(__always)
  func prefetchSlot(hash: UInt64) {
    let slots = slots(of: hash)
    RecordTable.prefetchSlot(hash, address: slots.address, count: slots.count)
  }

  /// Begins to fetch the record that this slot refers to, on the thread that changes the tables.
  @inline(__always)
  func prefetchRecord(hash: UInt64) {
    let slots = slots(of: hash)
    unsafe RecordTable.prefetchRecord(hash, address: slots.address, count: slots.count)
  }

  /// Where the slots of the table with this hash's keys lay when that was noted last.
  @inline(__always)
  private func slots(of hash: UInt64) -> (address: UInt, count: Int) {
    let shard = unsafe shard(at: position(of: hash))
    return unsafe (
      shard.pointee.slotsAddress.load(ordering: .relaxed), shard.pointee.slotCount.load(ordering: .relaxed)
    )
  }
}
