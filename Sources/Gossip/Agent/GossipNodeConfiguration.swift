/// What a node is and where it listens.
public struct GossipNodeConfiguration: Sendable {
  /// Unique in the cluster.
  public var name: NodeName
  /// Where to listen, for packets and streams alike; port 0 lets the system choose.
  public var bind: GossipAddress
  /// Further addresses of this machine to listen at, with the same port. Packets leave from the first address that can
  /// reach their destination.
  public var additionalBinds: [IPAddress] = []
  /// What others are told to send to; nil: the bound address, or a private address of this machine when bound to all.
  public var advertise: GossipAddress?
  /// What the node says of itself, at most 512 bytes; `GossipNode.update` changes it later.
  public var metadata: [UInt8] = []
  /// Timings and limits of the protocol.
  public var membership: MembershipConfiguration
  /// Label, keys, compression and the limits of the decoders.
  public var wire = WireConfiguration()
  /// How long connecting, and then a whole exchange by stream, may take.
  public var streamTimeoutNanoseconds: UInt64 = 10 * 1_000_000_000
  /// Streams accepted at a time; more are closed at once (memberlist's limit is 128).
  public var maximumInboundStreams = 128
  /// Streams dialed at a time; more fail at once.
  public var maximumOutboundStreams = 64
  /// Bytes that all inbound streams together may have sent before their message is whole.
  public var maximumInboundStreamBytes = 64 * 1_048_576
  /// Calls of hooks that may wait; user messages beyond it are dropped and counted.
  public var maximumWaitingHookCalls = 16_384
  /// Whether the first incarnation follows the wall clock, so that a restart after a crash is not taken for an echo of
  /// the former life.
  public var startsFromWallClock = true
  /// Whether the addresses given to `join` are tried again, every `rejoinIntervalNanoseconds`, while the node is alone.
  public var retriesJoin = true
  /// Whether every address given to `join` must name its member, `name/host:port`: where addresses are given to other
  /// members over time, one that was meant must not be taken for another (memberlist's RequireNodeNames).
  public var requiresNodeNames = false

  public init(name: NodeName, bind: GossipAddress, membership: MembershipConfiguration = .lan) {
    self.name = name
    self.bind = bind
    self.membership = membership
  }
}

/// Why a node could not do what it was asked for.
public enum GossipNodeError: Error, Sendable, Equatable {
  /// An operating system call failed: which one, and `errno`.
  case system(call: String, code: Int32)
  /// The node was shut down.
  case isShutDown
  /// The name was looked up and has no address, or is no name.
  case unresolvable(String)
  /// Nobody answered within the stream timeout.
  case timedOut
  /// The stream ended before its message was whole.
  case closedByPeer
  /// The peer refused, and said why.
  case refusedByPeer(String)
  /// The peer's bytes, or ours, were refused by the codec.
  case wire(WireError)
  /// The membership refused the request.
  case membership(MembershipError)
  /// The application's `MergeDelegate` refused the merge.
  case mergeRefused(String)
  /// The peer is not the one that was asked for by name.
  case wrongMember(expected: NodeName)
  /// Too many streams are open: try again later.
  case tooManyStreams(limit: Int)
  /// The address to join names no member, and the configuration wants it to.
  case nameRequired(address: String)
}

extension GossipNodeError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .system(let call, let code): "\(call) failed with errno \(code): \(errorText(code))"
    case .isShutDown: "the node was shut down: make a new one"
    case .unresolvable(let host): "\(host) has no address: check the name, or give host:port or [IPv6]:port"
    case .timedOut: "no answer in time: is the address right and the peer running?"
    case .closedByPeer: "the peer closed the stream early: do label and encryption agree?"
    case .refusedByPeer(let text): "the peer refused: \(text)"
    case .wire(let error): "\(error)"
    case .membership(let error): "\(error)"
    case .mergeRefused(let text): "the application refused the merge: \(text)"
    case .wrongMember(let expected): "the peer is not \(expected)"
    case .nameRequired(let address): "\(address) names no member: write name/host:port"
    case .tooManyStreams(let limit): "\(limit) streams are open already: try again later"
    }
  }
}
