import WeirCore

/// What a node is to its cluster at a moment.
public enum Role: UInt8, Sendable, Hashable, CaseIterable {
  case follower = 0
  case candidate = 1
  case leader = 2
  /// Asking whether an election could be won, without having raised the term (thesis section 9.6).
  case preCandidate = 3
}

/// State that is useful to know and need not be stored.
public struct SoftState: Sendable, Hashable {
  /// The leader as far as this node knows, 0 if it knows none.
  public var leader: NodeID
  public var role: Role

  public init(leader: NodeID = .none, role: Role = .follower) {
    self.leader = leader
    self.role = role
  }
}

/// A read that may be served once the state machine has applied everything up to `index`.
public struct ReadState: Sendable, Hashable {
  public var index: LogIndex
  /// The number that the requester gave to `RawNode.readIndex(context:)`.
  public var context: UInt64

  public init(index: LogIndex, context: UInt64) {
    self.index = index
    self.context = context
  }
}

/// What the driver has to do before the core can go on, collected since the last one.
///
/// Without asynchronous storage: store `hardState`, `entries` and `snapshot` durably, apply `committedEntries`, send
/// `messages`, call `advance`. Messages that promise something about stored state are in `messages` too, so none may
/// leave before the storing is done. With asynchronous storage only `messages` matter: those to the append and apply
/// threads say what to store and apply, and carry the answers to deliver afterwards.
public struct Ready: Sendable {
  /// The new soft state, nil if it did not change.
  public var softState: SoftState?
  /// The new hard state, empty if it did not change.
  public var hardState = HardState()
  /// Reads that were confirmed.
  public var readStates: [ReadState] = []
  /// Contexts of local reads that this node can no longer answer (it stepped down, knows no leader, or holds too many):
  /// the requester must ask again.
  public var refusedReads: [UInt64] = []
  /// Entries to be stored. Their first index can lie within what is stored already: the rest there is replaced.
  public var entries = EntryBatch()
  /// A snapshot to be stored, replacing the whole stored log.
  public var snapshot: Snapshot?
  /// Entries to be applied, in order. Empty whenever a snapshot waits to be stored.
  public var committedEntries = EntryBatch()
  /// Messages to be sent, in order.
  public var messages: [Message] = []
  /// The hard state and the entries must reach stable storage before `messages` leave; otherwise (only the commit index
  /// moved) a lazy write does.
  public var mustSync = false

  public init() {}

  /// There is nothing to do.
  public var isEmpty: Bool {
    softState == nil && hardState.isEmpty && readStates.isEmpty && refusedReads.isEmpty && entries.isEmpty
      && snapshot == nil && committedEntries.isEmpty && messages.isEmpty
  }

  /// Makes it empty, keeping the capacity of its arrays.
  mutating func removeAll() {
    softState = nil
    hardState = HardState()
    readStates.removeAll(keepingCapacity: true)
    refusedReads.removeAll(keepingCapacity: true)
    entries = EntryBatch()
    snapshot = nil
    committedEntries = EntryBatch()
    messages.removeAll(keepingCapacity: true)
    mustSync = false
  }
}
