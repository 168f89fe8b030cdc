/// A member as the application sees it.
public struct Member: Sendable, Equatable {
  /// Unique in the cluster.
  public var name: NodeName
  /// Where it listens for packets and streams.
  public var address: GossipAddress
  /// What it says of itself, at most 512 bytes.
  public var metadata: [UInt8]
  /// Alive and suspect members count as present; dead and left ones are remembered for a while.
  public var state: NodeStateKind
  /// Grows each time the member announces itself anew or refutes an accusation.
  public var incarnation: UInt32
  /// The gossip protocol and the application's, as the member announced them.
  public var versions: ProtocolVersions
}

/// A change of the membership that the local node has come to know.
public enum MemberEvent: Sendable, Equatable {
  /// A member that was unknown, dead or gone is alive.
  case joined(Member)
  /// A member is dead (`state == .dead`) or has left (`.left`).
  case left(Member)
  /// An alive member changed its metadata.
  case updated(Member)

  /// The member concerned.
  public var member: Member {
    switch self {
    case .joined(let member), .left(let member), .updated(let member): member
    }
  }
}

/// What the shell must do for a membership, in the order given.
public enum Action: Sendable {
  /// Send one packet. `body` is a range of the outbox's bytes: a plain message, not yet compressed, checksummed,
  /// encrypted or labelled.
  case sendPacket(to: GossipAddress, body: Range<Int>, withChecksum: Bool)
  /// Open a stream, send this ping, and report the acknowledgement with `streamPingSucceeded` before the deadline.
  case openStreamPing(to: GossipAddress, ping: Ping, deadlineNanoseconds: UInt64)
  /// Open a stream and exchange full state; report what comes with `mergeRemoteState`.
  case openPushPull(with: GossipAddress, name: NodeName, isJoin: Bool)
  /// Hand a user message to the application.
  case deliver(Range<Int>)
  /// Tell the application of a change.
  case event(MemberEvent)
  /// Two members claim one name; the first is known, the second was refused.
  case conflict(existing: Member, other: Member)
  /// Ask the application about this announcement, then call `handleAlive` with what it said.
  case voteAlive(Alive)
  /// A probe or an asked-for ping was answered after this time, with this payload in the outbox's bytes.
  case pingCompleted(NodeName, roundTripNanoseconds: UInt64, payload: Range<Int>)
  /// A ping that the application asked for is over.
  case userPingFinished(sequenceNumber: UInt32, roundTripNanoseconds: UInt64?)
  /// A leave or update has been told to the others, or has waited long enough.
  case announcementFinished(number: UInt64, wasDelivered: Bool)
  /// Something that an operator may want to read.
  case notice(Notice)
}

/// What a membership found worth saying; none of it is an error of the local node.
public enum Notice: Sendable, Equatable {
  /// We were accused and said otherwise.
  case refuted(accusedIncarnation: UInt32, newIncarnation: UInt32)
  /// A probe got no answer at all.
  case suspected(NodeName)
  /// A member answers by stream only: its packets are lost on the way.
  case answeredByStreamOnly(NodeName)
  /// A suspicion ran out.
  case declaredDead(NodeName, confirmations: Int)
  /// A ping meant for another name reached us.
  case pingForAnother(NodeName)
  /// A message made no sense and was dropped.
  case malformedMessage(type: UInt8)
  /// An announcement was refused: impossible versions, a forbidden address, or the member table is full.
  case announcementRefused(NodeName)
}

/// What a call on a membership decided: reused from call to call, emptied by the shell.
public struct Outbox: Sendable {
  /// Packet bodies and payloads, one after the other; actions name ranges of it.
  public internal(set) var bytes: [UInt8] = []
  /// In the order in which they are to be done.
  public internal(set) var actions: [Action] = []

  /// Whether there is nothing to do.
  public var isEmpty: Bool { actions.isEmpty }

  /// Forgets everything and keeps the memory.
  mutating func removeAll() {
    bytes.removeAll(keepingCapacity: true)
    actions.removeAll(keepingCapacity: true)
  }
}
