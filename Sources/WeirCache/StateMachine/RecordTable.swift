import CWeir

/// One shard's keys and values: an open-addressing table of pointers to records.
///
/// A set of an existing key costs one probe (two cache misses), a comparison and a copy; a new key adds one
/// allocation. A pointer table was chosen over Swift's Dictionary because the latter allocates an array per value and
/// hashes through a witness; both lie on the path of every committed entry.
///
/// Snapshots are captured record by record while the table goes on changing. Each record carries the number of the last
/// snapshot that need not take it: capture number `s` takes records whose number is below `s`, once, and marks them.
/// While a capture runs, a record that was not taken yet is never overwritten: the write makes a new record, numbered
/// `s`, and keeps the old one in `preserved`, where the capture finds it. So the capture sees exactly the state at the
/// moment it began, and each write pays one allocation more, not a copy of the shard.
///
/// Record, in one allocation: content hash (8), key bytes (4), value bytes (4), capacity (4), epoch (4), key, value, and
/// where the highest bit of the value bytes is set, the deadline (8, milliseconds since 1970): keys that live for ever, of
/// which a cache may have a hundred million, pay nothing for those that do not.
///
/// Sendable although it holds pointers: what they point to is reached through this one value only, which cannot be
/// copied and lies under the shard's lock.
@safe
struct RecordTable: ~Copyable, @unchecked Sendable {
  @safe
  private struct Slot {
    var hash: UInt64
    var record: UnsafeMutableRawPointer?
  }

  private static let recordHeaderBytes = 24
  private static let deadlineBytes = 8
  private static let deadlineFlag: UInt32 = 1 << 31

  private var slots: UnsafeMutablePointer<Slot>
  private var slotCount: Int
  private var preserved: [UnsafeMutableRawPointer] = unsafe []
  /// The capture under way, or 0.
  private var activeEpoch: UInt32 = 0
  /// The capture that new records belong behind; equals the last one begun.
  private var latestEpoch: UInt32 = 0
  private var captureCursor = 0
  /// The earliest deadline that `collectExpired` has seen in its walk so far.
  private var walkedEarliest = UInt64.max

  private(set) var count = 0
  /// Size of keys and values, in bytes.
  private(set) var liveBytes = 0
  /// Size of all allocations, in bytes.
  private(set) var memoryBytes = 0
  /// Sum over all records of the seedless hash of key and value: equal tables have equal sums in any order.
  private(set) var contentHash: UInt64 = 0
  /// Number of keys that have a deadline.
  private(set) var deadlineCount = 0
  /// No key's deadline is before this one.
  private(set) var earliestDeadline = UInt64.max

  init(minimumSlots: Int = 16) {
    slotCount = 16
    while slotCount < minimumSlots { slotCount *= 2 }
    unsafe slots = .allocate(capacity: slotCount)
    unsafe slots.initialize(repeating: Slot(hash: 0, record: nil), count: slotCount)
    memoryBytes = slotCount * MemoryLayout<Slot>.stride
  }

  deinit {
    for position in 0..<slotCount { unsafe slots[position].record?.deallocate() }
    for position in unsafe preserved.indices { unsafe preserved[position].deallocate() }
    unsafe slots.deallocate()
  }

  // MARK: Looking ahead

  /// Where the slots lie, and how many there are: they move only when the writer lets the table grow.
  var slotsLocation: (address: UInt, count: Int) { (UInt(bitPattern: unsafe slots), slotCount) }

  /// Begins to fetch the slot where a key with `hash` is looked for first, in a table whose slots lie at `address`.
  @inline(__always)
  static func prefetchSlot(_ hash: UInt64, address: UInt, count: Int) {
    cweir_prefetch_for_write(
      address &+ UInt((Int(truncatingIfNeeded: hash) & (count &- 1)) &* MemoryLayout<Slot>.stride))
  }

  /// Begins to fetch the record in that slot, as far as a small one goes. Only the thread that writes the table may
  /// look into a slot without the lock: nobody else changes it.
  @unsafe
  @inline(__always)
  static func prefetchRecord(_ hash: UInt64, address: UInt, count: Int) {
    guard let slots = unsafe UnsafePointer<Slot>(bitPattern: address) else { return }
    let record = UInt(bitPattern: unsafe slots[Int(truncatingIfNeeded: hash) & (count &- 1)].record)
    cweir_prefetch_for_write(record)
    cweir_prefetch_for_write(record &+ 64)
    cweir_prefetch_for_write(record &+ 128)
  }

  /// Begins to fetch the start of the record in that slot: its header, a short key and the start of its value. Under
  /// the lock.
  @inline(__always)
  func prefetchRecord(_ hash: UInt64) {
    let record = UInt(bitPattern: unsafe slots[Int(truncatingIfNeeded: hash) & (slotCount &- 1)].record)
    cweir_prefetch(record)
  }

  // MARK: Reading

  /// Calls `body` with the value of `key`, or nil.
  func read<Result>(key: RawSpan, hash: UInt64, _ body: (RawSpan?) -> Result) -> Result {
    guard let record = unsafe slots[find(key, hash)].record else { return body(nil) }
    let value = unsafe UnsafeRawBufferPointer(
      start: record + Self.recordHeaderBytes + keyBytes(of: record), count: valueBytes(of: record))
    return unsafe body(RawSpan(_unsafeBytes: value))
  }

  /// Calls `body` with the value of `key`, or nil, and its deadline, 0 if it has none.
  func lookUp<Result>(key: RawSpan, hash: UInt64, _ body: (RawSpan?, UInt64) -> Result) -> Result {
    guard let record = unsafe slots[find(key, hash)].record else { return body(nil, 0) }
    let value = unsafe UnsafeRawBufferPointer(
      start: record + Self.recordHeaderBytes + keyBytes(of: record), count: valueBytes(of: record))
    return unsafe body(RawSpan(_unsafeBytes: value), deadline(of: record))
  }

  /// Adds keys whose deadline is not after `asOf` to `keys`, looking at `maximumSlots` slots from `cursor` on.
  /// - Returns: where to go on, or nil at the table's end.
  mutating func collectExpired(
    asOf: UInt64, from cursor: Int, maximumSlots: Int, into keys: inout [[UInt8]]
  ) -> Int? {
    guard deadlineCount > 0, earliestDeadline <= asOf else { return nil }
    // From the start on, the earliest that is seen is the earliest there is; what is set meanwhile lowers it.
    if cursor == 0 { walkedEarliest = .max }
    let end = min(slotCount, cursor + maximumSlots)
    for position in min(cursor, end)..<end {
      guard let record = unsafe slots[position].record else { continue }
      let deadline = unsafe deadline(of: record)
      guard deadline != 0 else { continue }
      // Also if it is due: its removal is only proposed.
      walkedEarliest = min(walkedEarliest, deadline)
      guard deadline <= asOf else { continue }
      keys.append(
        unsafe [UInt8](
          UnsafeRawBufferPointer(start: record + Self.recordHeaderBytes, count: keyBytes(of: record))))
    }
    guard end == slotCount else { return end }
    earliestDeadline = walkedEarliest
    return nil
  }

  // MARK: Writing

  /// Sets `key` to `value`, with a deadline, or 0 for none. Returns whether it existed.
  mutating func set(key: RawSpan, value: RawSpan, hash: UInt64, deadline: UInt64 = 0) -> Bool {
    let content = Self.contentHash(key: key, value: value, deadline: deadline)
    let position = find(key, hash)
    if let record = unsafe slots[position].record {
      unsafe forget(record)
      let needed = key.byteCount + value.byteCount + Self.deadlineBytes(deadline)
      if unsafe mayOverwrite(record, neededBytes: needed) {
        unsafe write(record, key: nil, value: value, keyBytes: key.byteCount, content: content, deadline: deadline)
      } else {
        unsafe slots[position].record = allocate(key: key, value: value, content: content, deadline: deadline)
        unsafe retire(record)
      }
      remember(keyBytes: key.byteCount, valueBytes: value.byteCount, content: content, deadline: deadline)
      return true
    }
    unsafe slots[position] = Slot(
      hash: hash, record: allocate(key: key, value: value, content: content, deadline: deadline))
    remember(keyBytes: key.byteCount, valueBytes: value.byteCount, content: content, deadline: deadline)
    count += 1
    if count * 4 > slotCount * 3 { grow() }
    return false
  }

  /// Removes `key`. Returns whether it existed.
  mutating func remove(key: RawSpan, hash: UInt64) -> Bool {
    var hole = find(key, hash)
    guard let record = unsafe slots[hole].record else { return false }
    unsafe forget(record)
    unsafe retire(record)
    count -= 1
    // Close the gap: a probe for a later record must not stop at it.
    var position = hole
    while true {
      position = (position + 1) & (slotCount - 1)
      let slot = unsafe slots[position]
      guard unsafe slot.record != nil else { break }
      let home = Int(truncatingIfNeeded: slot.hash) & (slotCount - 1)
      if ((position - home) & (slotCount - 1)) >= ((position - hole) & (slotCount - 1)) {
        unsafe slots[hole] = slot
        hole = position
      }
    }
    unsafe slots[hole] = Slot(hash: 0, record: nil)
    if activeEpoch != 0 { captureCursor = 0 }  // records moved: walk again, those taken are marked
    return true
  }

  // MARK: Capturing

  /// Begins capture number `epoch`, higher than any before. Only one runs at a time.
  mutating func beginCapture(epoch: UInt32) {
    precondition(activeEpoch == 0 && epoch > latestEpoch, "captures run one at a time, in order")
    activeEpoch = epoch
    latestEpoch = epoch
    captureCursor = 0
  }

  /// Appends records to `output` until it holds `maximumBytes` or more, looking at `maximumSlots` slots at most, so
  /// that the shard is locked for a bounded time. Returns whether the shard is done, which also ends its capture.
  mutating func capture(into output: inout [UInt8], maximumBytes: Int, maximumSlots: Int = 512) -> Bool {
    guard activeEpoch != 0 else { return true }
    var looked = 0
    while captureCursor < slotCount, looked < maximumSlots, output.count < maximumBytes {
      prefetchCaptured(captureCursor &+ 8)
      if let record = unsafe slots[captureCursor].record, unsafe epoch(of: record) < activeEpoch {
        unsafe emit(record, into: &output)
        unsafe record.storeBytes(of: activeEpoch, toByteOffset: 20, as: UInt32.self)
      }
      captureCursor += 1
      looked += 1
    }
    guard captureCursor == slotCount else { return false }
    while output.count < maximumBytes, let record = unsafe preserved.popLast() {
      unsafe emit(record, into: &output)
      unsafe free(record)
    }
    guard unsafe preserved.isEmpty else { return false }
    activeEpoch = 0
    return true
  }

  /// Begins to fetch the record in a slot that the capture comes to soon: each lies somewhere else, and waiting for one
  /// after the other is most of what a capture costs.
  @inline(__always)
  private func prefetchCaptured(_ position: Int) {
    guard position < slotCount else { return }
    let record = UInt(bitPattern: unsafe slots[position].record)
    cweir_prefetch(record)
    cweir_prefetch(record &+ 64)
    cweir_prefetch(record &+ 128)
  }

  /// Gives the capture up: what it kept is let go.
  mutating func endCapture() {
    activeEpoch = 0
    while let record = unsafe preserved.popLast() { unsafe free(record) }
  }

  // MARK: Records

  private static func contentHash(key: RawSpan, value: RawSpan, deadline: UInt64) -> UInt64 {
    let hash = ByteHash.hash(value, seed: ByteHash.hash(key, seed: 0))
    guard deadline != 0 else { return hash }
    let mixed = (hash ^ deadline).multipliedFullWidth(by: 0xA076_1D64_78BD_642F)
    return mixed.high ^ mixed.low
  }

  private static func deadlineBytes(_ deadline: UInt64) -> Int { deadline == 0 ? 0 : deadlineBytes }

  /// The slot that holds `key`, or the empty one where it would go. There is always an empty slot.
  private func find(_ key: RawSpan, _ hash: UInt64) -> Int {
    var position = Int(truncatingIfNeeded: hash) & (slotCount - 1)
    while let record = unsafe slots[position].record {
      if unsafe slots[position].hash == hash, unsafe equals(record, key) { return position }
      position = (position + 1) & (slotCount - 1)
    }
    return position
  }

  private func equals(_ record: UnsafeMutableRawPointer, _ key: RawSpan) -> Bool {
    guard unsafe keyBytes(of: record) == key.byteCount else { return false }
    // Safe: the record holds as many bytes of key as its header says, which is as many as `key` has.
    return unsafe key.withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress else { return true }
      return unsafe cweir_bytes_are_equal(base, record + Self.recordHeaderBytes, bytes.count)
    }
  }

  private func keyBytes(of record: UnsafeMutableRawPointer) -> Int {
    Int(unsafe record.load(fromByteOffset: 8, as: UInt32.self))
  }

  private func valueBytes(of record: UnsafeMutableRawPointer) -> Int {
    Int(unsafe record.load(fromByteOffset: 12, as: UInt32.self) & ~Self.deadlineFlag)
  }

  private func hasDeadline(_ record: UnsafeMutableRawPointer) -> Bool {
    unsafe record.load(fromByteOffset: 12, as: UInt32.self) & Self.deadlineFlag != 0
  }

  /// When the record's key ends, or 0.
  private func deadline(of record: UnsafeMutableRawPointer) -> UInt64 {
    guard unsafe hasDeadline(record) else { return 0 }
    let offset = unsafe Self.recordHeaderBytes + keyBytes(of: record) + valueBytes(of: record)
    return unsafe UInt64(littleEndian: record.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  private func capacity(of record: UnsafeMutableRawPointer) -> Int {
    Int(unsafe record.load(fromByteOffset: 16, as: UInt32.self))
  }

  private func epoch(of record: UnsafeMutableRawPointer) -> UInt32 {
    unsafe record.load(fromByteOffset: 20, as: UInt32.self)
  }

  private func mayOverwrite(_ record: UnsafeMutableRawPointer, neededBytes needed: Int) -> Bool {
    let capacity = unsafe capacity(of: record)
    // A record of 1 MiB that shrank to 10 bytes would hold its memory for ever: more than half unused is not reused.
    guard needed <= capacity, capacity <= 2 * needed + 64 else { return false }
    return unsafe activeEpoch == 0 || epoch(of: record) >= activeEpoch
  }

  private mutating func allocate(
    key: RawSpan, value: RawSpan, content: UInt64, deadline: UInt64
  ) -> UnsafeMutableRawPointer {
    let capacity = (key.byteCount + value.byteCount + Self.deadlineBytes(deadline) + 15) & ~15
    let record = UnsafeMutableRawPointer.allocate(
      byteCount: Self.recordHeaderBytes + capacity, alignment: MemoryLayout<UInt64>.alignment)
    memoryBytes += Self.recordHeaderBytes + capacity
    unsafe record.storeBytes(of: UInt32(key.byteCount), toByteOffset: 8, as: UInt32.self)
    unsafe record.storeBytes(of: UInt32(capacity), toByteOffset: 16, as: UInt32.self)
    unsafe write(record, key: key, value: value, keyBytes: key.byteCount, content: content, deadline: deadline)
    return unsafe record
  }

  /// Writes into a record whose capacity holds key and value.
  private func write(
    _ record: UnsafeMutableRawPointer, key: RawSpan?, value: RawSpan, keyBytes: Int, content: UInt64, deadline: UInt64
  ) {
    let valueEnd = keyBytes + value.byteCount
    unsafe precondition(capacity(of: record) >= valueEnd + Self.deadlineBytes(deadline), "the record is too small")
    let flag = deadline == 0 ? 0 : Self.deadlineFlag
    unsafe record.storeBytes(of: content, as: UInt64.self)
    unsafe record.storeBytes(of: UInt32(value.byteCount) | flag, toByteOffset: 12, as: UInt32.self)
    unsafe record.storeBytes(of: latestEpoch, toByteOffset: 20, as: UInt32.self)
    let body = unsafe record + Self.recordHeaderBytes
    unsafe key?.withUnsafeBytes { bytes in
      if let base = bytes.baseAddress { unsafe body.copyMemory(from: base, byteCount: bytes.count) }
    }
    unsafe value.withUnsafeBytes { bytes in
      if let base = bytes.baseAddress { unsafe (body + keyBytes).copyMemory(from: base, byteCount: bytes.count) }
    }
    if deadline != 0 { unsafe body.storeBytes(of: deadline.littleEndian, toByteOffset: valueEnd, as: UInt64.self) }
  }

  /// Takes a record out of the table for good, unless the capture under way still needs it.
  private mutating func retire(_ record: UnsafeMutableRawPointer) {
    if activeEpoch != 0, unsafe epoch(of: record) < activeEpoch {
      unsafe preserved.append(record)
    } else {
      unsafe free(record)
    }
  }

  private mutating func free(_ record: UnsafeMutableRawPointer) {
    memoryBytes -= Self.recordHeaderBytes + (unsafe capacity(of: record))
    unsafe record.deallocate()
  }

  private mutating func remember(keyBytes: Int, valueBytes: Int, content: UInt64, deadline: UInt64) {
    liveBytes += keyBytes + valueBytes
    contentHash &+= content
    guard deadline != 0 else { return }
    deadlineCount += 1
    earliestDeadline = min(earliestDeadline, deadline)
    walkedEarliest = min(walkedEarliest, deadline)
  }

  private mutating func forget(_ record: UnsafeMutableRawPointer) {
    liveBytes -= unsafe keyBytes(of: record) + valueBytes(of: record)
    contentHash &-= unsafe record.load(as: UInt64.self)
    if unsafe hasDeadline(record) { deadlineCount -= 1 }
  }

  private mutating func grow() {
    let larger = slotCount * 2
    let fresh = UnsafeMutablePointer<Slot>.allocate(capacity: larger)
    unsafe fresh.initialize(repeating: Slot(hash: 0, record: nil), count: larger)
    for position in 0..<slotCount {
      let slot = unsafe slots[position]
      guard unsafe slot.record != nil else { continue }
      var target = Int(truncatingIfNeeded: slot.hash) & (larger - 1)
      while unsafe fresh[target].record != nil { target = (target + 1) & (larger - 1) }
      unsafe fresh[target] = slot
    }
    unsafe slots.deallocate()
    unsafe slots = fresh
    memoryBytes += (larger - slotCount) * MemoryLayout<Slot>.stride
    slotCount = larger
    captureCursor = 0  // records moved: walk again, those taken are marked
  }

  /// Appends key length, value length with the deadline's flag (4 bytes each, little-endian), key, value, and the deadline
  /// where there is one.
  private func emit(_ record: UnsafeMutableRawPointer, into output: inout [UInt8]) {
    let keyBytes = unsafe keyBytes(of: record)
    let bodyBytes = unsafe keyBytes + valueBytes(of: record) + (hasDeadline(record) ? Self.deadlineBytes : 0)
    let valueWord = unsafe record.load(fromByteOffset: 12, as: UInt32.self)
    let lengths = (UInt64(valueWord) << 32 | UInt64(keyBytes)).littleEndian
    unsafe withUnsafeBytes(of: lengths) { unsafe output.append(contentsOf: $0) }
    unsafe output.append(contentsOf: UnsafeRawBufferPointer(start: record + Self.recordHeaderBytes, count: bodyBytes))
  }
}
