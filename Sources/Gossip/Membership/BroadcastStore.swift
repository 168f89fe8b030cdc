import WeirCore

/// The news that waits to be sent: of members, the application's own, and what its delegate offered.
///
/// The first two wait in a transmit-limited queue each, so that neither can push the other out; the third is sent once,
/// in the order offered, because its owner has its own queue and counts for itself.
struct BroadcastStore: ~Copyable {
  private var membership: BroadcastQueue
  private var user: BroadcastQueue
  private var offered: [[UInt8]] = []
  /// What was offered and has not been sent yet.
  private(set) var offeredBytes = 0
  private var userBytes = 0
  private let smallestUserMessageBytes: Int
  private let retransmitMultiplier: Int
  /// Whether everybody passes user messages on, and each must be sent often enough to reach all.
  private let spreadsUserMessages: Bool

  /// Announcements whose message has been sent as often as it will be, or was replaced by a later one.
  var finishedAnnouncements: [UInt64] = []

  private static var maximumOfferedBytes: Int { 65_536 }
  /// Type byte, map head and three short fields: no message about a member is shorter.
  private static var smallestMembershipMessageBytes: Int { 20 }

  init(_ configuration: MembershipConfiguration, hashSeed: UInt64) {
    retransmitMultiplier = max(0, configuration.retransmitMultiplier)
    spreadsUserMessages = configuration.identifiesUserBroadcasts
    membership = BroadcastQueue(
      retransmitMultiplier: retransmitMultiplier,
      maximumCount: max(1, min(configuration.maximumMembers, 1 << 20)), hashSeed: hashSeed)
    user = BroadcastQueue(
      retransmitMultiplier: retransmitMultiplier,
      maximumCount: max(1, min(configuration.maximumQueuedUserBroadcasts, 1 << 20)), hashSeed: hashSeed)
    smallestUserMessageBytes = 1 + (configuration.identifiesUserBroadcasts ? BroadcastIdentity.encodedSizeBytes : 0)
  }

  var isEmpty: Bool { membership.isEmpty && !hasUserBroadcasts }
  var hasUserBroadcasts: Bool { !user.isEmpty || !offered.isEmpty }

  /// What all waiting user messages would take in packets.
  var queuedUserBytes: Int {
    userBytes + offeredBytes + PacketComposer.compoundPartBytes * user.count
      + (PacketComposer.compoundPartBytes + 1) * offered.count
  }

  // MARK: Queueing

  /// Queues news of a member in place of what is still queued of it.
  mutating func queueMembership(name: NodeName, announcementNumber: UInt64?, _ message: [UInt8]) {
    var finished: [UInt64] = []
    // A message about a member is bounded by its name and metadata, far below what the queue refuses; were one longer,
    // it would fit no packet and need not be queued.
    try? membership.queueNamed(
      name.bytes.span.bytes, payload: message.span.bytes, tag: announcementNumber ?? 0
    ) { if $0.tag != 0 { finished.append($0.tag) } }
    finishedAnnouncements += finished
  }

  /// Queues a user message.
  /// - Returns: how many others were dropped for it, the most transmitted first.
  mutating func queueUser(_ message: [UInt8]) -> Int {
    var droppedBytes = 0
    var dropped = 0
    var bytes: [UInt8] = []
    bytes.reserveCapacity(message.count + 1)
    bytes.append(MessageType.user.rawValue)
    bytes.append(contentsOf: message)
    // The tag is the size, so that the sum of all sizes can be kept.
    guard
      (try? user.queueUnique(
        bytes.span.bytes, tag: UInt64(bytes.count),
        onFinish: {
          droppedBytes += Int($0.tag)
          dropped += 1
        })) != nil
    else { return 1 }
    userBytes += bytes.count - droppedBytes
    return dropped
  }

  /// Takes a message to be sent once; false if too many bytes wait already.
  mutating func offer(_ message: [UInt8]) -> Bool {
    guard offeredBytes + message.count <= Self.maximumOfferedBytes else { return false }
    offered.append(message)
    offeredBytes += message.count
    return true
  }

  // MARK: Taking

  /// Adds news of members to a packet.
  /// - Returns: the bytes used, with what the compound adds for each message.
  mutating func takeMembership(limitBytes: Int, nodeCount: Int, into composer: inout PacketComposer) -> Int {
    var finished: [UInt64] = []
    let used = Self.take(
      from: &membership, limitBytes: limitBytes, transmissions: limit(nodeCount: nodeCount),
      smallestBytes: Self.smallestMembershipMessageBytes, into: &composer
    ) { if $0.tag != 0 { finished.append($0.tag) } }
    finishedAnnouncements += finished
    return used
  }

  /// Adds user messages to a packet, queued ones first.
  mutating func takeUser(limitBytes: Int, nodeCount: Int, into composer: inout PacketComposer) {
    var finishedBytes = 0
    var transmissions = limit(nodeCount: nodeCount)
    if spreadsUserMessages {
      transmissions = max(transmissions, Formulas.userBroadcastTransmissions(nodeCount: nodeCount))
    }
    let used = Self.take(
      from: &user, limitBytes: limitBytes, transmissions: transmissions, smallestBytes: smallestUserMessageBytes,
      into: &composer
    ) { finishedBytes += Int($0.tag) }
    userBytes -= finishedBytes
    takeOffered(limitBytes: limitBytes - used, into: &composer)
  }

  /// memberlist's count of transmissions.
  private func limit(nodeCount: Int) -> Int {
    Formulas.retransmitLimit(multiplier: retransmitMultiplier, nodeCount: nodeCount)
  }

  private static func take(
    from queue: inout BroadcastQueue, limitBytes: Int, transmissions: Int, smallestBytes: Int,
    into composer: inout PacketComposer, onFinish: (FinishedBroadcast) -> Void
  ) -> Int {
    guard !queue.isEmpty, limitBytes > 0 else { return 0 }
    // A compound holds 255 messages. Two takes fill it, so neither may find more than half of that: where messages can
    // be tiny, each is counted as a little longer than it is.
    let overhead = max(PacketComposer.compoundPartBytes, limitBytes / 120 - smallestBytes + 1)
    var used = 0
    queue.take(
      overheadBytes: overhead, limitBytes: limitBytes, transmissions: transmissions, onFinish: onFinish
    ) { payload in
      used += PacketComposer.compoundPartBytes + payload.byteCount
      composer.add(payload)
    }
    return used
  }

  private mutating func takeOffered(limitBytes: Int, into composer: inout PacketComposer) {
    var used = 0
    var taken = 0
    for message in offered {
      used += message.count + 1 + PacketComposer.compoundPartBytes
      guard used <= limitBytes, !composer.isFull else { break }
      composer.add(prefix: MessageType.user.rawValue, message)
      offeredBytes -= message.count
      taken += 1
    }
    // One that fits no packet at all must not hold up the others for ever.
    if taken == 0, composer.count == 0, let first = offered.first {
      offeredBytes -= first.count
      taken = 1
    }
    offered.removeFirst(taken)
  }
}
