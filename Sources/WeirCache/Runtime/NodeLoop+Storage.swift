import Raft
import Synchronization
import WeirCore
import WeirStorage

/// What a node with a write-ahead log does beside the protocol.
extension NodeLoop {
  /// Stores what the core asks for; its answers are stepped and sent once it is durable.
  func storeDurably(_ message: Message) {
    guard let durable else { return }
    if let snapshot = message.snapshot {
      install(snapshot.metadata, for: message, durable)
    } else {
      deliver(durable.store(message))
    }
  }

  /// Has written what this turn stored, once its messages have left: so the followers write while this node does. If it is
  /// written here, what follows from it is done in the same turn.
  func commitStored(_ durable: DurableStorage) {
    var isInlineAllowed = isAlmostIdle(durable)
    if durable.hasDeferred { messagesSinceCommit = 0 }
    while durable.commit(isInlineAllowed: isInlineAllowed) {
      finishWrites()
      processReady()
      settleReadRounds()
      publishLease()
      transport.flush()
      if let board { noteFlush(board) }
      // Once a turn: the sockets have to be looked at.
      isInlineAllowed = false
    }
    guard !isDrivenByCaller else {
      // What follows calls what is not the node's own, which must not happen on a thread that may hold a lock.
      if durable.failure != nil || durable.spaceWarning != nil { hasLeftovers = true }
      return
    }
    if let failure = durable.failure {
      fail(failure)
    } else if durable.spaceWarning != nil {
      noteSpaceWarning()
      if durable.isFull { refuseUnstored() }
    }
  }

  /// Whether nothing but what is to be written now is likely to wait for this node meanwhile: on a leader, next to no
  /// operation under way; on a follower, next to no entry in the batch, and next to no message since the last. A node that
  /// writes by itself hears nothing for the 100 µs that this takes. Where it always did, 5 writes among 95 Safe reads, all of
  /// whose rounds had to wait then, left a third of the throughput (0.30 to 0.34 M reads/s against 0.81 to 0.97), and 64
  /// writes in flight nine tenths; a lone write is as fast either way.
  private func isAlmostIdle(_ durable: DurableStorage) -> Bool {
    guard durable.deferredEntries <= Self.fewOperations else { return false }
    return role == .leader
      ? eventLoopAwaited <= Self.fewOperations : messagesSinceCommit <= 2 * Self.fewOperations
  }

  private static var fewOperations: Int { 2 }

  /// What waits for the log when there is no space for it to go on. Where nobody else votes it is refused: it is in no log,
  /// and will be in none. Others may have it in theirs, so there it may still be committed, or be lost with the leadership.
  private func refuseUnstored() {
    guard !pending.isEmpty, configurationState.isSoleVoter(configuration.id) else { return }
    var refused: [(slot: Int, token: UInt32)] = []
    pending.removeAll { refused.append((PendingRing.slot(of: $0), UInt32(truncatingIfNeeded: $0))) }
    for (slot, token) in refused { complete(slot: slot, token: token, outcome: .outOfSpace) }
  }

  /// Steps and sends the answers of everything that has become durable.
  func finishWrites() { durable?.finished { deliver($0) } }

  private func deliver(_ responses: [Message]) {
    for response in responses {
      if response.to == configuration.id { step(response) } else { transport.send(response) }
    }
  }

  /// The core wants the state that has arrived: it is put in place, from its file, before the log is told to continue behind
  /// it, and before the leader hears of it. Meanwhile this queue goes on: what is to be stored behind the snapshot waits for
  /// it, what is to be applied behind it the core does not hand out before, and look-ups find no state.
  private func install(_ metadata: SnapshotMetadata, for message: Message, _ durable: DurableStorage) {
    guard case .file(let file) = takeArrived(metadata) else {
      preconditionFailure("a node with files gets states as files")
    }
    isInstalling = true
    let intake = intake
    durable.install(file, metadata, for: message, into: store) { result in
      _ = intake.perform { $0.installed(metadata, result) }
    }
  }

  private func installed(_ metadata: SnapshotMetadata, _ result: Result<[NodeID: String], StorageError>) {
    isInstalling = false
    switch result {
    case .success(let memberAddresses):
      tookOver(metadata, memberAddresses)
      durable?.finishInstall { deliver($0) }
    case .failure(let error): fail(error)
    }
  }

  /// Writes the state as a snapshot once the log has grown by enough, so that it can be cut.
  func writeSnapshotIfNeeded() {
    guard let durable, durable.schedule.isDue(rank: memberRank, members: memberCount), !isStateInUse,
      let term = raft.term(at: appliedIndex)
    else { return }
    writeSnapshot(durable, term, isDue: true)
  }

  /// This node's place among those that hold the state, by their ids; the last one, if it is not a member.
  private var memberRank: Int {
    let state = configurationState
    return min(
      state.voters.count { $0 < configuration.id } + state.learners.count { $0 < configuration.id }, memberCount - 1)
  }

  private var memberCount: Int { max(configurationState.voters.count + configurationState.learners.count, 1) }

  /// Writes the state as a snapshot now; `completion` hears what came of it.
  func writeSnapshotOnRequest(_ completion: @escaping @Sendable (Result<LogIndex, NodeError>) -> Void) {
    guard let durable, !isStateInUse, let term = raft.term(at: appliedIndex) else {
      return completion(.failure(.snapshotUnavailable))
    }
    snapshotRequests.append(completion)
    writeSnapshot(durable, term, isDue: false)
  }

  private func writeSnapshot(_ durable: DurableStorage, _ term: Term, isDue: Bool) {
    isCapturing = true
    durable.beginSnapshot(isDue: isDue)
    let metadata = SnapshotMetadata(index: appliedIndex, term: term, configuration: configurationState)
    let intake = intake
    durable.write(
      beginCapture(), metadata, bytesPerSecond: configuration.snapshotBytesPerSecond
    ) { result in
      _ = intake.perform { $0.snapshotWritten(metadata, result) }
    }
  }

  private func snapshotWritten(_ metadata: SnapshotMetadata, _ result: Result<SnapshotMetadata, SnapshotFailure>) {
    isCapturing = false
    let requests = snapshotRequests
    snapshotRequests.removeAll()
    for request in requests {
      request(result.map { _ in metadata.index }.mapError { _ in .snapshotUnavailable })
    }
    switch result {
    case .success(let oldest):
      log.info("node \(configuration.id) wrote its state at index \(metadata.index)")
      // Not through the one just written: should that turn out to be damaged, the one before it still finds its log.
      durable?.log.compact(through: oldest.index, term: oldest.term)
    case .failure(let failure):
      if let error = failure.fatalError { return fail(error) }
      // The disk is full, or too much was overwritten meanwhile, which is not kept beyond a bound: it would be the state a
      // second time. In either case nothing is lost: the log goes on growing, and the next attempt comes with its next stretch.
      log.error("node \(configuration.id) gave up writing its state at index \(metadata.index): \(failure)")
    }
  }

  /// The disk has no room for the next segment of the log. What is left of this one is kept for what must not be refused
  /// (votes, and what a leader sends), so clients are refused, and another member that has room may lead.
  func noteSpaceWarning() {
    guard let durable, let error = durable.spaceWarning, !published.isOutOfSpace.load(ordering: .relaxed) else {
      return
    }
    published.isOutOfSpace.store(true, ordering: .releasing)
    log.critical(
      "node \(configuration.id) takes no more writes: there is no space for its log to go on (\(error)). What it holds is safe; make space and restart it"
    )
    guard role == .leader else { return }
    let successor = raft.progress.filter { $0.id != configuration.id && $0.isRecentlyActive && !$0.isLearner }
      .max { ($0.match, $1.id) < ($1.match, $0.id) }
    if let successor { raft.transferLeadership(to: successor.id) }
  }

  /// The storage has failed. What it had promised may be lost, so the node answers nothing any more and ends.
  func fail(_ error: StorageError) {
    guard !isStopping else { return }
    log.critical("node \(configuration.id) ends: its storage failed: \(error)")
    published.failure.withLock { $0 = "\(error)" }
    shutDown()
  }
}

extension ConfigurationState {
  /// Whether nobody else has a vote: what this node has not stored is then committed nowhere.
  fileprivate func isSoleVoter(_ id: NodeID) -> Bool { voters == [id] && votersOutgoing.isEmpty }
}
