import CWeir

/// One shard's keys and values: an open-addressing table of pointers to records.
///
/// A set of an existing key costs one probe (two cache misses), a comparison and a copy; a new key adds one
/// allocation. A pointer table was chosen over Swift's Dictionary because the latter allocates an array per value and
/// hashes through a witness; both lie on the path of every committed entry.
///
/// Snapshots are captured record by record while the table goes on changing. Each record carries the number of the last
/// snapshot that need not take it: capture number `s` takes records with another number, once, and marks them. While a
/// capture runs, a record that was not taken yet is never overwritten: the write makes a new record, numbered `s`, and
/// keeps the old one in `preserved`, where the capture finds it. So the capture sees exactly the state at the moment it
/// began, and each write pays one allocation more, not a copy of the shard. Of a key there are never more than two records,
/// the one that the capture saw and the newest: what is written over the latter is not kept.
///
/// Record, in one allocation: content hash (8 bytes), shape (8), key, value, and the deadline (8, milliseconds since 1970)
/// where there is one: keys that live for ever, of which a cache may have a hundred million, pay nothing for those that do
/// not. The shape has, from its lowest bit on, the number of a capture (12 bits), whether there is a deadline (1), the size
/// of the key (13) and of the value (21), and the size of the memory behind these 16 bytes, in units of 16 (17). With a key
/// of 16 bytes and a value of 128 that is 160 bytes, a size that allocators have; 8 bytes more would be 192.
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

  private static let recordHeaderBytes = 16
  private static let deadlineBytes = 8
  /// Captures are numbered up to here, then from 1 again; 0 is none.
  static let mostCaptureNumbers = captureMask
  private static let captureMask: UInt64 = 1 << 12 - 1
  private static let deadlineFlag: UInt64 = 1 << 12

  private var slots: UnsafeMutablePointer<Slot>
  private var slotCount: Int
  private var preserved: [UnsafeMutableRawPointer] = unsafe []
  /// Whether what a capture under way still needs is kept for it; else that capture is good for nothing.
  var preserves = true
  /// Size of the allocations in `preserved`, in bytes.
  private(set) var preservedBytes = 0
  /// The number of the capture under way, or 0.
  private var activeCapture: UInt64 = 0
  /// The capture that new records belong behind: the last one begun.
  private var latestCapture: UInt64 = 0
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
        unsafe write(
          record, keyBytes: key.byteCount, value: value, capacity: capacity(of: record), content: content,
          deadline: deadline)
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
    if activeCapture != 0 { captureCursor = 0 }  // records moved: walk again, those taken are marked
    return true
  }

  // MARK: Capturing

  /// Begins the `count`th capture, from 1, later than any before. Only one runs at a time.
  mutating func beginCapture(_ count: UInt64) {
    precondition(activeCapture == 0 && count > 0, "captures run one at a time")
    let number = (count - 1) % Self.mostCaptureNumbers + 1
    // The numbers begin again: what a record has from last time would count as taken.
    if number <= latestCapture { forgetCaptures() }
    activeCapture = number
    latestCapture = number
    captureCursor = 0
  }

  private func forgetCaptures() {
    for position in 0..<slotCount {
      if let record = unsafe slots[position].record { unsafe setCapture(of: record, to: 0) }
    }
  }

  /// Appends records to `output` until it holds `maximumBytes` or more, looking at `maximumSlots` slots at most, so
  /// that the shard is locked for a bounded time. Returns whether the shard is done, which also ends its capture.
  mutating func capture(into output: inout [UInt8], maximumBytes: Int, maximumSlots: Int = 512) -> Bool {
    guard activeCapture != 0 else { return true }
    var looked = 0
    while captureCursor < slotCount, looked < maximumSlots, output.count < maximumBytes {
      prefetchCaptured(captureCursor &+ 8)
      if let record = unsafe slots[captureCursor].record, unsafe isAwaited(record) {
        unsafe emit(record, into: &output)
        unsafe setCapture(of: record, to: activeCapture)
      }
      captureCursor += 1
      looked += 1
    }
    guard captureCursor == slotCount else { return false }
    capturePreserved(into: &output, maximumBytes: maximumBytes)
    guard unsafe preserved.isEmpty else { return false }
    activeCapture = 0
    return true
  }

  /// Appends records that are in memory for the capture alone until `output` holds `maximumBytes` or more, and lets go of
  /// them.
  mutating func capturePreserved(into output: inout [UInt8], maximumBytes: Int) {
    while output.count < maximumBytes, let record = unsafe takePreserved() {
      unsafe emit(record, into: &output)
      unsafe free(record)
    }
  }

  private mutating func takePreserved() -> UnsafeMutableRawPointer? {
    guard let record = unsafe preserved.popLast() else { return nil }
    preservedBytes -= unsafe allocatedBytes(of: record)
    return unsafe record
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
    activeCapture = 0
    while let record = unsafe takePreserved() { unsafe free(record) }
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

  private func shape(of record: UnsafeMutableRawPointer) -> UInt64 {
    unsafe record.load(fromByteOffset: 8, as: UInt64.self)
  }

  private func keyBytes(of record: UnsafeMutableRawPointer) -> Int { Int(unsafe shape(of: record) >> 13 & 0x1FFF) }

  private func valueBytes(of record: UnsafeMutableRawPointer) -> Int { Int(unsafe shape(of: record) >> 26 & 0x1F_FFFF) }

  private func capacity(of record: UnsafeMutableRawPointer) -> Int { Int(unsafe shape(of: record) >> 47) * 16 }

  private func allocatedBytes(of record: UnsafeMutableRawPointer) -> Int {
    Self.recordHeaderBytes + (unsafe capacity(of: record))
  }

  private func hasDeadline(_ record: UnsafeMutableRawPointer) -> Bool {
    unsafe shape(of: record) & Self.deadlineFlag != 0
  }

  /// When the record's key ends, or 0.
  private func deadline(of record: UnsafeMutableRawPointer) -> UInt64 {
    guard unsafe hasDeadline(record) else { return 0 }
    let offset = unsafe Self.recordHeaderBytes + keyBytes(of: record) + valueBytes(of: record)
    return unsafe UInt64(littleEndian: record.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  /// Whether the capture under way has still to take this record.
  private func isAwaited(_ record: UnsafeMutableRawPointer) -> Bool {
    unsafe activeCapture != 0 && shape(of: record) & Self.captureMask != activeCapture
  }

  private func setCapture(of record: UnsafeMutableRawPointer, to number: UInt64) {
    let shape = unsafe shape(of: record) & ~Self.captureMask | number
    unsafe record.storeBytes(of: shape, toByteOffset: 8, as: UInt64.self)
  }

  private func mayOverwrite(_ record: UnsafeMutableRawPointer, neededBytes needed: Int) -> Bool {
    let capacity = unsafe capacity(of: record)
    // A record of 1 MiB that shrank to 10 bytes would hold its memory for ever: more than half unused is not reused.
    guard needed <= capacity, capacity <= 2 * needed + 64 else { return false }
    return unsafe !isAwaited(record)
  }

  private mutating func allocate(
    key: RawSpan, value: RawSpan, content: UInt64, deadline: UInt64
  ) -> UnsafeMutableRawPointer {
    precondition(
      key.byteCount <= Command.maximumKeyBytes && value.byteCount <= Command.maximumValueBytes,
      "a command's key and value, whose sizes fit into a shape")
    let capacity = (key.byteCount + value.byteCount + Self.deadlineBytes(deadline) + 15) & ~15
    let record = UnsafeMutableRawPointer.allocate(
      byteCount: Self.recordHeaderBytes + capacity, alignment: MemoryLayout<UInt64>.alignment)
    memoryBytes += Self.recordHeaderBytes + capacity
    let body = unsafe record + Self.recordHeaderBytes
    unsafe key.withUnsafeBytes { bytes in
      if let base = bytes.baseAddress { unsafe body.copyMemory(from: base, byteCount: bytes.count) }
    }
    unsafe write(
      record, keyBytes: key.byteCount, value: value, capacity: capacity, content: content, deadline: deadline)
    return unsafe record
  }

  /// Writes value and header of a record whose key is there.
  private func write(
    _ record: UnsafeMutableRawPointer, keyBytes: Int, value: RawSpan, capacity: Int, content: UInt64, deadline: UInt64
  ) {
    let valueEnd = keyBytes + value.byteCount
    precondition(capacity >= valueEnd + Self.deadlineBytes(deadline), "the record is too small")
    let sizes = UInt64(capacity / 16) << 47 | UInt64(value.byteCount) << 26 | UInt64(keyBytes) << 13
    let shape = sizes | (deadline == 0 ? 0 : Self.deadlineFlag) | latestCapture
    unsafe record.storeBytes(of: content, as: UInt64.self)
    unsafe record.storeBytes(of: shape, toByteOffset: 8, as: UInt64.self)
    let body = unsafe record + Self.recordHeaderBytes
    unsafe value.withUnsafeBytes { bytes in
      if let base = bytes.baseAddress { unsafe (body + keyBytes).copyMemory(from: base, byteCount: bytes.count) }
    }
    if deadline != 0 { unsafe body.storeBytes(of: deadline.littleEndian, toByteOffset: valueEnd, as: UInt64.self) }
  }

  /// Takes a record out of the table for good, unless the capture under way still needs it.
  private mutating func retire(_ record: UnsafeMutableRawPointer) {
    if preserves, unsafe isAwaited(record) {
      unsafe preserved.append(record)
      preservedBytes += unsafe allocatedBytes(of: record)
    } else {
      unsafe free(record)
    }
  }

  private mutating func free(_ record: UnsafeMutableRawPointer) {
    memoryBytes -= unsafe allocatedBytes(of: record)
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
    let valueBytes = unsafe valueBytes(of: record)
    let hasDeadline = unsafe hasDeadline(record)
    let bodyBytes = keyBytes + valueBytes + (hasDeadline ? Self.deadlineBytes : 0)
    let valueWord = UInt64(valueBytes) | (hasDeadline ? StateCapture.deadlineFlag : 0)
    let lengths = (valueWord << 32 | UInt64(keyBytes)).littleEndian
    unsafe withUnsafeBytes(of: lengths) { unsafe output.append(contentsOf: $0) }
    unsafe output.append(contentsOf: UnsafeRawBufferPointer(start: record + Self.recordHeaderBytes, count: bodyBytes))
  }
}
