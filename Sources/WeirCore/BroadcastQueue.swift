// Cost of queueing 128 bytes in the place of one of the same name: hash and probe of the name, a slot of one cache line, a
// copy of 128 bytes, and two changes in a list; no search, whatever is queued. Expected: four dependent accesses beyond
// the first-level cache, 40 ns. If the one it replaces was sent already, a removal from `BroadcastOrder` besides.
// Cost of taking 10: 10 descents of the order that remove and 10 that insert one tier up (`BroadcastOrder`), and the
// visits; of what was not sent yet, 10 ends of a list instead of the former.
//
// Measured (2-core EPYC 9005, medians of CPU time): replacing a random one of 1,000 34 ns, of 10,000 44 ns (an array scan:
// 26,000 and 280,000); taking 10 from 10,000 0.51 us (an array scan: 145). Instructions: 580 and 9,400.

/// Gossip broadcasts that wait to be piggybacked on packets, each as often as the size of the cluster asks for: the
/// semantics of memberlist's TransmitLimitedQueue.
///
/// Order: fewest transmissions first, then the **longest** message, then the newest. (Longest before newest packs packets
/// tightly: the message that fits the remaining space best is found first.)
///
/// A take goes through the tiers of equally often sent messages from the least sent on. In each it picks the longest
/// that fits into what is left, again and again, then goes on to the next tier. Each pick is one transmission. Picked messages
/// that have not reached the limit return one tier up after the take, so none is taken twice in one.
///
/// A message larger than what any take offers is never sent and never finished, until something replaces or prunes it.
@safe
public struct BroadcastQueue: ~Copyable {
  /// The largest payload, in bytes: no datagram holds more.
  public static var maximumPayloadBytes: Int { 65_535 }
  /// The longest name or key, in bytes.
  public static var maximumNameBytes: Int { 65_535 }

  private typealias Slot = BroadcastSlot
  private static var inlineNameBytes: Int { BroadcastSlot.inlineNameBytes }

  private let retransmitMultiplier: Int
  private let hashSeed: UInt64
  private let maximumCount: Int
  // What was not sent yet, and what was: where a broadcast stands follows from the transmissions in its key.
  private var unsent = BroadcastLists(capacity: 64)
  private var sent = BroadcastOrder()
  private var names = BroadcastNames()
  private var memory = BroadcastMemory()
  private var slots: UnsafeMutableBufferPointer<Slot>
  private var slotsUsed = 0
  private var firstFree: UInt32 = 0
  private var taken: UnsafeMutableBufferPointer<UInt32>
  private var lastID: UInt64

  /// - Parameters:
  ///   - retransmitMultiplier: see `retransmitLimit`; memberlist's default in a LAN is 4.
  ///   - maximumCount: what is queued beyond that many is pruned at once.
  ///   - hashSeed: a random number where names come from strangers, so that they cannot choose ones that collide.
  public init(retransmitMultiplier: Int = 4, maximumCount: Int = 1 << 20, hashSeed: UInt64 = 0) {
    self.init(retransmitMultiplier: retransmitMultiplier, maximumCount: maximumCount, hashSeed: hashSeed, lastID: 0)
  }

  init(retransmitMultiplier: Int, maximumCount: Int, hashSeed: UInt64, lastID: UInt64) {
    require(retransmitMultiplier >= 0, "a multiplier is not negative")
    require(maximumCount > 0 && maximumCount < Int(UInt32.max) - 1, "maximumCount outside of 1 ..< 2^32 - 2")
    self.retransmitMultiplier = retransmitMultiplier
    self.maximumCount = maximumCount
    self.hashSeed = hashSeed
    self.lastID = lastID
    unsafe slots = BroadcastSlot.allocate(64)
    unsafe taken = .allocate(capacity: 64)
  }

  deinit {
    unsafe slots.deallocate()
    unsafe taken.deallocate()
  }

  /// Number of broadcasts in the queue.
  public var count: Int { unsent.count + sent.count }
  public var isEmpty: Bool { count == 0 }

  /// All memory the queue holds, in bytes. It grows to what the fullest moment needed, and is reused from there.
  public var memoryBytes: Int {
    unsafe unsent.memoryBytes + sent.memoryBytes + names.memoryBytes + memory.memoryBytes
      + slots.count * MemoryLayout<Slot>.stride + taken.count * MemoryLayout<UInt32>.stride
  }

  /// How often a message is sent in a cluster of `nodeCount` members: multiplier × ⌈log10(nodeCount + 1)⌉, at most 255.
  public static func retransmitLimit(multiplier: Int, nodeCount: Int) -> Int {
    // ⌈log10(n + 1)⌉ is the number of decimal digits of n, in whole numbers and without rounding.
    var digits = 0
    var rest = max(nodeCount, 0)
    while rest > 0 {
      digits += 1
      rest /= 10
    }
    let limit = multiplier.multipliedReportingOverflow(by: digits)
    return limit.overflow ? 255 : min(limit.partialValue, 255)
  }

  // MARK: Queueing

  /// Queues a broadcast that takes the place of the queued one of the same name. An empty name replaces nothing.
  /// - Parameters:
  ///   - tag: comes back when the broadcast is finished.
  ///   - onFinish: called for what this one replaces, before it is queued.
  public mutating func queueNamed(
    _ name: RawSpan, payload: RawSpan, tag: UInt64 = 0, onFinish: (FinishedBroadcast) -> Void = { _ in }
  ) throws(BroadcastQueueError) {
    try queue(.named, name: name, payload: payload, tag: tag, onFinish: onFinish)
  }

  /// Queues a broadcast that invalidates nothing and is invalidated by nothing.
  public mutating func queueUnique(
    _ payload: RawSpan, tag: UInt64 = 0, onFinish: (FinishedBroadcast) -> Void = { _ in }
  ) throws(BroadcastQueueError) {
    try queue(.unique, name: RawSpan(), payload: payload, tag: tag, onFinish: onFinish)
  }

  /// Queues a plain broadcast. With a key it invalidates the queued plain one of the same key, found by hash and not by a
  /// scan; with an empty key it invalidates nothing.
  public mutating func queuePlain(
    _ payload: RawSpan, key: RawSpan = RawSpan(), tag: UInt64 = 0, onFinish: (FinishedBroadcast) -> Void = { _ in }
  ) throws(BroadcastQueueError) {
    try queue(.plain, name: key, payload: payload, tag: tag, onFinish: onFinish)
  }

  /// Queues a plain broadcast that invalidates every queued plain one for which `invalidates` says yes, in the order of the
  /// queue, as memberlist does it. Scans the queue: O(n); where what is invalidated can be named, a key is for that.
  public mutating func queuePlain(
    _ payload: RawSpan, key: RawSpan = RawSpan(), tag: UInt64 = 0,
    onFinish: (FinishedBroadcast) -> Void = { _ in },
    invalidates: (_ payload: RawSpan, _ tag: UInt64) -> Bool
  ) throws(BroadcastQueueError) {
    try Self.check(name: key, payload: payload)
    var next = first
    while let index = next {
      next = following(index)
      let slot = unsafe slots[Int(index)]
      guard slot.kind == .plain else { continue }
      if unsafe invalidates(RawSpan(_unsafeBytes: slot.payload), slot.tag) {
        finish(index, reason: .invalidated, onFinish: onFinish)
      }
    }
    try queue(.plain, name: key, payload: payload, tag: tag, onFinish: onFinish)
  }

  private static func check(name: RawSpan, payload: RawSpan) throws(BroadcastQueueError) {
    guard payload.byteCount <= maximumPayloadBytes else {
      throw .payloadTooLarge(byteCount: payload.byteCount, maximumByteCount: maximumPayloadBytes)
    }
    guard name.byteCount <= maximumNameBytes else {
      throw .nameTooLong(byteCount: name.byteCount, maximumByteCount: maximumNameBytes)
    }
  }

  private mutating func queue(
    _ kind: BroadcastKind, name: RawSpan, payload: RawSpan, tag: UInt64, onFinish: (FinishedBroadcast) -> Void
  ) throws(BroadcastQueueError) {
    try Self.check(name: name, payload: payload)
    let isFindable = name.byteCount > 0
    let hash = isFindable ? BroadcastNames.hash(name, kind: kind.rawValue, seed: hashSeed) : 0
    if isFindable, let old = find(hash, kind: kind, name: name) {
      let oldTag = replace(old, name: name, payload: payload, tag: tag)
      onFinish(FinishedBroadcast(tag: oldTag, kind: kind, reason: .invalidated))
      return
    }
    let index = takeSlot()
    let key = nextKey(payloadBytes: payload.byteCount)
    let isShort = name.byteCount <= Self.inlineNameBytes
    let blockNameBytes = isShort ? 0 : name.byteCount
    let sizeClass = BroadcastMemory.sizeClass(blockNameBytes + payload.byteCount)
    let block = unsafe memory.take(sizeClass)
    if !isShort { unsafe BroadcastSlot.copy(name, to: block) }
    unsafe BroadcastSlot.copy(payload, to: block + blockNameBytes)
    var slot = unsafe Slot(key: key, tag: tag, block: block)
    slot.nameBytes = UInt16(name.byteCount)
    slot.payloadBytes = UInt16(payload.byteCount)
    if isShort { slot.name = BroadcastSlot.packed(name) }
    slot.hash = hash
    slot.kind = kind
    slot.sizeClass = UInt8(sizeClass)
    slot.isFindable = isFindable
    unsafe slots[Int(index)] = slot
    unsent.putNewest(index, length: payload.byteCount)
    if isFindable { names.insert(hash, slot: index) }
    if count > maximumCount { prune(keeping: maximumCount, onFinish: onFinish) }
  }

  /// Puts a new broadcast in the place of the queued one of its name. The slot, its entry among the names and, where the
  /// size allows it, the memory stay: less is touched than by taking out and putting in.
  /// - Returns: the tag of the old one.
  private mutating func replace(_ index: UInt32, name: RawSpan, payload: RawSpan, tag: UInt64) -> UInt64 {
    takeOutOfOrder(index)
    let key = nextKey(payloadBytes: payload.byteCount)
    let oldTag = unsafe slots[Int(index)].tag
    let blockNameBytes = name.byteCount <= Self.inlineNameBytes ? 0 : name.byteCount
    let sizeClass = BroadcastMemory.sizeClass(blockNameBytes + payload.byteCount)
    let oldClass = unsafe Int(slots[Int(index)].sizeClass)
    if sizeClass != oldClass {
      if let block = unsafe slots[Int(index)].block { unsafe memory.give(block, oldClass) }
      let block = unsafe memory.take(sizeClass)
      if blockNameBytes > 0 { unsafe BroadcastSlot.copy(name, to: block) }
      unsafe slots[Int(index)].block = block
      unsafe slots[Int(index)].sizeClass = UInt8(sizeClass)
    }
    if let block = unsafe slots[Int(index)].block { unsafe BroadcastSlot.copy(payload, to: block + blockNameBytes) }
    unsafe slots[Int(index)].key = key
    unsafe slots[Int(index)].tag = tag
    unsafe slots[Int(index)].payloadBytes = UInt16(payload.byteCount)
    unsent.putNewest(index, length: payload.byteCount)
    return oldTag
  }

  /// The key of what is queued now.
  private mutating func nextKey(payloadBytes: Int) -> UInt64 {
    if lastID == BroadcastKey.maximumID { renumber() }
    lastID += 1
    return BroadcastKey.make(transmits: 0, payloadBytes: payloadBytes, id: lastID)
  }

  // MARK: Taking

  /// Takes the broadcasts for one packet: calls `visit` with each payload, in the order of the queue. Each visit is one
  /// transmission. The bytes are borrowed: they are to be copied within the call.
  /// - Parameters:
  ///   - overheadBytes: what each message costs besides its payload.
  ///   - limitBytes: what all messages may cost, overhead included.
  ///   - nodeCount: size of the cluster now, for the retransmit limit.
  ///   - onFinish: called for each broadcast that has been sent often enough, behind its visit.
  /// - Returns: the number of payloads visited.
  @discardableResult
  public mutating func take(
    overheadBytes: Int, limitBytes: Int, nodeCount: Int, onFinish: (FinishedBroadcast) -> Void = { _ in },
    visit: (RawSpan) -> Void
  ) -> Int {
    take(
      overheadBytes: overheadBytes, limitBytes: limitBytes,
      transmissions: Self.retransmitLimit(multiplier: retransmitMultiplier, nodeCount: nodeCount), onFinish: onFinish,
      visit: visit)
  }

  /// The same where the caller says how often each broadcast is sent in all.
  @discardableResult
  public mutating func take(
    overheadBytes: Int, limitBytes: Int, transmissions limit: Int, onFinish: (FinishedBroadcast) -> Void = { _ in },
    visit: (RawSpan) -> Void
  ) -> Int {
    var left = limitBytes
    var tier: UInt64 = 0
    var visited = 0
    var returning = 0
    while let index = takeNext(freeBytes: left - overheadBytes, tier: &tier) {
      let slot = unsafe slots[Int(index)]
      unsafe visit(RawSpan(_unsafeBytes: slot.payload))
      visited += 1
      left -= overheadBytes + Int(slot.payloadBytes)
      if Int(tier) + 1 >= limit {
        forget(index, reason: .transmitted, onFinish: onFinish)
      } else {
        keepForReturn(index, at: returning)
        returning += 1
      }
    }
    for position in 0..<returning {
      let index = unsafe taken[position]
      let key = BroadcastKey.nextTier(unsafe slots[Int(index)].key)
      unsafe slots[Int(index)].key = key
      sent.insert(key, slot: index)
    }
    restartIDsIfEmpty()
    return visited
  }

  /// Takes the longest broadcast that fits out of `tier`, or, if none there does, out of the next tier where one does.
  private mutating func takeNext(freeBytes: Int, tier: inout UInt64) -> UInt32? {
    if freeBytes <= 0 { return nil }
    if tier == 0 {
      if let index = unsent.newest(atMost: freeBytes) {
        unsent.remove(index, length: unsafe Int(slots[Int(index)].payloadBytes))
        return index
      }
      tier = 1
    }
    while true {
      let end = BroadcastKey.tierStart(tier + 1)
      let from = BroadcastKey.longest(transmits: tier, payloadBytes: freeBytes)
      if let item = sent.removeCeiling(from, below: end) { return item.slot }
      guard let next = sent.ceiling(end) else { return nil }
      tier = BroadcastKey.transmits(next.key)
    }
  }

  // MARK: Shrinking

  /// Drops broadcasts from the most often sent end (there the shortest, of those the oldest, first) until `count` are left.
  public mutating func prune(keeping count: Int, onFinish: (FinishedBroadcast) -> Void = { _ in }) {
    while self.count > max(count, 0), let last = sent.maximum?.slot ?? unsent.last {
      finish(last, reason: .pruned, onFinish: onFinish)
    }
  }

  /// Drops everything, finishing each in the order of the queue.
  public mutating func reset(onFinish: (FinishedBroadcast) -> Void = { _ in }) {
    while let first { finish(first, reason: .reset, onFinish: onFinish) }
  }

  /// Calls `body` with each queued broadcast in the order of the queue.
  public func forEach(
    _ body: (_ payload: RawSpan, _ kind: BroadcastKind, _ transmissions: Int, _ tag: UInt64) -> Void
  ) {
    var next = first
    while let index = next {
      next = following(index)
      let slot = unsafe slots[Int(index)]
      let payload = unsafe RawSpan(_unsafeBytes: slot.payload)
      body(payload, slot.kind, Int(BroadcastKey.transmits(slot.key)), slot.tag)
    }
  }

  // MARK: Order

  /// The first broadcast of the queue.
  private var first: UInt32? { unsent.first ?? sent.ceiling(0)?.slot }

  /// The broadcast behind a queued one.
  private func following(_ index: UInt32) -> UInt32? {
    let slot = unsafe slots[Int(index)]
    if BroadcastKey.transmits(slot.key) > 0 { return sent.ceiling(slot.key + 1)?.slot }
    return unsent.following(index, length: Int(slot.payloadBytes)) ?? sent.ceiling(0)?.slot
  }

  private mutating func takeOutOfOrder(_ index: UInt32) {
    let key = unsafe slots[Int(index)].key
    if BroadcastKey.transmits(key) == 0 {
      unsent.remove(index, length: unsafe Int(slots[Int(index)].payloadBytes))
    } else {
      let isThere = sent.remove(key)
      precondition(isThere, "a broadcast that was sent is in the order")
    }
  }

  // MARK: Slots

  private mutating func finish(
    _ index: UInt32, reason: FinishedBroadcast.Reason, onFinish: (FinishedBroadcast) -> Void
  ) {
    takeOutOfOrder(index)
    forget(index, reason: reason, onFinish: onFinish)
    restartIDsIfEmpty()
  }

  /// Gives back what a broadcast holds that is out of the order already.
  private mutating func forget(
    _ index: UInt32, reason: FinishedBroadcast.Reason, onFinish: (FinishedBroadcast) -> Void
  ) {
    let slot = unsafe slots[Int(index)]
    if slot.isFindable { names.remove(slot.hash, slot: index) }
    if let block = unsafe slot.block { unsafe memory.give(block, Int(slot.sizeClass)) }
    unsafe slots[Int(index)].block = nil
    unsafe slots[Int(index)].nextFree = firstFree
    firstFree = index + 1
    onFinish(FinishedBroadcast(tag: slot.tag, kind: slot.kind, reason: reason))
  }

  @inline(__always)
  private func find(_ hash: UInt32, kind: BroadcastKind, name: RawSpan) -> UInt32? {
    let isShort = name.byteCount <= Self.inlineNameBytes
    let packed = isShort ? BroadcastSlot.packed(name) : (0, 0, 0)
    return names.find(hash) { index in
      let slot = unsafe slots[Int(index)]
      guard slot.kind == kind, Int(slot.nameBytes) == name.byteCount else { return false }
      if isShort { return slot.name == packed }
      guard let block = unsafe slot.block else { return false }
      return unsafe BroadcastSlot.isEqual(name, block)
    }
  }

  private mutating func takeSlot() -> UInt32 {
    if firstFree > 0 {
      let index = firstFree - 1
      firstFree = unsafe slots[Int(index)].nextFree
      return index
    }
    if unsafe slotsUsed == slots.count {
      let larger = unsafe BroadcastSlot.allocate(2 * slots.count)
      _ = unsafe larger.moveInitialize(fromContentsOf: slots)
      unsafe slots.deallocate()
      unsafe slots = larger
      unsafe unsent.grow(capacity: slots.count)
    }
    unsafe slots.initializeElement(at: slotsUsed, to: Slot())
    slotsUsed += 1
    return UInt32(slotsUsed - 1)
  }

  private mutating func keepForReturn(_ index: UInt32, at position: Int) {
    if unsafe position == taken.count {
      let larger = unsafe UnsafeMutableBufferPointer<UInt32>.allocate(capacity: 2 * taken.count)
      _ = unsafe larger.moveInitialize(fromContentsOf: taken)
      unsafe taken.deallocate()
      unsafe taken = larger
    }
    unsafe taken.initializeElement(at: position, to: index)
  }

  // MARK: Numbers

  /// An idle queue starts numbering again, as memberlist's does.
  private mutating func restartIDsIfEmpty() {
    if isEmpty { lastID = 0 }
  }

  /// Gives everything queued new numbers in the order of the old ones: once in 2^40 broadcasts of a queue that is never
  /// empty. What was not sent yet keeps its place without being moved.
  private mutating func renumber() {
    var queued: [(id: UInt64, slot: UInt32)] = []
    queued.reserveCapacity(count)
    var next = first
    while let index = next {
      next = following(index)
      queued.append((BroadcastKey.id(unsafe slots[Int(index)].key), index))
    }
    queued.sort { $0.id < $1.id }
    sent.removeAll()
    lastID = 0
    for (_, index) in queued {
      lastID += 1
      let slot = unsafe slots[Int(index)]
      let key = BroadcastKey.make(
        transmits: BroadcastKey.transmits(slot.key), payloadBytes: Int(slot.payloadBytes), id: lastID)
      unsafe slots[Int(index)].key = key
      if BroadcastKey.transmits(key) > 0 { sent.insert(key, slot: index) }
    }
  }
}
