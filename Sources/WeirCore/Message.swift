// Cost: 120 bytes, two cache lines. Moved or passed by value it is copied field by field, and its two references are counted
// each time (5 ns and more a hop): it is handed on by inout, where it lies. Measured
// (`bench hot-paths --parts`, 2-core EPYC 9005): 22 ns to copy one with an entry over another.

/// The kinds of Raft message; the numbers are those of etcd's raftpb, and go onto the wire.
@frozen
public enum MessageType: UInt8, Sendable, Hashable, CaseIterable {
  case hup = 0
  case beat = 1
  case propose = 2
  case append = 3
  case appendResponse = 4
  case vote = 5
  case voteResponse = 6
  case snapshot = 7
  case heartbeat = 8
  case heartbeatResponse = 9
  case unreachable = 10
  case snapshotStatus = 11
  case checkQuorum = 12
  case transferLeader = 13
  case timeoutNow = 14
  case readIndex = 15
  case readIndexResponse = 16
  case preVote = 17
  case preVoteResponse = 18
  case storageAppend = 19
  case storageAppendResponse = 20
  case storageApply = 21
  case storageApplyResponse = 22
  case forgetLeader = 23
}

/// A Raft message. One type for all kinds, as in etcd's raftpb: which fields mean something depends on `type`.
@frozen
public struct Message: Sendable {
  public var type: MessageType
  /// The answer is no: a refused vote, an append that does not fit, a snapshot that failed.
  public var reject = false
  /// A vote request that a leadership transfer caused: leader stickiness does not apply to it.
  public var isLeadershipTransfer = false
  public var to: NodeID
  public var from: NodeID
  /// The sender's term; 0 for local messages.
  public var term: Term
  /// Term of the entry at `index` (append), or of the candidate's last entry (votes), or of the hint (rejections).
  public var logTerm: Term = 0
  /// Index before the first entry (append), of the last entry (votes), or the acknowledged one (responses).
  public var index: LogIndex = 0
  /// The sender's commit index.
  public var commit: LogIndex = 0
  /// The vote of a hard state (storage messages).
  public var vote: NodeID = 0
  /// Where the follower proposes to try next (rejections).
  public var rejectHint: LogIndex = 0
  /// The running position of a heartbeat round, or the requester's own number of a read.
  public var context: UInt64 = 0
  public var entries = EntryBatch()
  /// What few messages carry: a snapshot, or responses to be sent once storage is done.
  public var attachment: MessageAttachment?

  @inlinable
  public init(type: MessageType, to: NodeID = 0, from: NodeID = 0, term: Term = 0) {
    self.type = type
    self.to = to
    self.from = from
    self.term = term
  }

  /// The snapshot that comes with the message, if any.
  public var snapshot: Snapshot? { attachment?.snapshot }
  /// The messages to deliver once this storage message is done.
  public var responses: [Message] { attachment?.responses ?? [] }
}

/// The rare and large parts of a message, behind one reference so that the common messages stay small.
public final class MessageAttachment: Sendable {
  public let snapshot: Snapshot?
  public let responses: [Message]

  public init(snapshot: Snapshot? = nil, responses: [Message] = []) {
    self.snapshot = snapshot
    self.responses = responses
  }
}

/// What a node must remember across restarts besides its log (Raft paper, figure 2: persistent state).
@frozen
public struct HardState: Sendable, Hashable {
  public var term: Term
  public var vote: NodeID
  /// May be stale after a restart; never ahead of what was committed.
  public var commit: LogIndex

  @inlinable
  public init(term: Term = 0, vote: NodeID = 0, commit: LogIndex = 0) {
    self.term = term
    self.vote = vote
    self.commit = commit
  }

  @inlinable public var isEmpty: Bool { term == 0 && vote == 0 && commit == 0 }
}

/// The membership that a snapshot or a configuration change results in. Lists are ascending.
public struct ConfigurationState: Sendable, Hashable {
  /// Voters; the incoming half of a joint configuration.
  public var voters: [NodeID]
  /// The outgoing half of a joint configuration; empty outside of one.
  public var votersOutgoing: [NodeID]
  public var learners: [NodeID]
  /// Voters of the outgoing half that become learners when the joint configuration is left.
  public var learnersNext: [NodeID]
  /// The leader leaves the joint configuration by itself.
  public var autoLeave: Bool

  public init(
    voters: [NodeID] = [], votersOutgoing: [NodeID] = [], learners: [NodeID] = [], learnersNext: [NodeID] = [],
    autoLeave: Bool = false
  ) {
    self.voters = voters
    self.votersOutgoing = votersOutgoing
    self.learners = learners
    self.learnersNext = learnersNext
    self.autoLeave = autoLeave
  }
}

/// What a snapshot stands for.
public struct SnapshotMetadata: Sendable, Hashable {
  /// The last entry that the snapshot contains.
  public var index: LogIndex
  public var term: Term
  public var configuration: ConfigurationState

  public init(index: LogIndex = 0, term: Term = 0, configuration: ConfigurationState = .init()) {
    self.index = index
    self.term = term
    self.configuration = configuration
  }
}

/// A state machine's state at an index.
public struct Snapshot: Sendable, Hashable {
  public var metadata: SnapshotMetadata
  /// The state itself where it travels inside the message; empty where it is streamed beside it.
  public var data: [UInt8]

  public init(metadata: SnapshotMetadata = .init(), data: [UInt8] = []) {
    self.metadata = metadata
    self.data = data
  }

  public var isEmpty: Bool { metadata.index == 0 }
}
