import CWeir
import Dispatch
import Logging
import Raft
import Synchronization
import WeirCore
import WeirTransport

/// A member of a cluster: Raft, its log, its connections and the state machine, on one serial queue.
///
/// Sendable: what it refers to is atomic, under a lock, or confined to the queue and only reached through the intake.
public final class Node: @unchecked Sendable {
  public let id: NodeID
  /// The replicated state, readable from any thread. What is read directly is what this node has applied, no more:
  /// see `leaseHeldDuringReads` and `Lane` for linearizable reads.
  public let store: KeyValueStore
  /// Where this node listens for others.
  public let address: SocketAddress?
  public let mechanism: ReadinessMechanism
  /// Whether threads that ask something of a sleeping node, or wait for the only answer under way, run its loop themselves.
  public let isDrivenByCallers: Bool
  let configuration: NodeConfiguration
  let published = PublishedState()
  let intake: Intake
  let client: CallbackLane
  private let loop: any EventLoop
  /// Confined to the queue once started.
  private let driver: NodeLoop
  let observerCount = Atomic<UInt64>(0)
  private let lifecycle = Mutex(Lifecycle.ready)

  private enum Lifecycle {
    case ready, running, stopped
  }

  /// A node that talks TCP. It listens at once, and does nothing else before `start`.
  /// - Throws: `TransportError` if it cannot listen, `RaftError` for settings that cannot work.
  public convenience init(_ configuration: NodeConfiguration) throws {
    let loop = try configuration.eventLoop.makeLoop(label: "weir.node.\(configuration.id)")
    var settings = TransportConfiguration(
      clusterID: configuration.clusterID, nodeID: configuration.id, listenAddress: configuration.listenAddress,
      seed: configuration.seed)
    settings.maximumQueuedBytesPerPeer = configuration.maximumQueuedBytesPerPeer
    settings.commitNoticeDelayNanoseconds = configuration.commitNoticeDelayNanoseconds
    // Members that were added while this node was away are not in its table yet; the log tells it once it follows.
    settings.admitsUnknownNodes = true
    let transport = try TCPTransport(configuration: settings, loop: loop, log: configuration.log)
    try self.init(configuration, loop: loop, transport: transport, address: transport.address)
  }

  /// A node on an in-memory network.
  public convenience init(_ configuration: NodeConfiguration, network: InMemoryNetwork) throws {
    let loop = try configuration.eventLoop.makeLoop(label: "weir.node.\(configuration.id)")
    let transport = InMemoryTransport(network: network, node: configuration.id, loop: loop)
    for peer in configuration.initialVoters where peer != configuration.id { transport.addPeer(peer) }
    try self.init(configuration, loop: loop, transport: transport, address: nil)
  }

  private init(
    _ configuration: NodeConfiguration, loop: any EventLoop, transport: any PeerTransport, address: SocketAddress?
  ) throws {
    self.configuration = configuration
    id = configuration.id
    self.address = address
    self.loop = loop
    mechanism = loop.mechanism
    isDrivenByCallers = loop.callersDrive
    store = KeyValueStore(shardCount: configuration.shardCount, hashSeed: configuration.seed)
    let intake = Intake(loop: loop, isDurable: configuration.storage != .memory)
    self.intake = intake
    var recovered: RecoveredNode?
    if case .files(let directory, let sync) = configuration.storage {
      recovered = try RecoveredNode.open(
        configuration, directory: directory, sync: sync, start: NodeLoop.bootstrap(configuration.initialVoters),
        store: store, wake: { intake.post() })
    }
    driver = try NodeLoop(
      configuration: configuration, store: store, published: published, intake: intake, loop: loop,
      transport: transport, recovered: recovered)
    if let address, !address.isWildcard { driver.replicatedAddresses[configuration.id] = address.description }
    client = driver.client
  }

  /// Makes another node known. Before `start`, or at any time after.
  public func addPeer(_ peer: NodeID, address: SocketAddress) {
    guard peer != id else { return }
    let isReady = lifecycle.withLock { lifecycle in
      guard lifecycle == .ready else { return false }
      driver.addPeer(peer, address: address)
      return true
    }
    if !isReady { _ = intake.perform { $0.addPeer(peer, address: address) } }
  }

  /// Begins to take part.
  public func start() {
    lifecycle.withLock { lifecycle in
      precondition(lifecycle == .ready, "a node is started once")
      lifecycle = .running
      nonisolated(unsafe) let handler: any EventLoopHandler = driver
      unsafe loop.start(handler)
    }
  }

  /// Ends it: when this returns, everything under way has been answered, and no thread or socket of it remains.
  public func stop() {
    let previous = lifecycle.withLock { lifecycle in
      let previous = lifecycle
      lifecycle = .stopped
      return previous
    }
    guard previous != .stopped else { return }
    guard previous == .running else {
      // Never started: what is confined to the queue is still ours, and whoever asked for something gets an answer.
      driver.shutDown()
      driver.durable?.close()
      return
    }
    let done = DispatchSemaphore(value: 0)
    let isAccepted = intake.perform { driver in
      driver.shutDown()
      done.signal()
    }
    if isAccepted { done.wait() }
    loop.stop()
    // The queue has stopped: what was confined to it is ours now.
    driver.durable?.close()
  }

  /// Why the node ended by itself, if it did: its storage failed.
  public var failure: String? { published.failure.withLock { $0 } }

  /// Why it did not take the state that its leader last sent, as long as it lacks that: on a full disk it falls behind, and
  /// takes the state by itself once there is space for it.
  public var stateRefusal: String? { published.stateRefusal.withLock { $0 } }

  /// How fast a snapshot is written at most, in bytes per second.
  public var snapshotBytesPerSecond: Int { configuration.snapshotBytesPerSecond }

  /// Whether it refuses writes because its disk has no room for the log to go on. What it holds is safe, and it serves
  /// reads; after space was made it takes writes again once it is restarted.
  public var isOutOfSpace: Bool { published.isOutOfSpace.load(ordering: .acquiring) }

  // MARK: Looking

  public var status: NodeStatus {
    NodeStatus(
      id: id, role: Role(rawValue: published.role.load(ordering: .acquiring)) ?? .follower,
      leader: published.leader.load(ordering: .acquiring), term: published.term.load(ordering: .relaxed),
      commitIndex: published.commitIndex.load(ordering: .relaxed),
      appliedIndex: published.appliedIndex.load(ordering: .acquiring),
      lastIndex: published.lastIndex.load(ordering: .relaxed))
  }

  public var isLeader: Bool { published.role.load(ordering: .acquiring) == Role.leader.rawValue }

  /// Whether Lease reads are answered at this moment.
  public var holdsLease: Bool { leaseHeldDuringReads() }

  public var counters: NodeCounters {
    var counters = NodeCounters()
    counters.messagesSent = published.messagesSent.load(ordering: .relaxed)
    counters.bytesSent = published.bytesSent.load(ordering: .relaxed)
    counters.messagesReceived = published.messagesReceived.load(ordering: .relaxed)
    counters.writeCalls = published.writeCalls.load(ordering: .relaxed)
    counters.readCalls = published.readCalls.load(ordering: .relaxed)
    counters.messagesDropped = published.messagesDropped.load(ordering: .relaxed)
    counters.turns = published.turns.load(ordering: .relaxed)
    counters.wakeups = loop.wakeups
    counters.loopSystemCalls = loop.systemCalls
    counters.proposals = published.proposals.load(ordering: .relaxed)
    counters.proposalBatches = published.proposalBatches.load(ordering: .relaxed)
    counters.readRounds = published.readRounds.load(ordering: .relaxed)
    counters.electionsWon = published.electionsWon.load(ordering: .relaxed)
    counters.syncs = published.syncs.load(ordering: .relaxed)
    counters.cpuNanoseconds = loop.cpuNanoseconds
    return counters
  }

  // MARK: Snapshots

  /// Writes the state as a snapshot now, whatever the thresholds say; `completion` is called on the node's queue with the
  /// index that it holds.
  public func writeSnapshot(completion: @escaping @Sendable (Result<LogIndex, NodeError>) -> Void) {
    if !intake.perform({ $0.writeSnapshotOnRequest(completion) }) { completion(.failure(.shutdown)) }
  }

  // MARK: Lanes

  /// Opens a lane for one thread.
  /// - Throws: `NodeError.shutdown` if the node has stopped.
  public func openLane(capacity: Int, parker: Parker) throws(NodeError) -> SessionLane {
    try open(SessionLane(capacity: capacity, parker: parker))
  }

  /// Opens a lane for one thread that waits for other things as well: `wake` is called on the node's queue, or on a thread
  /// in `park`.
  /// - Throws: `NodeError.shutdown` if the node has stopped.
  public func openLane(capacity: Int, wake: @escaping @Sendable () -> Void) throws(NodeError) -> SessionLane {
    try open(SessionLane(capacity: capacity, wake: wake))
  }

  private func open(_ lane: SessionLane) throws(NodeError) -> SessionLane {
    guard intake.register(lane) else { throw .shutdown }
    return lane
  }

  /// Proposes a batch: `tokens` has one for each entry. Each is answered by one completion in the lane.
  /// - Returns: whether the lane took it; not if it holds too much already, or the node has stopped.
  public func submit(_ batch: EntryBatch, tokens: [UInt32], lane: Lane) -> Bool {
    configuration.stageBoard?.begin()
    guard lane.enqueue(batch, tokens: tokens, maximumBytes: configuration.maximumLaneBytes) else { return false }
    intake.post(lane)
    // Looked at afterwards: a node that has stopped before the batch was in the lane never sees it, one that stops after
    // that answers it.
    return !intake.isClosed || !lane.withdraw()
  }

  /// Asks that the lane's owner may answer `count` more reads from the state machine: when the lane has settled the
  /// returned ticket, and not failed it, that state contains everything that was acknowledged before this call.
  public func requestReads(_ count: UInt64, lane: Lane) -> UInt64 {
    let ticket = lane.requestedTicket.wrappingAdd(count, ordering: .releasing).newValue
    intake.post(lane)
    if intake.isClosed { lane.isOrphan.store(true, ordering: .releasing) }
    return ticket
  }

  /// Sleeps until `lane`'s parker is notified or the deadline (CLOCK_MONOTONIC) has passed. The calling thread runs the
  /// node's loop meanwhile, if the operation that it waits for is the only one: then the answer wakes this thread and no
  /// other first. It may so call callbacks of other callers: none of them may want what this thread holds.
  public func park(_ parker: Parker, lane: Lane, untilNanoseconds deadline: UInt64) {
    let wasHosted = parker.park(untilNanoseconds: deadline, in: loop)
    if lane.isResident.load(ordering: .relaxed) != wasHosted { lane.isResident.store(wasHosted, ordering: .relaxed) }
  }

  /// Ends a lane. Nothing is delivered to it that its owner would have to look at any more.
  public func close(_ lane: Lane) {
    lane.isClosed.store(true, ordering: .releasing)
    intake.post(lane)
  }
}
