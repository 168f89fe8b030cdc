/// What a membership does and when. All times are nanoseconds.
///
/// The presets are memberlist's (`lan`, `wan`, `local`); a cluster may mix members of either kind when both use
/// the same one.
public struct MembershipConfiguration: Sendable, Equatable {
  // MARK: Failure detector

  /// How often one other member is probed.
  public var probeIntervalNanoseconds: UInt64
  /// How long the direct answer to a probe is waited for before others are asked.
  public var probeTimeoutNanoseconds: UInt64
  /// How many members are asked to probe one that did not answer.
  public var indirectChecks: Int
  /// Whether a member that answered no packet is also tried by a stream.
  public var usesStreamPings = true
  /// Minimum suspicion time in units of `log10(n) × probe interval`.
  public var suspicionMultiplier: Int
  /// Maximum suspicion time in units of the minimum.
  public var suspicionMaximumTimeoutMultiplier: Int
  /// The probe interval is stretched by at most this when the local node does badly.
  public var awarenessMaximumMultiplier = 8
  /// Lifeguard's three additions (local health, shrinking suspicions, telling a suspect of its suspicion first).
  ///
  /// Off leaves plain SWIM, which exists to be compared with.
  public var usesLifeguard = true

  // MARK: Dissemination

  /// How often queued broadcasts are sent on their own, beside those that ride on probes.
  public var gossipIntervalNanoseconds: UInt64
  /// To how many members each time.
  public var gossipNodes: Int
  /// How long after its death a member is still gossiped to, so that it may learn of it and refute.
  public var gossipToTheDeadNanoseconds: UInt64
  /// Transmissions of each broadcast in units of `ceil(log10(n + 1))`.
  public var retransmitMultiplier: Int
  /// How often full state is exchanged with one member; 0 never.
  public var pushPullIntervalNanoseconds: UInt64
  /// The longest packet body.
  public var packetSizeBytes = 1400
  /// What label and encryption add to each packet.
  public var packetOverheadBytes = 0

  // MARK: Members

  /// After how long a dead member's name may be taken over from another address; 0 never. A member that left
  /// gives its name free at once.
  public var deadNodeReclaimNanoseconds: UInt64 = 0
  /// Whose announcements are accepted, by the announced address.
  public var allowedAddresses = AddressAllowList.everything
  /// The most members kept; beyond it unknown ones are not admitted, so a hostile peer cannot fill the memory.
  public var maximumMembers = 65_536
  /// What is announced: the gossip protocol and the application's own. serf's members admit only those that
  /// announce delegate versions 2, 5, 5 (`ProtocolVersions.serf`).
  public var versions = ProtocolVersions()
  /// The incarnation of the first announcement is this plus one.
  ///
  /// 0 is memberlist's way, under which members that are all restarted at once are held dead by the memory of
  /// their former selves: the accusation carries the higher incarnation of the former life and the new one's
  /// announcements lose against it until it is told. The agent passes the wall clock's seconds, which only grow.
  public var startIncarnation: UInt32 = 0
  /// Whether the shell is asked (`Action.voteAlive`) before any member is admitted or updated.
  public var asksBeforeAlive = false

  // MARK: Rejoin

  /// How often a remembered peer is tried after all contact with it was lost; 0 never.
  ///
  /// memberlist forgets a member some time after its death, so the two halves of a cluster that were parted for
  /// longer never meet again by themselves.
  public var rejoinIntervalNanoseconds: UInt64 = 30 * 1_000_000_000
  /// The most peers remembered.
  public var maximumRememberedPeers = 256
  /// How long a peer is remembered.
  public var rememberPeersNanoseconds: UInt64 = 72 * 3600 * 1_000_000_000

  // MARK: User messages

  /// The part of each packet, in percent, that is kept for user broadcasts while any wait.
  public var userBroadcastSharePercent = 25
  /// Most user broadcasts queued; the most transmitted are dropped beyond it.
  public var maximumQueuedUserBroadcasts = 4096
  /// Whether user broadcasts carry an identity, are delivered once and are passed on by whoever receives them.
  ///
  /// Off is memberlist's way: what was broadcast reaches only those to whom its sender happens to send it, and
  /// some of them several times.
  public var identifiesUserBroadcasts = true
  /// Identities remembered so that each broadcast is delivered once.
  public var rememberedBroadcasts = 8192
  /// The largest user broadcast, identity included; a larger one would never fit into a packet.
  public var maximumUserBroadcastBytes: Int {
    max(0, packetSizeBytes - packetOverheadBytes - 2 - 2 - 1)
  }

  init(
    probeInterval: UInt64, probeTimeout: UInt64, indirectChecks: Int, suspicionMultiplier: Int,
    suspicionMaximumTimeoutMultiplier: Int, gossipInterval: UInt64, gossipNodes: Int, gossipToTheDead: UInt64,
    retransmitMultiplier: Int, pushPullInterval: UInt64
  ) {
    probeIntervalNanoseconds = probeInterval
    probeTimeoutNanoseconds = probeTimeout
    self.indirectChecks = indirectChecks
    self.suspicionMultiplier = suspicionMultiplier
    self.suspicionMaximumTimeoutMultiplier = suspicionMaximumTimeoutMultiplier
    gossipIntervalNanoseconds = gossipInterval
    self.gossipNodes = gossipNodes
    gossipToTheDeadNanoseconds = gossipToTheDead
    self.retransmitMultiplier = retransmitMultiplier
    pushPullIntervalNanoseconds = pushPullInterval
  }

  /// For members of one local network.
  public static let lan = MembershipConfiguration(
    probeInterval: 1000 * Formulas.millisecond, probeTimeout: 500 * Formulas.millisecond, indirectChecks: 3,
    suspicionMultiplier: 4, suspicionMaximumTimeoutMultiplier: 6, gossipInterval: 200 * Formulas.millisecond,
    gossipNodes: 3, gossipToTheDead: 30_000 * Formulas.millisecond, retransmitMultiplier: 4,
    pushPullInterval: 30_000 * Formulas.millisecond)

  /// For members across wide-area links.
  public static let wan = MembershipConfiguration(
    probeInterval: 5000 * Formulas.millisecond, probeTimeout: 3000 * Formulas.millisecond, indirectChecks: 3,
    suspicionMultiplier: 6, suspicionMaximumTimeoutMultiplier: 6, gossipInterval: 500 * Formulas.millisecond,
    gossipNodes: 4, gossipToTheDead: 60_000 * Formulas.millisecond, retransmitMultiplier: 4,
    pushPullInterval: 60_000 * Formulas.millisecond)

  /// For members on one machine.
  public static let local = MembershipConfiguration(
    probeInterval: 1000 * Formulas.millisecond, probeTimeout: 200 * Formulas.millisecond, indirectChecks: 1,
    suspicionMultiplier: 3, suspicionMaximumTimeoutMultiplier: 6, gossipInterval: 100 * Formulas.millisecond,
    gossipNodes: 3, gossipToTheDead: 15_000 * Formulas.millisecond, retransmitMultiplier: 2,
    pushPullInterval: 15_000 * Formulas.millisecond)
}
