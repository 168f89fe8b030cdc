import WeirCore

extension RawNode {
  mutating func stepLeader(_ message: Message) throws(RaftError) {
    switch message.type {
    case .appendResponse:
      guard let slot = memberSlot(message.from) else { return }
      if message.reject {
        handleAppendRejection(message, slot: slot)
      } else {
        try acknowledge(slot: slot, from: message.from, index: message.index)
      }
    case .heartbeatResponse:
      if let slot = memberSlot(message.from) { handleHeartbeatResponse(message, slot: slot) }
    case .propose: try proposeOwn(message.entries)
    case .readIndex: handleReadIndex(context: message.context, from: message.from)
    case .beat: broadcastHeartbeat()
    case .checkQuorum: checkQuorum()
    case .snapshotStatus:
      if let slot = memberSlot(message.from) { handleSnapshotStatus(message, slot: slot) }
    case .unreachable:
      if let slot = memberSlot(message.from) { handleUnreachable(message, slot: slot) }
    case .transferLeader:
      if let slot = memberSlot(message.from) { handleTransfer(to: message.from, slot: slot) }
    default: break
    }
  }

  @inline(__always)
  private func memberSlot(_ from: NodeID) -> Int? { tracker.slot(of: from) ?? strangerSlot(from) }

  @inline(never)
  private func strangerSlot(_ from: NodeID) -> Int? {
    logger.write(.debug) { "\(id.hex) no progress available for \(from.hex)" }
    return nil
  }

  // MARK: Proposals

  /// Why this leader takes no proposal now.
  func refusalOfProposals() -> ProposalDropReason? {
    guard ownSlot != nil else { return .notMember }
    guard leadTransferee == .none else {
      logger.write(.debug) {
        "\(id.hex) [term \(term)] transfer leadership to \(leadTransferee.hex) is in progress; dropping proposal"
      }
      return .transferInProgress(to: leadTransferee)
    }
    return nil
  }

  mutating func proposeOwn(_ batch: EntryBatch) throws(RaftError) {
    guard !batch.isEmpty else { throw .proposalDropped(.invalidPayload) }
    if let reason = refusalOfProposals() { throw .proposalDropped(reason) }
    let refused = try checkConfigurationChanges(in: batch)
    guard appendOwn(batch, replacing: refused) else { throw .proposalDropped(.uncommittedLimit) }
    broadcastAppend()
  }

  mutating func proposeOwn(payload: RawSpan) throws(RaftError) {
    if let reason = refusalOfProposals() { throw .proposalDropped(reason) }
    guard appendOwn(payload: payload, kind: .normal) else { throw .proposalDropped(.uncommittedLimit) }
    broadcastAppend()
  }

  // MARK: Quorum

  @inline(never)
  private mutating func checkQuorum() {
    if !tracker.isQuorumActive {
      logger.write(.warning) { "\(id.hex) stepped down to follower since quorum is not active" }
      becomeFollower(term: term, leader: .none)
    }
    for slot in tracker.progress.indices where tracker.progress[slot].id != id {
      tracker.progress[slot].isRecentlyActive = false
    }
  }

  // MARK: Responses to appends

  @inline(never)
  private mutating func handleAppendRejection(_ message: Message, slot: Int) {
    tracker.progress[slot].isRecentlyActive = true
    logger.write(.debug) {
      "\(id.hex) received MsgAppResp(rejected, hint: (index \(message.rejectHint), term \(message.logTerm))) from "
        + "\(message.from.hex) for index \(message.index)"
    }
    var hint = message.rejectHint
    // The follower has `logTerm` at the hint and lower terms before. Entries of this log with higher terms cannot match
    // anything there: skip them all at once instead of probing one by one.
    if message.logTerm > 0 { hint = log.findConflict(at: hint, term: message.logTerm).index }
    guard tracker.progress[slot].maybeDecrease(rejected: message.index, hint: hint) else { return }
    logger.write(.debug) {
      "\(id.hex) decreased progress of \(message.from.hex) to [\(tracker.progress[slot])]"
    }
    if tracker.progress[slot].state == .replicate { tracker.progress[slot].becomeProbe() }
    sendAppend(slot: slot)
  }

  /// A member holds the log up to `index`.
  mutating func acknowledge(slot: Int, from member: NodeID, index: LogIndex) throws(RaftError) {
    guard index <= log.lastIndex else { throw impossibleAcknowledgement(of: index, from: member) }
    let isNews = tracker.acknowledged(slot: slot, through: index)
    let state = tracker.progress[slot].state
    // Also what is known already moves a probed member on: it may have been told unreachable, and have nothing to catch up.
    guard isNews || (state == .probe && tracker.progress[slot].match == index) else { return }
    if state != .replicate { leaveProbeOrSnapshot(slot: slot) }
    let isOwn = member == id
    if maybeCommit(acknowledged: index) {
      releasePostponedReads()
      broadcastAppend()
    } else if !isOwn, tracker.progress[slot].canBumpCommit(to: log.committed) {
      sendAppend(slot: slot)
    }
    guard !isOwn else { return }
    // The window may have room again for more than one message.
    while sendAppend(slot: slot, evenIfEmpty: false) {}
    if member == leadTransferee, tracker.progress[slot].match == log.lastIndex { completeTransfer(to: member) }
  }

  @inline(never)
  private mutating func completeTransfer(to member: NodeID) {
    logger.write(.info) { "\(id.hex) sent MsgTimeoutNow to \(member.hex) after received MsgAppResp" }
    sendTimeoutNow(to: member)
  }

  @inline(never)
  private func impossibleAcknowledgement(of index: LogIndex, from member: NodeID) -> RaftError {
    .malformedMessage("MsgAppResp from \(member.hex) acknowledges index \(index) beyond the last, \(log.lastIndex)")
  }

  @inline(never)
  private mutating func leaveProbeOrSnapshot(slot: Int) {
    if tracker.progress[slot].state == .probe { return tracker.progress[slot].becomeReplicate() }
    // However it got there, by this snapshot or another: what follows is in the log.
    guard tracker.progress[slot].match + 1 >= log.firstIndex else { return }
    logger.write(.debug) {
      "\(id.hex) recovered from needing snapshot, resumed sending replication messages to "
        + "\(tracker.progress[slot].id.hex) [\(tracker.progress[slot])]"
    }
    tracker.progress[slot].becomeProbe()
    tracker.progress[slot].becomeReplicate()
  }

  // MARK: Other responses

  private mutating func handleHeartbeatResponse(_ message: Message, slot: Int) {
    tracker.progress[slot].isRecentlyActive = true
    tracker.progress[slot].isAppendFlowPaused = false
    // With a full window an empty message goes out: if everything in the window was lost, its answer is all that says so.
    if tracker.progress[slot].match < log.lastIndex || tracker.progress[slot].state == .probe {
      sendAppend(slot: slot)
    }
    handleRoundAnswer(slot: slot, round: message.context)
  }

  @inline(never)
  private mutating func handleSnapshotStatus(_ message: Message, slot: Int) {
    guard tracker.progress[slot].state == .snapshot else { return }
    // After a failure the probe must not start behind a snapshot that never arrived.
    if message.reject { tracker.progress[slot].pendingSnapshot = 0 }
    tracker.progress[slot].becomeProbe()
    logger.write(.debug) {
      "\(id.hex) snapshot \(message.reject ? "failed" : "succeeded"), resumed sending replication messages to "
        + "\(message.from.hex) [\(tracker.progress[slot])]"
    }
    // Wait for the member's own acknowledgement, or for a heartbeat before the next try.
    tracker.progress[slot].isAppendFlowPaused = true
  }

  @inline(never)
  private mutating func handleUnreachable(_ message: Message, slot: Int) {
    // Of many messages under way some are probably lost: find out where.
    if tracker.progress[slot].state == .replicate { tracker.progress[slot].becomeProbe() }
    logger.write(.debug) {
      "\(id.hex) failed to send message to \(message.from.hex) because it is unreachable [\(tracker.progress[slot])]"
    }
  }

  // MARK: Transfer of leadership

  @inline(never)
  private mutating func handleTransfer(to target: NodeID, slot: Int) {
    if tracker.progress[slot].isLearner {
      return logger.write(.debug) { "\(id.hex) is learner. Ignored transferring leadership" }
    }
    if leadTransferee != .none {
      if leadTransferee == target {
        return logger.write(.info) {
          "\(id.hex) [term \(term)] transfer leadership to \(target.hex) is in progress, ignores request to same node "
            + "\(target.hex)"
        }
      }
      let previous = leadTransferee
      abortLeaderTransfer()
      logger.write(.info) {
        "\(id.hex) [term \(term)] abort previous transferring leadership to \(previous.hex)"
      }
    }
    if target == id {
      return logger.write(.debug) { "\(id.hex) is already leader. Ignored transferring leadership to self" }
    }
    logger.write(.info) { "\(id.hex) [term \(term)] starts to transfer leadership to \(target.hex)" }
    // It should be done within an election timeout, so that one is given to it.
    electionElapsedTicks = 0
    leadTransferee = target
    if tracker.progress[slot].match == log.lastIndex {
      sendTimeoutNow(to: target)
      logger.write(.info) {
        "\(id.hex) sends MsgTimeoutNow to \(target.hex) immediately as \(target.hex) already has up-to-date log"
      }
    } else {
      sendAppend(slot: slot)
    }
  }

  mutating func abortLeaderTransfer() { leadTransferee = .none }
}
