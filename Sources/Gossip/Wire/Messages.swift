/// "Are you there?" A packet, or a stream when the packet was not answered.
public struct Ping: Hashable, Sendable {
  public var sequenceNumber: UInt32
  /// Whom the sender means; a receiver of another name ignores it. Empty: whoever listens here.
  public var node: NodeName
  /// Where the ack shall go; nil in a ping of a very old peer (then it goes to the packet's source).
  public var sourceAddress: IPAddress?
  public var sourcePort: UInt16
  public var sourceNode: NodeName

  public init(
    sequenceNumber: UInt32, node: NodeName, sourceAddress: IPAddress? = nil, sourcePort: UInt16 = 0,
    sourceNode: NodeName = .unnamed
  ) {
    self.sequenceNumber = sequenceNumber
    self.node = node
    self.sourceAddress = sourceAddress
    self.sourcePort = sourcePort
    self.sourceNode = sourceNode
  }

  /// Where the ack shall go, if the sender told both address and port.
  public var source: GossipAddress? {
    guard let sourceAddress, sourcePort != 0 else { return nil }
    return GossipAddress(ip: sourceAddress, port: sourcePort)
  }
}

/// "Ping that member for me."
public struct IndirectPing: Hashable, Sendable {
  public var sequenceNumber: UInt32
  public var target: IPAddress
  /// 0 means the receiver's own port (protocol 1).
  public var port: UInt16
  public var node: NodeName
  /// Whether the sender wants to be told when the target did not answer.
  public var wantsNack: Bool
  public var sourceAddress: IPAddress?
  public var sourcePort: UInt16
  public var sourceNode: NodeName

  public init(
    sequenceNumber: UInt32, target: IPAddress, port: UInt16, node: NodeName, wantsNack: Bool,
    sourceAddress: IPAddress? = nil, sourcePort: UInt16 = 0, sourceNode: NodeName = .unnamed
  ) {
    self.sequenceNumber = sequenceNumber
    self.target = target
    self.port = port
    self.node = node
    self.wantsNack = wantsNack
    self.sourceAddress = sourceAddress
    self.sourcePort = sourcePort
    self.sourceNode = sourceNode
  }

  /// Where the ack or nack shall go, if the sender told both address and port.
  public var source: GossipAddress? {
    guard let sourceAddress, sourcePort != 0 else { return nil }
    return GossipAddress(ip: sourceAddress, port: sourcePort)
  }
}

/// The answer to a ping.
public struct Ack: Hashable, Sendable {
  public var sequenceNumber: UInt32
  /// What the answering member's PingDelegate gave; nil without one (and in every ack over a stream).
  public var payload: [UInt8]?

  public init(sequenceNumber: UInt32, payload: [UInt8]? = nil) {
    self.sequenceNumber = sequenceNumber
    self.payload = payload
  }
}

/// "I asked for you, and it did not answer me either."
public struct Nack: Hashable, Sendable {
  public var sequenceNumber: UInt32

  public init(sequenceNumber: UInt32) {
    self.sequenceNumber = sequenceNumber
  }
}

/// "I got no answer from this member."
public struct Suspect: Hashable, Sendable {
  public var incarnation: UInt32
  public var node: NodeName
  /// Who says so: confirmations are counted by this name.
  public var from: NodeName

  public init(incarnation: UInt32, node: NodeName, from: NodeName) {
    self.incarnation = incarnation
    self.node = node
    self.from = from
  }
}

/// "This member is alive", said first by the member itself.
public struct Alive: Hashable, Sendable {
  public var incarnation: UInt32
  public var node: NodeName
  public var address: GossipAddress
  /// The application's metadata, at most `largestMetaBytes`.
  public var meta: [UInt8]
  /// How an empty `meta` is written: memberlist without a Delegate writes nil, one whose Delegate returns no bytes
  /// writes an empty string. The two mean the same; the difference is kept so that a message is passed on as it came.
  public var isEmptyMetaNil: Bool
  /// nil where a peer sent fewer than six version bytes.
  public var versions: ProtocolVersions?

  /// What memberlist lets a member announce as its metadata (`MetaMaxSize`).
  public static let largestMetaBytes = 512

  public init(
    incarnation: UInt32, node: NodeName, address: GossipAddress, meta: [UInt8] = [],
    isEmptyMetaNil: Bool = true, versions: ProtocolVersions? = ProtocolVersions()
  ) {
    self.incarnation = incarnation
    self.node = node
    self.address = address
    self.meta = meta
    self.isEmptyMetaNil = isEmptyMetaNil
    self.versions = versions
  }
}

/// "This member is gone": declared dead by another, or left if `from` is the member itself.
public struct Dead: Hashable, Sendable {
  public var incarnation: UInt32
  public var node: NodeName
  public var from: NodeName

  public init(incarnation: UInt32, node: NodeName, from: NodeName) {
    self.incarnation = incarnation
    self.node = node
    self.from = from
  }

  /// Whether the member says it of itself, which means that it leaves of its own will.
  public var isLeave: Bool { node == from }
}

/// What opens a push/pull exchange: how many node states and how many bytes of user state follow.
public struct PushPullHeader: Hashable, Sendable {
  public var nodeCount: Int
  public var userStateByteCount: Int
  /// Whether the dialer is joining (the acceptor's answer echoes it).
  public var isJoin: Bool

  public init(nodeCount: Int, userStateByteCount: Int, isJoin: Bool) {
    self.nodeCount = nodeCount
    self.userStateByteCount = userStateByteCount
    self.isJoin = isJoin
  }
}

/// One member in a push/pull exchange.
public struct PushPullNodeState: Hashable, Sendable {
  public var name: NodeName
  public var address: GossipAddress
  public var meta: [UInt8]
  /// As in `Alive`.
  public var isEmptyMetaNil: Bool
  public var incarnation: UInt32
  public var state: NodeStateKind
  public var versions: ProtocolVersions?

  public init(
    name: NodeName, address: GossipAddress, meta: [UInt8] = [], isEmptyMetaNil: Bool = true, incarnation: UInt32,
    state: NodeStateKind, versions: ProtocolVersions? = ProtocolVersions()
  ) {
    self.name = name
    self.address = address
    self.meta = meta
    self.isEmptyMetaNil = isEmptyMetaNil
    self.incarnation = incarnation
    self.state = state
    self.versions = versions
  }
}

/// One side of a push/pull exchange: all members it knows and the application's own state.
public struct PushPull: Hashable, Sendable {
  public var isJoin: Bool
  public var nodes: [PushPullNodeState]
  public var userState: [UInt8]

  public init(isJoin: Bool, nodes: [PushPullNodeState], userState: [UInt8] = []) {
    self.isJoin = isJoin
    self.nodes = nodes
    self.userState = userState
  }
}

/// What precedes the bytes of a user message on a stream.
public struct UserStreamHeader: Hashable, Sendable {
  public var byteCount: Int

  public init(byteCount: Int) {
    self.byteCount = byteCount
  }
}

/// Why the other side closes the stream.
public struct ErrorResponse: Hashable, Sendable {
  /// UTF-8 text, as bytes.
  public var message: [UInt8]

  public init(message: [UInt8]) {
    self.message = message
  }

  public init(_ text: String) {
    self.message = Array(text.utf8)
  }

  public var text: String { String(decoding: message, as: UTF8.self) }
}

/// A message of a packet, owning its bytes.
public enum GossipMessage: Hashable, Sendable {
  case ping(Ping)
  case indirectPing(IndirectPing)
  case ack(Ack)
  case nack(Nack)
  case suspect(Suspect)
  case alive(Alive)
  case dead(Dead)
  /// The application's bytes.
  case user([UInt8])

  public var type: MessageType {
    switch self {
    case .ping: .ping
    case .indirectPing: .indirectPing
    case .ack: .ack
    case .nack: .nack
    case .suspect: .suspect
    case .alive: .alive
    case .dead: .dead
    case .user: .user
    }
  }
}

/// What a stream carries after its label, encryption and compression are taken off.
public enum StreamMessage: Hashable, Sendable {
  case pushPull(PushPull)
  case user([UInt8])
  case ping(Ping)
  case ack(Ack)
  case error(ErrorResponse)
}
