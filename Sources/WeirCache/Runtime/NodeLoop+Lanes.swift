import Raft
import Synchronization
import WeirCore

/// Proposals and reads on their way in, completions on their way out.
extension NodeLoop {
  /// Takes everything that waits in the lanes.
  func drainIntake() {
    // Cleared before looking: what is posted from here on asks for another turn.
    intake.hasWork.store(false, ordering: .sequentiallyConsistent)
    finishWrites()
    registerNewLanes()
    if !isDrivenByCaller { runRequests() } else if intake.hasRequests { hasLeftovers = true }
    var readsWait = false
    for slot in lanes.indices {
      guard let lane = lanes[slot], lane.isDirty.exchange(false, ordering: .acquiringAndReleasing) else { continue }
      proposeAll(of: lane)
      let ticket = lane.requestedTicket.load(ordering: .acquiring)
      if ticket != lane.roundedTicket {
        lane.roundedTicket = ticket
        rounds.wait(slot: slot, ticket: ticket)
        readsWait = true
      }
      if lane.isClosed.load(ordering: .acquiring), lane.inFlight == 0 { lanes[slot] = nil }
    }
    if readsWait { startRound() }
  }

  func registerNewLanes() {
    for lane in intake.takeNewLanes() {
      let slot = lanes.firstIndex { $0 == nil } ?? lanes.count
      lane.slot = slot
      if slot == lanes.count { lanes.append(lane) } else { lanes[slot] = lane }
      lane.isDirty.store(true, ordering: .releasing)
    }
  }

  // MARK: Proposals

  private func proposeAll(of lane: Lane) {
    lane.takeInbox(into: &laneBatches, tokens: &laneTokens)
    guard !laneBatches.isEmpty else { return }
    board?.drained()
    lane.inFlight += laneTokens.count
    var position = 0
    for batch in laneBatches {
      propose(batch, tokens: laneTokens[position..<position + batch.count], lane)
      position += batch.count
    }
    laneBatches.removeAll(keepingCapacity: true)
    laneTokens.removeAll(keepingCapacity: true)
  }

  private func propose(_ batch: EntryBatch, tokens: ArraySlice<UInt32>, _ lane: Lane) {
    guard role == .leader else { return refuse(tokens, lane, .notLeader) }
    guard durable?.spaceWarning == nil else { return refuse(tokens, lane, .outOfSpace) }
    let first = raft.lastIndex + 1
    do throws(RaftError) {
      try raft.propose(batch)
      pending.append(from: first, slot: lane.slot, tokens: tokens)
      board?.appended(at: first + UInt64(tokens.count) - 1)
      published.proposals.wrappingAdd(UInt64(tokens.count), ordering: .relaxed)
      published.proposalBatches.wrappingAdd(1, ordering: .relaxed)
    } catch {
      if case .proposalDropped(.uncommittedLimit) = error {
        refuse(tokens, lane, .overloaded)
      } else {
        refuse(tokens, lane, .notLeader)
      }
    }
  }

  private func refuse(_ tokens: ArraySlice<UInt32>, _ lane: Lane, _ outcome: Outcome) {
    for token in tokens { complete(slot: lane.slot, token: token, outcome: outcome) }
  }

  /// What waits in a lane is answered without being proposed.
  func failIntake(of slot: Int, outcome: Outcome) {
    guard let lane = lanes[slot] else { return }
    var batches: [EntryBatch] = []
    var tokens: [UInt32] = []
    lane.takeInbox(into: &batches, tokens: &tokens)
    lane.inFlight += tokens.count
    for token in tokens { complete(slot: slot, token: token, outcome: outcome) }
    let ticket = lane.requestedTicket.load(ordering: .acquiring)
    if ticket != lane.settledTicket.load(ordering: .acquiring) { settle(slot: slot, ticket: ticket, succeeded: false) }
  }

  // MARK: Completions

  /// Answers one proposal that has no index.
  func complete(slot: Int, token: UInt32, outcome: Outcome) {
    completionWords.append(LaneCompletion(token: token, outcome: outcome).word)
    deliver(to: slot, firstIndex: 0)
  }

  /// Hands the collected completions to a lane.
  func deliver(to slot: Int, firstIndex: LogIndex) {
    if let lane = lanes[slot] {
      lane.inFlight -= completionWords.count
      if !lane.hasNews { lanesWithNews.append(slot) }
      if !completionNumbers.isEmpty { lane.deliver(numbers: completionNumbers) }
      lane.deliver(completionWords, firstIndex: firstIndex)
      if lane.isClosed.load(ordering: .relaxed), lane.inFlight == 0 { intake.post() }
    }
    completionWords.removeAll(keepingCapacity: true)
    if !completionNumbers.isEmpty { completionNumbers.removeAll(keepingCapacity: true) }
  }

  // MARK: Applying

  /// Applies committed entries in order, and answers those that were proposed here: consecutive entries of one lane
  /// with one call.
  func apply(_ batch: EntryBatch) {
    if let board, role == .leader { noteCommit(board, batch.lastIndex) }
    lookAhead(batch)
    var runSlot = -1
    var runFirst: LogIndex = 0
    var position = 0
    batch.forEach { header, payload in
      let (outcome, number) = applyEntry(header, payload, hash: keyHashes[position])
      position += 1
      let word = pending.take(header.index)
      let slot = word == PendingRing.nobody ? -1 : PendingRing.slot(of: word)
      if slot != runSlot {
        if runSlot >= 0 { deliver(to: runSlot, firstIndex: runFirst) }
        runSlot = slot
        runFirst = header.index
      }
      if slot >= 0 {
        if outcome == .appliedNumber { completionNumbers.append((completionWords.count, number)) }
        completionWords.append(LaneCompletion(token: UInt32(truncatingIfNeeded: word), outcome: outcome).word)
      }
    }
    if runSlot >= 0 { deliver(to: runSlot, firstIndex: runFirst) }
    appliedIndex = batch.lastIndex
    retention.applied(through: batch.lastIndex, bytes: batch.byteCount)
    if let board, role == .leader, board.hasPassed(.committed) { board.pass(.applied) }
  }

  /// Hashes the keys of a batch and begins to fetch what they will touch; see `KeyValueStore.prefetchSlot`.
  private func lookAhead(_ batch: EntryBatch) {
    keyHashes.removeAll(keepingCapacity: true)
    batch.forEach { header, payload in
      let hash = header.kind == .normal ? store.prefetchSlot(payload) : nil
      keyHashes.append(hash ?? 0)
    }
    guard keyHashes.count > 1 else { return }
    for hash in keyHashes { store.prefetchRecord(hash: hash) }
  }

  @inline(__always)
  private func applyEntry(
    _ header: EntryHeader, _ payload: RawSpan, hash: UInt64
  ) -> (outcome: Outcome, number: Int64) {
    guard header.kind == .normal else {
      applyConfigurationChange(header, payload)
      return (.appliedFresh, 0)
    }
    // A new leader's first entry, and a barrier: nothing to do but to have come this far.
    guard payload.byteCount > 0 else { return (.appliedFresh, 0) }
    switch store.apply(payload, hash: hash) {
    case .set(let existed), .deleted(let existed): return (existed ? .appliedExisting : .appliedFresh, 0)
    case .number(let number): return (.appliedNumber, number)
    case .unmet: return (.conditionUnmet, 0)
    case .notANumber: return (.notANumber, 0)
    case .overflow: return (.overflow, 0)
    case .refused: return (.refused, 0)
    }
  }

  // MARK: Reads

  /// Begins a round for all reads that wait, unless enough are under way: then they share the next one.
  func startRound() {
    guard rounds.hasWaiting else { return }
    guard role == .leader else {
      rounds.takeWaiting { slot, ticket in settle(slot: slot, ticket: ticket, succeeded: false) }
      return
    }
    guard let context = rounds.start() else { return }
    published.readRounds.wrappingAdd(1, ordering: .relaxed)
    raft.readIndex(context: context)
  }

  func refuseRound(_ context: UInt64) {
    rounds.refuse(context) { slot, ticket in settle(slot: slot, ticket: ticket, succeeded: false) }
  }

  /// Lets the lanes answer the reads whose round was confirmed at an index that is applied by now.
  func settleReadRounds() {
    guard rounds.hasUnderWay || rounds.hasWaiting else { return }
    rounds.settle(appliedIndex: appliedIndex) { slot, ticket in settle(slot: slot, ticket: ticket, succeeded: true) }
    if rounds.hasWaiting, rounds.canStart {
      startRound()
      // The new round's heartbeats leave with this turn's flush.
      intake.post()
    }
  }

  func settle(slot: Int, ticket: UInt64, succeeded: Bool) {
    guard let lane = lanes[slot] else { return }
    if !lane.hasNews { lanesWithNews.append(slot) }
    lane.settleReads(through: ticket, succeeded: succeeded)
  }
}
