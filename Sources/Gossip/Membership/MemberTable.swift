/// Everything known of one member.
struct MemberRecord {
  let name: NodeName
  var address: GossipAddress
  var metadata: [UInt8]
  /// How the member writes empty metadata; kept so that it is passed on as it came.
  var isEmptyMetadataNil: Bool
  var versions: ProtocolVersions
  var incarnation: UInt32
  var state: NodeStateKind
  /// When `state` last changed.
  var stateChangeNanoseconds: UInt64
  /// Running while the member is suspected.
  var suspicion: Suspicion?

  var isDeadOrLeft: Bool { state == .dead || state == .left }
}

/// The members known, the local one included, found by name and walked in the random order of the probe ring.
///
/// A member keeps its slot as long as it is known, so running probes refer to it cheaply; every use of a kept slot
/// checks the name, because a reaped member's slot is given to the next one.
struct MemberTable {
  private var slots: [MemberRecord?] = []
  private var freeSlots: [Int] = []
  /// Looked up only, never walked: its order is not the same in two processes.
  private var slotOfName: [NodeName: Int] = [:]
  /// The slots in use, in probe order.
  private(set) var ring: [Int] = []
  private var scratch: [Int] = []

  /// Members of any state that are not yet reaped.
  var count: Int { ring.count }

  func slot(of name: NodeName) -> Int? { slotOfName[name] }

  /// The member in a slot that is known to be in use.
  subscript(slot: Int) -> MemberRecord {
    _read {
      guard let record = slots[slot] else { preconditionFailure("slot \(slot) holds no member") }
      yield record
    }
    _modify {
      guard var record = slots[slot] else { preconditionFailure("slot \(slot) holds no member") }
      slots[slot] = nil
      yield &record
      slots[slot] = record
    }
  }

  /// The name of the member in a slot, or nil if the slot is free.
  func name(inSlot slot: Int) -> NodeName? {
    slot < slots.count ? slots[slot]?.name : nil
  }

  /// Whether the slot is still that member's own.
  func isMember(_ name: NodeName, inSlot slot: Int) -> Bool {
    slot < slots.count && slots[slot]?.name == name
  }

  /// Adds a member at a random place of the ring, so that a joining crowd is not probed in the order of arrival by
  /// everybody at once.
  mutating func insert(_ record: MemberRecord, random: inout GossipRandom) -> Int {
    let slot: Int
    if let free = freeSlots.popLast() {
      slots[free] = record
      slot = free
    } else {
      slot = slots.count
      slots.append(record)
    }
    slotOfName[record.name] = slot
    ring.append(slot)
    ring.swapAt(random.below(ring.count), ring.count - 1)
    return slot
  }

  /// Forgets the members for which `isOver` holds, then shuffles the ring.
  mutating func reap(
    random: inout GossipRandom, where isOver: (borrowing MemberRecord) -> Bool
  ) {
    var kept = 0
    for index in ring.indices {
      let slot = ring[index]
      if let record = slots[slot], isOver(record) {
        slotOfName[record.name] = nil
        slots[slot] = nil
        freeSlots.append(slot)
      } else {
        ring[kept] = slot
        kept += 1
      }
    }
    ring.removeLast(ring.count - kept)
    Self.shuffle(&ring, random: &random)
  }

  /// Up to `limit` different members that satisfy `isEligible`, in random order, appended to `chosen`.
  ///
  /// A small table is shuffled and scanned whole, which cannot miss an eligible member; a large one is sampled
  /// `3 × count` times at most.
  mutating func choose(
    _ limit: Int, random: inout GossipRandom, into chosen: inout [Int],
    where isEligible: (Int, borrowing MemberRecord) -> Bool
  ) {
    chosen.removeAll(keepingCapacity: true)
    guard limit > 0, !ring.isEmpty else { return }
    if ring.count < 3 * limit {
      scratch.removeAll(keepingCapacity: true)
      scratch.append(contentsOf: ring)
      Self.shuffle(&scratch, random: &random)
      for slot in scratch {
        if let record = slots[slot], isEligible(slot, record) { chosen.append(slot) }
        if chosen.count == limit { return }
      }
      return
    }
    for _ in 0..<(3 * ring.count) {
      let slot = ring[random.below(ring.count)]
      guard !chosen.contains(slot), let record = slots[slot], isEligible(slot, record) else { continue }
      chosen.append(slot)
      if chosen.count == limit { return }
    }
  }

  private static func shuffle(_ slots: inout [Int], random: inout GossipRandom) {
    guard slots.count > 1 else { return }
    for index in stride(from: slots.count - 1, to: 0, by: -1) {
      slots.swapAt(index, random.below(index + 1))
    }
  }
}
