import CWeir
import Logging
import Raft
import Synchronization
import WeirCore
import WeirTransport

/// The driver of one Raft instance: everything that happens on a node's queue.
///
/// A turn goes: sockets have been read and their messages stepped; tick if it is time; drain the lanes (all proposals
/// into the log, all reads into one round); then, until the core has nothing more, apply what is committed and hand
/// its messages to the transport; write each peer's messages with one call; answer the lanes. So whatever arrives
/// together travels together, and nothing waits for a timer.
///
/// Committed entries are applied *before* the messages of the same Ready leave. A follower that learns of a commit
/// index may show its effect to a client; a Lease read on this leader afterwards must see it too.
final class NodeLoop: EventLoopHandler, TransportDelegate {
  let configuration: NodeConfiguration
  let log: Logger
  let store: KeyValueStore
  let published: PublishedState
  let intake: Intake
  let loop: any EventLoop
  let transport: any PeerTransport
  var raft: RawNode
  var ready = Ready()

  var now: UInt64 = 0
  var nextTick: UInt64 = 0
  var turns: UInt64 = 0
  var isStopping = false

  /// All lanes by slot; nil where one has been closed.
  var lanes: [Lane?] = []
  /// Slots of lanes with news for their owners.
  var lanesWithNews: [Int] = []
  var pending = PendingRing()
  var retention: LogRetention
  var rounds = ReadRounds()
  var laneBatches: [EntryBatch] = []
  var laneTokens: [UInt32] = []
  var completionWords: [UInt64] = []
  /// The results that are numbers, with their places in `completionWords`.
  var completionNumbers: [(position: Int, number: Int64)] = []
  var expirySearch = KeyValueStore.ExpirySearch()
  /// Hashes of the keys of the batch that is being applied.
  var keyHashes: [UInt64] = []

  var role = Role.follower
  var leader = NodeID.none
  var term: Term = 0
  var appliedIndex: LogIndex
  let durable: DurableStorage?
  let board: StageBoard?
  /// A state that is arriving from the leader.
  weak var receiving: (any SnapshotSink)?
  var configurationState: ConfigurationState
  /// The index of the last configuration change applied: what a change can be made conditional on.
  var configurationIndex: LogIndex
  /// The lane of the async and callback faces.
  let client: CallbackLane
  /// The term of the leadership that is being used, 0 if none.
  var leadershipTerm: Term = 0
  /// Everything committed before this leadership is at or below this index.
  var leadershipStartIndex: LogIndex = 0
  var transfers: [LeadershipTransfer] = []
  /// A whole state that has arrived, from when the core is told until it has taken it or not.
  var arrived: (index: LogIndex, state: ArrivedState)?
  /// An arrived state is taking the place of what the store held.
  var isInstalling = false
  /// The state that could not be taken, while this node lacks it.
  var refusal: StateRefusal?
  /// Members that do not take the state that this leader sends, and when they are asked again.
  var stateRetries: [NodeID: RetryPause] = [:]
  var isCapturing = false
  /// Who waits for the snapshot that is being written.
  var snapshotRequests: [@Sendable (Result<LogIndex, NodeError>) -> Void] = []
  /// Members that were removed, and until when their connection stays so that they can learn of it.
  var departed: [NodeID: UInt64] = [:]
  /// Where members are: from the log, from snapshots, and as this node was told. Part of each snapshot.
  var replicatedAddresses: [NodeID: String] = [:]
  /// Nodes that this one was told of directly, which counts for more than what a snapshot says.
  var introduced: Set<NodeID> = []
  var observers: [UInt64: @Sendable (NodeEvent) -> Void] = [:]
  /// Whether this turn runs on the thread of a caller, which may hold any lock: nothing of the application's is called.
  var isDrivenByCaller = false
  /// Whether a caller's turn has left something that only the loop's own turns may do.
  var hasLeftovers = false
  /// Messages that came since entries were last written: how busy this node is with other things.
  var messagesSinceCommit = 0
  /// Events of callers' turns, for the observers.
  var heldEvents: [NodeEvent] = []

  init(
    configuration: NodeConfiguration, store: KeyValueStore, published: PublishedState, intake: Intake,
    loop: any EventLoop, transport: any PeerTransport, recovered: RecoveredNode?
  ) throws {
    self.configuration = configuration
    self.store = store
    self.published = published
    self.intake = intake
    self.loop = loop
    self.transport = transport
    log = configuration.log
    board = configuration.stageBoard
    durable = recovered?.storage
    let snapshot =
      recovered == nil ? Self.bootstrap(configuration.initialVoters) : recovered?.snapshot
    configurationState = snapshot?.configuration ?? ConfigurationState(voters: configuration.initialVoters.sorted())
    configurationIndex = recovered?.configurationIndex ?? snapshot?.index ?? 0
    appliedIndex = snapshot?.index ?? 0
    client = CallbackLane(maximumBytes: configuration.maximumLaneBytes)
    retention = LogRetention(
      maximumBytes: configuration.maximumLogBytes, trailingBytes: configuration.trailingLogBytes)
    raft = try Self.makeRaft(configuration, configurationState, snapshot, recovered)
    client.slot = 0
    lanes.append(client)
    transport.delegate = self
    if let recovered { meetMembers(ofSnapshot: recovered.memberAddresses) }
  }

  /// What a cluster starts from: an empty state at index 1 of term 1, with the members that it starts with. Their log
  /// begins behind it, since no entry says who they are: a node that joins later and was given the log from its first
  /// entry on would believe that it is alone with those who were added since, and might lead without the others. This
  /// way it is sent a state first, and with it the whole configuration. Nil for a node that joins.
  static func bootstrap(_ voters: [NodeID]) -> SnapshotMetadata? {
    guard !voters.isEmpty else { return nil }
    return SnapshotMetadata(index: 1, term: 1, configuration: ConfigurationState(voters: voters.sorted()))
  }

  private static func makeRaft(
    _ configuration: NodeConfiguration, _ state: ConfigurationState, _ snapshot: SnapshotMetadata?,
    _ recovered: RecoveredNode?
  ) throws(RaftError) -> RawNode {
    var settings = RaftConfiguration(id: configuration.id)
    settings.electionTicks = configuration.electionTicks
    settings.heartbeatTicks = configuration.heartbeatTicks
    settings.tickNanoseconds = configuration.tickNanoseconds
    settings.maximumMessageBytes = configuration.maximumMessageBytes
    settings.maximumInflightMessages = configuration.maximumInflightMessages
    settings.maximumInflightBytes = configuration.maximumInflightBytes
    settings.maximumUncommittedBytes = configuration.maximumUncommittedBytes
    settings.maximumCommittedBytesPerReady = 16 << 20
    settings.checkQuorum = true
    settings.preVote = true
    settings.disableProposalForwarding = true
    settings.stepDownOnRemoval = true
    settings.leaseDriftBoundNanoseconds = configuration.leaseDriftBoundNanoseconds
    settings.refuseVotesWithinLease = true
    settings.randomSeed = configuration.seed
    guard let recovered else {
      let start = snapshot ?? SnapshotMetadata()
      return try RawNode(
        configuration: settings, log: LogBuffer(anchorIndex: start.index, anchorTerm: start.term),
        hardState: HardState(term: start.term, commit: start.index), configurationState: state, applied: start.index,
        availableSnapshot: snapshot.map { Snapshot(metadata: $0) })
    }
    settings.asynchronousStorageWrites = true
    // What this node promised before it restarted it does not remember, so it keeps still for as long as that may hold.
    var hardState = recovered.recovered.hardState
    settings.refuseVotesAfterStart = !recovered.isNew && !hardState.isEmpty
    // A node that has just been started for the first time has a snapshot and no term yet.
    if let snapshot, hardState.term < snapshot.term { hardState.term = snapshot.term }
    return try RawNode(
      configuration: settings, log: recovered.recovered.takeLog(), hardState: hardState,
      configurationState: state, applied: snapshot?.index ?? 0,
      availableSnapshot: snapshot.map { Snapshot(metadata: $0) })
  }

  func addPeer(_ peer: NodeID, address: SocketAddress) {
    introduced.insert(peer)
    departed[peer] = nil
    replicatedAddresses[peer] = address.description
    transport.addPeer(peer, address: address)
  }

  // MARK: Event loop

  var eventLoopHasWork: Bool { intake.hasWork.load(ordering: .sequentiallyConsistent) || transport.hasWork }

  var eventLoopAwaited: Int {
    var count = pending.waiting
    for case let lane? in lanes { count += Int(lane.roundedTicket &- lane.settledTicket.load(ordering: .relaxed)) }
    return count
  }

  func eventLoopCallerTurn() -> UInt64 {
    precondition(!isDrivenByCaller, "one caller's turn at a time")
    isDrivenByCaller = true
    let deadline = eventLoopTurn()
    precondition(isDrivenByCaller, "one caller's turn at a time")
    isDrivenByCaller = false
    if hasLeftovers { intake.post() }
    return deadline
  }

  func eventLoopReadable(channel: Int) {
    // The clock is read anew for each socket: a follower's promise not to vote counts from when it *heard* of the
    // leader, and a time from before the read would let it end too early.
    setClock()
    transport.readable(channel: channel)
  }

  func eventLoopWritable(channel: Int) { transport.writable(channel: channel) }

  func eventLoopTurn() -> UInt64 {
    if isStopping { return .max }
    turns += 1
    setClock()
    if hasLeftovers, !isDrivenByCaller { finishLeftovers() }
    var deadline = transport.advance(nowNanoseconds: now)
    if now >= nextTick, !isDrivenByCaller { tick() }
    if let board { noteFollowerAppend(board) }
    if intake.hasWork.load(ordering: .relaxed) { drainIntake() }
    processReady()
    settleReadRounds()
    publishLease()
    transport.flush()
    if let board { noteFlush(board) }
    if let durable { commitStored(durable) }
    publish()
    notifyLanes()
    if let board { noteAnswers(board) }
    deadline = min(deadline, nextTick, transport.nextFlushNanoseconds)
    return isStopping ? .max : deadline
  }

  private func setClock() {
    now = cweir_monotonic_nanoseconds()
    raft.nowNanoseconds = cweir_boottime_nanoseconds()
  }

  /// One tick at most for each turn, and never two closer together than a tick: a loop that was held up must not count
  /// time that its unread messages would have interrupted.
  private func tick() {
    nextTick = now + configuration.tickNanoseconds
    raft.tick()
    expireTransfers()
    repeatTransfers()
    forgetDeparted()
    forgetRefusal()
    proposeExpiry()
  }

  // MARK: Messages

  func transportReceived(_ message: inout Message) {
    // A snapshot comes by a way of its own (`transportSnapshotBegan`): without its state it would be none.
    guard message.type != .snapshot else { return }
    messagesSinceCommit += 1
    step(&message)
  }

  func step(_ message: inout Message) {
    do throws(RaftError) { try raft.step(&message) } catch {
      switch error {
      case .proposalDropped, .stepPeerNotFound: break
      default: log.warning("node \(configuration.id) refused a message from node \(message.from): \(error)")
      }
    }
  }

  /// The same of a message that is somebody else's.
  func step(_ message: Message) {
    var message = message
    step(&message)
  }

  func transportUnreachable(_ peer: NodeID) { raft.reportUnreachable(peer) }

  func transportConnectionChanged(_ peer: NodeID, isConnected: Bool) {
    notifyObservers(.peerConnection(peer, isConnected: isConnected))
  }

  // MARK: Ready

  /// Does what the core asks for until it asks for nothing more.
  func processReady() {
    while raft.hasReady {
      raft.ready(into: &ready)
      if let state = ready.softState { adopt(state) }
      if durable == nil {
        if let snapshot = ready.snapshot { install(snapshot) }
        if !ready.committedEntries.isEmpty { apply(ready.committedEntries) }
      }
      for message in ready.messages { send(message) }
      for state in ready.readStates { rounds.confirm(state) }
      for context in ready.refusedReads { refuseRound(context) }
      if durable == nil { raft.advance(ready) }
    }
    compactIfNeeded()
    writeSnapshotIfNeeded()
  }

  private func send(_ message: Message) {
    switch message.type {
    case .snapshot: sendSnapshot(message)
    case .storageAppend: storeDurably(message)
    case .storageApply:
      apply(message.entries)
      for var response in message.responses { step(&response) }
    default: transport.send(message)
    }
  }

  private func adopt(_ state: SoftState) {
    let wasLeader = role == .leader
    let isLeader = state.role == .leader
    let previousLeader = leader
    role = state.role
    leader = state.leader
    term = raft.term
    if wasLeader, !isLeader || leadershipTerm != term { endLeadership() }
    if isLeader, !wasLeader || leadershipTerm != term { beginLeadership() }
    client.leaderHint.store(leader, ordering: .relaxed)
    settleTransfers()
    if previousLeader != leader { notifyObservers(.leaderChanged(leader)) }
    if wasLeader != isLeader { notifyObservers(.roleChanged(role)) }
  }

  private func beginLeadership() {
    leadershipTerm = term
    leadershipStartIndex = raft.lastIndex
    stateRetries.removeAll()
    published.electionsWon.wrappingAdd(1, ordering: .relaxed)
    log.info("node \(configuration.id) leads in term \(term)")
  }

  /// Everything under way may be committed by the next leader or not: the outcome is unknown. Reads just failed.
  private func endLeadership() {
    published.leaseExpiryNanoseconds.store(0, ordering: .sequentiallyConsistent)
    leadershipTerm = 0
    log.info("node \(configuration.id) no longer leads")
    var lost: [(slot: Int, token: UInt32)] = []
    pending.removeAll { lost.append((PendingRing.slot(of: $0), UInt32(truncatingIfNeeded: $0))) }
    for (slot, token) in lost { complete(slot: slot, token: token, outcome: .leadershipLost) }
    rounds.removeAll { slot, ticket in settle(slot: slot, ticket: ticket, succeeded: false) }
  }

  // MARK: Publishing

  /// What other threads read.
  private func publish() {
    published.turns.store(turns, ordering: .relaxed)
    let commit = raft.commit
    let last = raft.lastIndex
    if published.role.load(ordering: .relaxed) != role.rawValue {
      published.role.store(role.rawValue, ordering: .releasing)
    }
    if published.leader.load(ordering: .relaxed) != leader { published.leader.store(leader, ordering: .releasing) }
    published.term.store(raft.term, ordering: .relaxed)
    published.commitIndex.store(commit, ordering: .relaxed)
    published.appliedIndex.store(appliedIndex, ordering: .releasing)
    published.lastIndex.store(last, ordering: .relaxed)
    let counters = transport.counters
    published.messagesSent.store(counters.messagesSent, ordering: .relaxed)
    published.bytesSent.store(counters.bytesSent, ordering: .relaxed)
    published.messagesReceived.store(counters.messagesReceived, ordering: .relaxed)
    published.writeCalls.store(counters.writeCalls, ordering: .relaxed)
    published.readCalls.store(counters.readCalls, ordering: .relaxed)
    published.messagesDropped.store(counters.messagesDropped, ordering: .relaxed)
    if turns & 63 == 0, let durable { published.syncs.store(UInt64(durable.log.counters.syncs), ordering: .relaxed) }
  }

  func notifyLanes() {
    guard !isDrivenByCaller else { return notifyLanesOfCaller() }
    for slot in lanesWithNews { lanes[slot]?.publish() }
    lanesWithNews.removeAll(keepingCapacity: true)
  }

  private func notifyLanesOfCaller() {
    lanesWithNews.removeAll { slot in
      guard let lane = lanes[slot] else { return true }
      if lane.callsOut {
        hasLeftovers = true
        return false
      }
      lane.publish()
      return true
    }
  }

  /// What callers' turns have left, before anything else of this turn.
  private func finishLeftovers() {
    hasLeftovers = false
    settleTransfers()
    let events = heldEvents
    heldEvents.removeAll()
    for event in events { notifyObservers(event) }
  }

  /// Ends everything, in the order that leaves nobody waiting. The last thing to run here.
  func shutDown() {
    guard !isStopping else { return }
    isStopping = true
    published.leaseExpiryNanoseconds.store(0, ordering: .sequentiallyConsistent)
    intake.close()
    registerNewLanes()
    pending.removeAll { [self] word in
      complete(slot: PendingRing.slot(of: word), token: UInt32(truncatingIfNeeded: word), outcome: .shutdown)
    }
    rounds.removeAll { slot, ticket in settle(slot: slot, ticket: ticket, succeeded: false) }
    for slot in lanes.indices { failIntake(of: slot, outcome: .shutdown) }
    for request in snapshotRequests { request(.failure(.shutdown)) }
    snapshotRequests.removeAll()
    client.shutDown()
    notifyLanes()
    // One that has arrived and is wanted the core asks for in this very turn.
    (receiving as? SnapshotFileSink)?.abandon()
    transport.close()
    role = .follower
    leader = .none
    let unfinished = transfers
    transfers.removeAll()
    for transfer in unfinished { transfer.callback(.failure(.shutdown)) }
    // Requests that came in before the intake was closed; each sees that this node is stopping.
    runRequests()
    published.role.store(role.rawValue, ordering: .releasing)
    published.leader.store(leader, ordering: .releasing)
  }
}
