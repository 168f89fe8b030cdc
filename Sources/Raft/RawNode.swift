import WeirCore

/// One Raft node as a pure state machine: messages and ticks go in, what to store, apply and send comes out as `Ready`.
///
/// It has etcd/raft's semantics (RawNode there). It does no I/O, reads no clock and starts no thread; the same inputs
/// give the same outputs. One owner calls it; it is a value that cannot be copied.
///
///     loop:  tick / step / propose / readIndex …     (any number)
///            if hasReady { ready(into:); store, apply, send; advance }
public struct RawNode: ~Copyable {
  public let configuration: RaftConfiguration
  let logger: (any RaftLogger)?
  /// Receives the protocol's events; nil costs a comparison per event.
  public var tracer: (any RaftTracer)?
  /// The time of the event that is about to be handled, of a monotonic clock that also runs while the machine sleeps.
  /// The driver sets it before each call, read *after* the message was received. Only leases look at it; 0 means that
  /// the time is not known, and then no lease is held or honoured.
  public var nowNanoseconds: UInt64 = 0
  @_spi(Testing) public var plantedBugs: PlantedBugs = [] {
    didSet { hasPlantedBugs = !plantedBugs.isEmpty }
  }
  var hasPlantedBugs = false

  private let inMemory = InMemory()
  var log: RaftLog
  public internal(set) var tracker = ProgressTracker()
  /// Where this node is in `tracker.progress`; nil if it is not a member.
  var ownSlot: Int?

  public internal(set) var term: Term = 0
  public internal(set) var vote: NodeID = .none
  public internal(set) var leader: NodeID = .none
  public internal(set) var role = Role.follower
  public internal(set) var electionElapsedTicks = 0
  var heartbeatElapsedTicks = 0
  /// The timeout in force, drawn anew at each change of role or term; settable for tests.
  public var randomizedElectionTimeoutTicks = 0
  var random: SplitMix64

  /// Who leadership is being handed to, 0 if nobody.
  public internal(set) var leadTransferee: NodeID = .none
  /// No change of membership is taken until everything up to here is applied.
  public internal(set) var pendingConfigurationIndex: LogIndex = 0
  public internal(set) var uncommittedBytes = 0
  /// Whether an entry of this leader's own term is committed.
  var hasCommittedInTerm = false

  var reads = ReadQueue()
  var lease = LeaseState()

  var outbox: [Message] = []
  /// Messages that promise something about stored state: they wait until it is stored.
  var afterAppend: [Message] = []
  /// The same to this node itself.
  var ownSteps: [OwnStep] = []
  var ownStepsOnAdvance: [OwnStep] = []
  /// What storage has to tell this node at `advance`.
  var stepsOnAdvance: [Message] = []
  var isAdvanceDue = false
  var readStates: [ReadState] = []
  var refusedReads: [UInt64] = []
  var previousSoftState = SoftState()
  var previousHardState = HardState()
  /// Frames payloads that are passed on to the leader.
  var forwarding: EntryBatchBuilder?

  /// A node that starts from stored state, or from nothing.
  /// - Parameters:
  ///   - log: the stored entries; its anchor is the stored snapshot's index and term, or 0 and 0.
  ///   - configurationState: the membership as of `applied` (as of the stored snapshot, if applied is below it).
  ///   - applied: the last entry that the state machine holds already; 0: as of the log's anchor.
  ///   - availableSnapshot: what followers that are too far behind may be sent.
  public init(
    configuration: RaftConfiguration, log: consuming LogBuffer, hardState: HardState = .init(),
    configurationState: ConfigurationState = .init(), applied: LogIndex = 0, availableSnapshot: Snapshot? = nil,
    logger: (any RaftLogger)? = nil
  ) throws(RaftError) {
    let members = try Self.check(
      configuration, hardState, configurationState, applied: applied, anchor: log.anchorIndex, last: log.lastIndex)
    self.configuration = configuration
    self.logger = logger
    random = SplitMix64(seed: configuration.randomSeed ^ (configuration.id &* 0x9E37_79B9_7F4A_7C15))
    let limit = configuration.maximumCommittedBytesPerReady
    self.log = RaftLog(
      buffer: log, availableSnapshot: availableSnapshot,
      maximumApplyingBytes: limit > 0 ? limit : max(configuration.maximumMessageBytes, 1), logger: logger)
    lease.isRestartPromiseDue = configuration.refuseVotesWithinLease && configuration.refuseVotesAfterStart
    switchConfiguration(to: members)
    if !hardState.isEmpty {
      self.log.commit(to: hardState.commit)
      term = hardState.term
      vote = hardState.vote
    }
    if applied > 0 { self.log.applied(through: applied, bytes: 0) }
    becomeFollower(term: term, leader: .none)
    logCreation()
    previousSoftState = softState
    previousHardState = self.hardState
    trace(.initState)
  }

  /// Checks what was stored, and makes the members of it.
  private static func check(
    _ configuration: RaftConfiguration, _ hardState: HardState, _ members: ConfigurationState, applied: LogIndex,
    anchor: LogIndex, last: LogIndex
  ) throws(RaftError) -> ProgressTracker {
    try configuration.validate()
    if !hardState.isEmpty, hardState.commit < anchor || hardState.commit > last {
      throw .inconsistentStorage(
        "\(configuration.id.hex) state.commit \(hardState.commit) is out of range [\(anchor), \(last)]")
    }
    let committed = hardState.isEmpty ? anchor : hardState.commit
    if applied > 0, applied < anchor || applied > committed {
      throw .inconsistentStorage(
        "applied(\(applied)) is out of range [prevApplied(\(anchor)), committed(\(committed))]")
    }
    return try trackerRestored(from: members, lastIndex: last, configuration: configuration)
  }

  private func logCreation() {
    logger.write(.info) {
      let peers = tracker.configuration.allVoters.map(\.hex).joined(separator: ",")
      return "newRaft \(id.hex) [peers: [\(peers)], term: \(term), commit: \(log.committed), applied: \(log.applied), "
        + "lastindex: \(log.lastIndex), lastterm: \(log.lastTerm)]"
    }
  }

  // MARK: Status

  public var id: NodeID { configuration.id }
  public var softState: SoftState { SoftState(leader: leader, role: role) }
  public var hardState: HardState { HardState(term: term, vote: vote, commit: log.committed) }
  public var commit: LogIndex { log.committed }
  public var applied: LogIndex { log.applied }
  public var firstIndex: LogIndex { log.firstIndex }
  public var lastIndex: LogIndex { log.lastIndex }
  public var lastTerm: Term { log.lastTerm }
  public var membership: MembershipConfiguration { tracker.configuration }
  public var isLearner: Bool { ownSlot.map { tracker.progress[$0].isLearner } ?? false }
  /// What the leader knows of each member, ascending by id. Meaningful on a leader only.
  public var progress: [Progress] { tracker.progress }
  /// Reads that wait for a round or for the first commit of the term.
  public var pendingReadCount: Int { reads.count }
  /// Memory that the log's segments hold, in bytes.
  public var logMemoryBytes: Int { log.memoryBytes }

  /// The term of the entry at `index`, nil if it is compacted away or beyond the end.
  public func term(at index: LogIndex) -> Term? { log.term(at: index) }

  /// Entries of the log, for looking at: those of `lower ... upper` that are held, up to `maximumBytes`.
  public func entries(from lower: LogIndex, through upper: LogIndex, maximumBytes: Int = .max) -> EntryBatch {
    log.batch(from: max(lower, firstIndex), through: min(upper, lastIndex), maximumBytes: maximumBytes)
  }
}
