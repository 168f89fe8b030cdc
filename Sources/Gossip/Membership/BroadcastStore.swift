/// The news that waits to be sent: of members, and the application's.
struct BroadcastStore {
  struct Item {
    var name: NodeName?
    var bytes: [UInt8]
    var transmissions = 0
    var order: UInt64
    var announcementNumber: UInt64?
  }
  private var membership: [Item] = []
  private var user: [Item] = []
  private var order: UInt64 = 0
  private var transient: [[UInt8]] = []
  private var transientBytes = 0
  var offeredBytes: Int { transientBytes }
  private(set) var queuedUserBytes = 0
  var finishedAnnouncements: [UInt64] = []

  var isEmpty: Bool { membership.isEmpty && !hasUserBroadcasts }
  var hasUserBroadcasts: Bool { !user.isEmpty || !transient.isEmpty }

  mutating func queueMembership(name: NodeName, announcementNumber: UInt64?, _ message: [UInt8]) {
    if let index = membership.firstIndex(where: { $0.name == name }) {
      if let number = membership[index].announcementNumber { finishedAnnouncements.append(number) }
      membership.remove(at: index)
    }
    order += 1
    membership.append(Item(name: name, bytes: message, order: order, announcementNumber: announcementNumber))
  }

  mutating func queueUser(_ message: [UInt8], maximumCount: Int) -> Int {
    order += 1
    user.append(Item(name: nil, bytes: [MessageType.user.rawValue] + message, order: order))
    queuedUserBytes += message.count + 3
    guard user.count > max(0, maximumCount) else { return 0 }
    // The most transmitted one, the oldest among equals, has reached the most members already.
    var worst = 0
    for index in user.indices
    where (user[index].transmissions, user[worst].order) > (user[worst].transmissions, user[index].order) {
      worst = index
    }
    queuedUserBytes -= user.remove(at: worst).bytes.count + 2
    return 1
  }

  mutating func offer(_ message: [UInt8]) -> Bool {
    guard transientBytes + message.count <= 65_536 else { return false }
    transient.append(message)
    transientBytes += message.count
    queuedUserBytes += message.count + 3
    return true
  }

  mutating func takeMembership(limitBytes: Int, retransmitLimit: Int, into composer: inout PacketComposer) -> Int {
    Self.take(
      from: &membership, limitBytes: limitBytes, retransmitLimit: retransmitLimit, into: &composer,
      finished: &finishedAnnouncements)
  }

  mutating func takeUser(limitBytes: Int, retransmitLimit: Int, into composer: inout PacketComposer) {
    let used = Self.take(
      from: &user, limitBytes: limitBytes, retransmitLimit: retransmitLimit, into: &composer,
      finished: &finishedAnnouncements)
    takeTransient(limitBytes: limitBytes - used, into: &composer)
    queuedUserBytes = user.reduce(0) { $0 + $1.bytes.count + 2 } + transientBytes + 3 * transient.count
  }

  /// Messages that are sent once, in the order in which they were offered.
  private mutating func takeTransient(limitBytes: Int, into composer: inout PacketComposer) {
    var used = 0
    var taken = 0
    for message in transient {
      used += message.count + 3
      guard used <= limitBytes, !composer.isFull else { break }
      composer.add(prefix: MessageType.user.rawValue, message)
      transientBytes -= message.count
      taken += 1
    }
    transient.removeFirst(taken)
  }

  private static func take(
    from items: inout [Item], limitBytes: Int, retransmitLimit: Int, into composer: inout PacketComposer,
    finished: inout [UInt64]
  ) -> Int {
    guard !items.isEmpty else { return 0 }
    items.sort {
      $0.transmissions != $1.transmissions
        ? $0.transmissions < $1.transmissions
        : $0.bytes.count != $1.bytes.count ? $0.bytes.count > $1.bytes.count : $0.order > $1.order
    }
    var used = 0
    var kept: [Item] = []
    for var item in items {
      if used + 2 + item.bytes.count <= limitBytes, !composer.isFull {
        used += 2 + item.bytes.count
        composer.add(item.bytes)
        item.transmissions += 1
        if item.transmissions >= retransmitLimit {
          if let number = item.announcementNumber { finished.append(number) }
          continue
        }
      }
      kept.append(item)
    }
    items = kept
    return used
  }
}
