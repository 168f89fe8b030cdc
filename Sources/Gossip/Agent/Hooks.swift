/// What the application adds to gossip (memberlist's Delegate).
///
/// All hooks are called on one serial queue of their own, in order, with bytes of their own: they may take their time,
/// and the node goes on receiving meanwhile. What waits for them is bounded; see `GossipNodeConfiguration`.
public protocol GossipDelegate: Sendable {
  /// A user message arrived, by broadcast, by packet or by stream.
  func receive(userMessage: [UInt8])

  /// Whether `broadcasts` shall be asked at every gossip interval.
  var providesBroadcasts: Bool { get }

  /// Messages to send once, in the next packet with room: each may take `limitBytes` less `overheadBytes`, and all
  /// together no more than `limitBytes` with the overhead counted for each.
  func broadcasts(overheadBytes: Int, limitBytes: Int) -> [[UInt8]]

  /// The application's part of a full state exchange.
  func localState(isJoin: Bool) -> [UInt8]

  /// The other side's part of one.
  func mergeRemoteState(_ state: [UInt8], isJoin: Bool)
}

extension GossipDelegate {
  public func receive(userMessage _: [UInt8]) {}
  public var providesBroadcasts: Bool { false }
  public func broadcasts(overheadBytes _: Int, limitBytes _: Int) -> [[UInt8]] { [] }
  public func localState(isJoin _: Bool) -> [UInt8] { [] }
  public func mergeRemoteState(_: [UInt8], isJoin _: Bool) {}
}

/// Told of every change of the membership, the local member's own arrival first.
public protocol MemberEventDelegate: Sendable {
  func memberChanged(_ event: MemberEvent)
}

/// Told when a second member claims a name that is in use.
public protocol ConflictDelegate: Sendable {
  func nameConflict(existing: Member, other: Member)
}

/// Asked before the state of another cluster, or of the same one, is merged.
public protocol MergeDelegate: Sendable {
  /// Throws to refuse the whole merge.
  func approveMerge(of members: [Member]) throws
}

/// Asked before any announcement of a member is taken in, also for every repetition: keep it cheap.
public protocol AliveDelegate: Sendable {
  /// Throws to refuse the member.
  func approveAlive(_ member: Member) throws
}

/// Rides on the failure detector's pings.
public protocol PingDelegate: Sendable {
  /// What to put into acknowledgements. It is asked about once in a probe interval and used until asked again.
  func ackPayload() -> [UInt8]?

  /// A ping of ours was answered directly.
  func pingCompleted(_ member: Member, roundTripNanoseconds: UInt64, payload: [UInt8])
}

/// The hooks of a node; each is optional.
public struct GossipHooks: Sendable {
  public var delegate: (any GossipDelegate)?
  public var events: (any MemberEventDelegate)?
  public var conflicts: (any ConflictDelegate)?
  public var merges: (any MergeDelegate)?
  public var alive: (any AliveDelegate)?
  public var pings: (any PingDelegate)?

  public init(
    delegate: (any GossipDelegate)? = nil, events: (any MemberEventDelegate)? = nil,
    conflicts: (any ConflictDelegate)? = nil, merges: (any MergeDelegate)? = nil, alive: (any AliveDelegate)? = nil,
    pings: (any PingDelegate)? = nil
  ) {
    self.delegate = delegate
    self.events = events
    self.conflicts = conflicts
    self.merges = merges
    self.alive = alive
    self.pings = pings
  }
}
