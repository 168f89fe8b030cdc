import WeirCore

extension RawNode {
  // MARK: Sending

  /// Puts a message into the outbox: now, or behind the storing that it promises.
  mutating func send(_ message: consuming Message) {
    if message.from == .none { message.from = id }
    switch message.type {
    case .vote, .preVote:
      invariant(message.term != 0, "term should be set when sending \(message.type.etcdName)")
    case .voteResponse, .preVoteResponse, .propose, .readIndex:
      // Votes carry their own term; what is passed on to the leader carries none, to be valid in any.
      break
    default:
      invariant(message.term == 0, "term should not be set when sending \(message.type.etcdName) (was \(message.term))")
      message.term = term
    }
    switch message.type {
    case .appendResponse, .voteResponse, .preVoteResponse: sendAfterAppend(message)
    default:
      invariant(message.to != id, "message should not be self-addressed when sending \(message.type.etcdName)")
      trace(.send(message.type, to: message.to))
      outbox.append(message)
    }
  }

  /// Puts a message behind the storing of what it promises.
  ///
  /// Acknowledgements and votes say that an entry or a vote will survive a restart, rejections included: one may rest on a
  /// term that is not stored yet. Answers to this node itself are kept apart, since they never leave it.
  mutating func sendAfterAppend(_ message: Message) {
    trace(.send(message.type, to: message.to))
    if message.to == id {
      ownSteps.append(
        OwnStep(type: message.type, term: message.term, index: message.index, position: afterAppend.count))
    } else if hasPlantedBugs, sendsBeforeStored(message.type) {
      outbox.append(message)
    } else {
      afterAppend.append(message)
    }
  }

  /// Tells the leader that this node holds the log up to `index`, once it does.
  @inline(__always)
  mutating func sendAcknowledgement(to leader: NodeID, index: LogIndex) {
    if hasPlantedBugs { return sendAcknowledgementSlowly(to: leader, index: index) }
    trace(.send(.appendResponse, to: leader))
    afterAppend.append(Message(acknowledging: index, to: leader, from: id, term: term))
  }

  @inline(never)
  private mutating func sendAcknowledgementSlowly(to leader: NodeID, index: LogIndex) {
    var answer = Message(type: .appendResponse, to: leader, from: id, term: term)
    answer.index = index
    sendAfterAppend(answer)
  }

  private func sendsBeforeStored(_ type: MessageType) -> Bool {
    type == .appendResponse
      ? plantedBugs.contains(.appendAckBeforeStored) : plantedBugs.contains(.voteBeforeStored)
  }

  /// Sends an append message with what the member lacks, up to the limits; nothing while it is paused.
  /// - Returns: whether a message went out.
  @discardableResult
  mutating func sendAppend(slot: Int, evenIfEmpty: Bool = true) -> Bool {
    if tracker.progress[slot].isPaused { return false }
    let next = tracker.progress[slot].next
    let last = log.lastIndex
    // The previous term is looked up even for an empty message: without it (compacted away) a member would take a message
    // that says nothing about where the logs agree, and commit what it does not have.
    guard let previousTerm = log.term(at: next - 1) ?? termOfCompactedPrevious(slot: slot) else {
      return sendSnapshot(slot: slot)
    }
    if next > last, !evenIfEmpty { return false }
    // A full window lets an empty message through: if all that is under way was lost, only its answer can tell.
    let isThrottled = tracker.progress[slot].state == .replicate && tracker.progress[slot].inflights.isFull
    if isThrottled, !evenIfEmpty { return false }
    let to = tracker.progress[slot].id
    trace(.send(.append, to: to))
    let commit = log.committed
    outbox.append(
      Message(appendingBehind: next - 1, logTerm: previousTerm, commit: commit, to: to, from: id, term: term))
    guard next <= last, !isThrottled else {
      tracker.progress[slot].sentNoEntries(commit: commit)
      return true
    }
    let entries = log.batch(from: next, through: last, maximumBytes: configuration.maximumMessageBytes)
    tracker.sentEntries(slot: slot, count: entries.count, bytes: entries.payloadBytes, commit: commit)
    // Put where the message lies already: on the way into the array its references would be counted once more.
    outbox[outbox.count - 1].entries = entries
    return true
  }

  /// Nil, so that a snapshot is sent instead.
  private func termOfCompactedPrevious(slot: Int) -> Term? {
    guard hasPlantedBugs, plantedBugs.contains(.appendWithoutPreviousTerm) else { return nil }
    let isThrottled = tracker.progress[slot].state == .replicate && tracker.progress[slot].inflights.isFull
    return isThrottled ? 0 : nil
  }

  @inline(never)
  private mutating func sendSnapshot(slot: Int) -> Bool {
    let to = tracker.progress[slot].id
    guard tracker.progress[slot].isRecentlyActive else {
      logger.write(.debug) { "ignore sending snapshot to \(to.hex) since it is not recently active" }
      return false
    }
    guard let snapshot = log.snapshotToSend, !snapshot.isEmpty else {
      logger.write(.debug) {
        "\(id.hex) failed to send snapshot to \(to.hex) because snapshot is temporarily unavailable"
      }
      return false
    }
    let metadata = snapshot.metadata
    logger.write(.debug) {
      "\(id.hex) [firstindex: \(log.firstIndex), commit: \(log.committed)] sent snapshot[index: \(metadata.index), "
        + "term: \(metadata.term)] to \(to.hex) [\(tracker.progress[slot])]"
    }
    tracker.progress[slot].becomeSnapshot(index: metadata.index)
    logger.write(.debug) {
      "\(id.hex) paused sending replication messages to \(to.hex) [\(tracker.progress[slot])]"
    }
    var message = Message(type: .snapshot, to: to)
    message.attachment = MessageAttachment(snapshot: snapshot)
    send(message)
    return true
  }

  /// Sends an append message to every other member, learners included, ascending by id.
  mutating func broadcastAppend() {
    var slot = 0
    while slot < tracker.progress.count {
      if slot != ownSlot { sendAppend(slot: slot) }
      slot += 1
    }
  }

  /// Sends a heartbeat to every other member: a new round for reads and for the lease.
  mutating func broadcastHeartbeat() {
    let round = reads.sendRound()
    if configuration.refuseVotesWithinLease { lease.sent(round: round, at: nowNanoseconds) }
    for slot in tracker.progress.indices where slot != ownSlot {
      var message = Message(type: .heartbeat, to: tracker.progress[slot].id)
      message.commit = min(tracker.progress[slot].match, log.committed)
      if hasPlantedBugs && plantedBugs.contains(.heartbeatCommitBeyondMatch) { message.commit = log.committed }
      message.context = round
      send(message)
      tracker.progress[slot].sentCommit = min(tracker.progress[slot].match, log.committed)
    }
    if let ownSlot { handleRoundAnswer(slot: ownSlot, round: round) }
  }

  mutating func sendTimeoutNow(to target: NodeID) {
    lease.isVoidForTerm = true
    send(Message(type: .timeoutNow, to: target))
  }

  // MARK: Own entries

  private mutating func reserveUncommitted(_ bytes: Int) -> Bool {
    let limit = configuration.maximumUncommittedBytes
    // The first one is always taken, so that one larger than the limit is not refused for ever; an empty one always, so
    // that a new leader's own and the one that leaves a joint configuration are never refused.
    if limit > 0, uncommittedBytes > 0, bytes > 0, uncommittedBytes + bytes > limit {
      logger.write(.warning) {
        "\(id.hex) appending new entries to log would exceed uncommitted entry size limit; dropping proposal"
      }
      return false
    }
    uncommittedBytes += bytes
    return true
  }

  @inline(__always)
  mutating func appendOwn(payload: RawSpan, kind: EntryKind) -> Bool {
    guard reserveUncommitted((payload.byteCount + 7) & ~7) else { return false }
    log.append(payload: payload, kind: kind, term: term)
    acknowledgeOwn(count: 1)
    return true
  }

  /// - Parameter refused: positions within the batch whose entries become empty ones.
  mutating func appendOwn(_ batch: EntryBatch, replacing refused: [Int]) -> Bool {
    guard reserveUncommitted(batch.payloadBytes) else { return false }
    if refused.isEmpty {
      log.append(proposals: batch, term: term)
    } else {
      var position = 0
      batch.forEach { header, payload in
        if refused.contains(position) {
          log.append(payload: [UInt8]().span.bytes, kind: .normal, term: term)
        } else {
          log.append(payload: payload, kind: header.kind, term: term)
        }
        position += 1
      }
    }
    acknowledgeOwn(count: batch.count)
    return true
  }

  /// The leader is a member like the others: its entries count once they are stored, and it is told by the same message.
  private mutating func acknowledgeOwn(count: Int) {
    trace(.replicate(count: count))
    if hasPlantedBugs && plantedBugs.contains(.commitBeforeStored), let ownSlot {
      _ = tracker.progress[ownSlot].maybeUpdate(to: log.lastIndex)
      _ = maybeCommit()
    }
    trace(.send(.appendResponse, to: id))
    ownSteps.append(
      OwnStep(type: .appendResponse, term: term, index: log.lastIndex, position: afterAppend.count))
  }

  /// `maybeCommit` after one member's acknowledgement, which moves nothing if it only says what is committed already.
  @inline(__always)
  mutating func maybeCommit(acknowledged index: LogIndex) -> Bool {
    index > log.committed && maybeCommit()
  }

  /// Commits what a quorum has, if it is of this term: an older entry on a quorum may still be replaced by a leader that
  /// a quorum without it elects (paper, figure 8).
  mutating func maybeCommit() -> Bool {
    let index = tracker.committedIndex
    guard index > log.committed else { return false }
    var commitTerm = term
    if hasPlantedBugs && plantedBugs.contains(.commitOlderTerm) { commitTerm = log.termOrZero(at: index) }
    guard log.maybeCommit(EntryID(term: commitTerm, index: index)) else { return false }
    hasCommittedInTerm = true
    trace(.commit)
    return true
  }
}

extension Message {
  @inline(__always)
  fileprivate init(
    appendingBehind index: LogIndex, logTerm: Term, commit: LogIndex, to: NodeID, from: NodeID, term: Term
  ) {
    self.init(type: .append, to: to, from: from, term: term)
    self.logTerm = logTerm
    self.index = index
    self.commit = commit
  }

  /// Made in one piece: a variable that is filled bit by bit is copied once more on its way into the outbox.
  @inline(__always)
  fileprivate init(acknowledging index: LogIndex, to: NodeID, from: NodeID, term: Term) {
    self.init(type: .appendResponse, to: to, from: from, term: term)
    self.index = index
  }
}
