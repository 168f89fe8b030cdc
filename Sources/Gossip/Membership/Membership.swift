/// SWIM with Lifeguard, memberlist's dialect, as a value without I/O, clock or threads.
///
/// **Terms.** A *member* has a name, an address, metadata, and an *incarnation* that only it may raise. It is *alive*,
/// *suspect* (did not answer; may still refute), *dead* (the suspicion ran out) or *left* (said goodbye). News of
/// members travels as *broadcasts* that ride on the packets of the failure detector and on those of the gossip tick,
/// each a limited number of times. Now and then two members exchange all they know (*push/pull*).
///
/// **Use.** The shell feeds it packets, stream messages and the time, and after each call does what `outbox` says:
///
///     membership.receive(packet: bytes, from: address, nowNanoseconds: now)
///     perform(membership.outbox)
///     membership.clearOutbox()
///     wake(at: membership.nextDeadlineNanoseconds)   // then: membership.tick(nowNanoseconds:)
///
/// The same seed, configuration and inputs give the same decisions in every process.
///
/// Sources: Das, Gupta, Motivala, "SWIM" (2002); Dadgar, Phillips, Currey, "Lifeguard" (2018); memberlist's
/// behaviour wherever the papers leave a choice.
public struct Membership: ~Copyable {
  public let configuration: MembershipConfiguration
  /// The local member's name.
  public let localName: NodeName
  /// What the last calls decided. The shell performs it and then calls `clearOutbox`.
  public internal(set) var outbox = Outbox()
  /// The local node's own health (0 is best).
  public internal(set) var health: LocalHealth
  /// What the node has done so far.
  public internal(set) var counters = MembershipCounters()
  /// Given with every acknowledgement; nil for none (memberlist's PingDelegate).
  public var ackPayload: [UInt8]?

  var table = MemberTable()
  var localSlot = 0
  var random: GossipRandom
  var deadlines = DeadlineQueue()
  /// The time of the call in progress.
  var now: UInt64
  var hasLeft = false
  var lastIncarnation: UInt32
  var lastSequenceNumber: UInt32 = 0
  var lastSuspicionNumber: UInt64 = 0
  var slotOfSuspicion: [UInt64: Int] = [:]

  var probe: Probe?
  /// A probe tick came while another probe was still running.
  var isProbeDue = false
  var ringPosition = 0
  var relays: [Relay] = []
  var userPings: [UserPing] = []
  var chosen: [Int] = []

  var broadcasts: BroadcastStore
  var isGossipScheduled = false
  var gossipPhaseNanoseconds: UInt64 = 0
  var announcements: [Announcement] = []
  var lastAnnouncementNumber: UInt64 = 0
  var composer = PacketComposer()

  var rememberedPeers: RememberedPeers
  var seenBroadcasts: SeenBroadcasts
  let broadcastOrigin: UInt64
  var lastBroadcastSequence: UInt32 = 0

  /// A membership that knows only itself.
  ///
  /// - Parameters:
  ///   - name: unique in the cluster.
  ///   - address: what others are told to send to.
  ///   - metadata: at most 512 bytes, as every memberlist member assumes.
  ///   - seed: of all random choices.
  ///   - nowNanoseconds: of a clock that never goes back.
  /// - Throws: `MembershipError` for an empty name or metadata over the limit.
  public init(
    name: NodeName, address: GossipAddress, metadata: [UInt8] = [], configuration: MembershipConfiguration,
    seed: UInt64, nowNanoseconds: UInt64
  ) throws(MembershipError) {
    guard !name.isEmpty else { throw .emptyName }
    guard metadata.count <= Self.maximumMetadataBytes else {
      throw .metadataTooLong(byteCount: metadata.count, limitBytes: Self.maximumMetadataBytes)
    }
    self.configuration = configuration
    localName = name
    random = GossipRandom(seed: seed)
    now = nowNanoseconds
    health = LocalHealth(
      maximumMultiplier: configuration.usesLifeguard ? configuration.awarenessMaximumMultiplier : 1)
    lastIncarnation = configuration.startIncarnation
    broadcasts = BroadcastStore(configuration, hashSeed: random.next())
    rememberedPeers = RememberedPeers(capacity: configuration.maximumRememberedPeers)
    seenBroadcasts = SeenBroadcasts(capacity: configuration.rememberedBroadcasts)
    broadcastOrigin = random.next()
    localSlot = table.insert(
      MemberRecord(
        name: name, address: address, metadata: metadata, isEmptyMetadataNil: metadata.isEmpty,
        versions: configuration.versions, incarnation: 0, state: .dead, stateChangeNanoseconds: nowNanoseconds),
      random: &random)
    announceSelf(number: nil)
    scheduleFirstTicks()
  }

  /// The most metadata a member may carry (memberlist's `MetaMaxSize`).
  public static let maximumMetadataBytes = 512

  // MARK: Time

  /// When `tick` wants to be called next, or `UInt64.max`.
  public var nextDeadlineNanoseconds: UInt64 { deadlines.earliestNanoseconds }

  /// Does all that is due.
  public mutating func tick(nowNanoseconds: UInt64) {
    advance(to: nowNanoseconds)
    while let due = deadlines.takeDue(nowNanoseconds: now) {
      switch due.kind {
      case .probe: probeTick(scheduledAtNanoseconds: due.timeNanoseconds)
      case .gossip: gossipTick(scheduledAtNanoseconds: due.timeNanoseconds)
      case .pushPull: pushPullTick(scheduledAtNanoseconds: due.timeNanoseconds)
      case .probeTimeout: probeTimedOut(sequenceNumber: due.identifier)
      case .probeEnd: probeEnded(sequenceNumber: due.identifier)
      case .relayTimeout: relayTimedOut(sequenceNumber: due.identifier)
      case .suspicion: suspicionMayBeOver(number: due.identifier)
      case .userPingTimeout: userPingTimedOut(sequenceNumber: due.identifier)
      case .announcementTimeout: announcementTimedOut(number: due.identifier)
      case .rejoin: rejoinTick(scheduledAtNanoseconds: due.timeNanoseconds)
      }
    }
  }

  /// Forgets the decisions that the shell has carried out.
  public mutating func clearOutbox() {
    outbox.removeAll()
  }

  /// A clock that went back is a fault of the shell; time then stands still instead of running backwards.
  mutating func advance(to nowNanoseconds: UInt64) {
    now = max(now, nowNanoseconds)
  }

  /// The first ticks come after a random part of their interval, so that nodes started together do not act together.
  private mutating func scheduleFirstTicks() {
    let probeInterval = max(1, configuration.probeIntervalNanoseconds)
    deadlines.add(.probe, atNanoseconds: Formulas.saturatingSum(now, random.below(probeInterval)))
    gossipPhaseNanoseconds = Formulas.saturatingSum(
      now, random.below(max(1, configuration.gossipIntervalNanoseconds)))
    if configuration.pushPullIntervalNanoseconds > 0 {
      deadlines.add(
        .pushPull,
        atNanoseconds: Formulas.saturatingSum(now, random.below(configuration.pushPullIntervalNanoseconds)))
    }
    scheduleRejoin()
    scheduleGossip()
  }

  /// The tick after one that was due at `scheduled`: on the same beat, and never in the past, so that a node that
  /// slept does not make up for every tick it missed.
  mutating func nextTick(after scheduled: UInt64, interval: UInt64) -> UInt64 {
    let interval = max(1, interval)
    let next = Formulas.saturatingSum(scheduled, interval)
    guard next <= now else { return next }
    return Formulas.saturatingSum(now, interval - (now - scheduled) % interval)
  }

  // MARK: Members

  /// Members that count as present: alive or suspect, the local one included. Sorted by name.
  public var members: [Member] {
    table.ring.filter { !table[$0].isDeadOrLeft }.map { member(inSlot: $0) }.sorted { $0.name < $1.name }
  }

  /// Every member that is not yet forgotten, whatever its state. Sorted by name.
  public var allMembers: [Member] {
    table.ring.map { member(inSlot: $0) }.sorted { $0.name < $1.name }
  }

  /// How many members are known, dead ones that are not yet forgotten included.
  public var knownMemberCount: Int { table.count }

  /// Whether nobody else is present.
  public var isAlone: Bool {
    !table.ring.contains { $0 != localSlot && !table[$0].isDeadOrLeft }
  }

  /// The local member.
  public var localMember: Member { member(inSlot: localSlot) }

  /// What is known of a member.
  public func member(named name: NodeName) -> Member? {
    table.slot(of: name).map { member(inSlot: $0) }
  }

  func member(inSlot slot: Int) -> Member {
    let record = table[slot]
    return Member(
      name: record.name, address: record.address, metadata: record.metadata, state: record.state,
      incarnation: record.incarnation, versions: record.versions)
  }

  mutating func nextSequenceNumber() -> UInt32 {
    lastSequenceNumber &+= 1
    return lastSequenceNumber
  }
}

/// Why a membership refused a request.
public enum MembershipError: Error, Sendable, Equatable {
  /// A member needs a name: others tell members apart by it.
  case emptyName
  /// Metadata is limited so that an announcement always fits a packet.
  case metadataTooLong(byteCount: Int, limitBytes: Int)
  /// A broadcast must fit one packet: send it reliably to each member instead.
  case broadcastTooLong(byteCount: Int, limitBytes: Int)
  /// The member is not known, or is gone.
  case unknownMember(NodeName)
  /// Too many requests of this kind are under way: try again when some have finished.
  case tooManyRequests(limit: Int)
  /// The node has left; `rejoin` first.
  case hasLeft
}

/// What a membership has done since it was made.
public struct MembershipCounters: Sendable, Equatable {
  public var packetsSent = 0
  public var bytesSent = 0
  public var packetsReceived = 0
  public var bytesReceived = 0
  public var malformedMessages = 0
  public var probesStarted = 0
  public var probesFailed = 0
  public var refutations = 0
  public var suspicionsStarted = 0
  public var deathsDeclared = 0
  public var pushPulls = 0
  public var userBroadcastsDelivered = 0
  public var userBroadcastDuplicates = 0
  public var droppedUserBroadcasts = 0
}
