import WeirCore

extension RawNode {
  mutating func stepFollower(_ message: Message) throws(RaftError) {
    switch message.type {
    case .append:
      hear(from: message.from)
      try handleAppend(message)
    case .heartbeat:
      hear(from: message.from)
      try handleHeartbeat(message)
    case .snapshot:
      hear(from: message.from)
      try handleSnapshot(message)
    case .propose: try forward(message.entries, from: message.from)
    case .readIndex: forwardRead(message)
    case .readIndexResponse:
      readStates.append(ReadState(index: message.index, context: message.context))
    case .transferLeader: forwardTransfer(message)
    case .forgetLeader: handleForgetLeader()
    case .timeoutNow: handleTimeoutNow(from: message.from)
    default: break
    }
  }

  @inline(never)
  private mutating func handleTimeoutNow(from sender: NodeID) {
    logger.write(.info) {
      "\(id.hex) [term \(term)] received MsgTimeoutNow from \(sender.hex) and starts an election to get leadership."
    }
    // Without asking first whether it could be won: the leader knows that it can.
    handleHup(.transfer)
  }

  mutating func stepCandidate(_ message: Message) throws(RaftError) {
    switch message.type {
    case .propose:
      logger.write(.info) { "\(id.hex) no leader at term \(term); dropping proposal" }
      throw .proposalDropped(.noLeader)
    case .append:
      becomeFollower(term: message.term, leader: message.from)
      promiseLeader()
      try handleAppend(message)
    case .heartbeat:
      becomeFollower(term: message.term, leader: message.from)
      promiseLeader()
      try handleHeartbeat(message)
    case .snapshot:
      becomeFollower(term: message.term, leader: message.from)
      promiseLeader()
      try handleSnapshot(message)
    // Only votes of its own phase count: a late pre-vote says nothing about the election.
    case .voteResponse where role == .candidate, .preVoteResponse where role == .preCandidate:
      handleVoteResponse(message)
    case .timeoutNow:
      logger.write(.debug) {
        "\(id.hex) [term \(term) state \(role.etcdName)] ignored MsgTimeoutNow from \(message.from.hex)"
      }
    default: break
    }
  }

  /// A message of the leader of this term came.
  @inline(__always)
  mutating func hear(from newLeader: NodeID) {
    electionElapsedTicks = 0
    leader = newLeader
    promiseLeader()
  }

  // MARK: Log

  private mutating func handleAppend(_ message: Message) throws(RaftError) {
    try handleAppend(
      message.entries, from: message.from, behind: EntryID(term: message.logTerm, index: message.index),
      commit: message.commit)
  }

  /// Takes a leader's entries if they fit behind what is here, and answers.
  @inline(__always)
  mutating func handleAppend(
    _ entries: EntryBatch, from leader: NodeID, behind previous: EntryID, commit: LogIndex
  ) throws(RaftError) {
    if previous.index < log.committed {
      // An old message. What is committed is the same in both logs.
      return sendAcknowledgement(to: leader, index: log.committed)
    }
    guard log.matches(previous) else {
      return takesUnmatched(previous, isEmpty: entries.isEmpty)
        ? acknowledgeUnmatched(previous.index, to: leader, commit: commit)
        : rejectAppend(behind: previous, from: leader)
    }
    let lastNew = previous.index + UInt64(entries.count)
    if !entries.isEmpty { try takeEntries(entries) }
    // Not beyond what this message says is the same: entries behind may be left over from an older leader.
    log.commit(to: min(commit, lastNew))
    sendAcknowledgement(to: leader, index: lastNew)
  }

  @inline(__always)
  private mutating func takeEntries(_ entries: EntryBatch) throws(RaftError) {
    // Nearly always they continue the log, and nothing is compared or replaced.
    if entries.firstIndex == log.lastIndex + 1, !hasPlantedBugs { return log.append(entries) }
    try takeOverlapping(entries)
  }

  @inline(never)
  private mutating func takeOverlapping(_ entries: EntryBatch) throws(RaftError) {
    guard let conflict = firstToReplace(entries) else { return }
    guard conflict > log.committed else { throw conflictWithCommitted(conflict) }
    log.replaceSuffix(with: entries, from: conflict)
  }

  @inline(never)
  private func conflictWithCommitted(_ index: LogIndex) -> RaftError {
    .malformedMessage("entry \(index) conflict with committed entry [committed(\(log.committed))]")
  }

  private func firstToReplace(_ entries: EntryBatch) -> LogIndex? {
    if hasPlantedBugs && plantedBugs.contains(.truncateWithoutConflict), entries.firstIndex > log.committed {
      return entries.firstIndex
    }
    return log.findConflict(entries)
  }

  private func takesUnmatched(_ previous: EntryID, isEmpty: Bool) -> Bool {
    hasPlantedBugs && plantedBugs.contains(.appendWithoutPreviousTerm) && previous.term == 0
      && previous.index > log.lastIndex && isEmpty
  }

  /// The planted bug's other half: what is beyond the end has term 0, like the message, and so "matches".
  @inline(never)
  private mutating func acknowledgeUnmatched(_ index: LogIndex, to leader: NodeID, commit: LogIndex) {
    log.commit(to: min(commit, log.lastIndex))
    sendAcknowledgement(to: leader, index: index)
  }

  @inline(never)
  private mutating func rejectAppend(behind previous: EntryID, from leader: NodeID) {
    logger.write(.debug) {
      "\(id.hex) [logterm: \(log.termOrZero(at: previous.index)), index: \(previous.index)] rejected MsgApp "
        + "[logterm: \(previous.term), index: \(previous.index)] from \(leader.hex)"
    }
    // Entries with a higher term than the leader's at that place cannot be in its log up to there: hint at the first
    // place that could match, instead of having the leader try one by one.
    let hint = log.findConflict(at: min(previous.index, log.lastIndex), term: previous.term)
    var answer = Message(type: .appendResponse, to: leader)
    answer.index = previous.index
    answer.reject = true
    answer.rejectHint = hint.index
    answer.logTerm = hint.term
    send(answer)
  }

  @inline(never)
  private mutating func handleHeartbeat(_ message: Message) throws(RaftError) {
    var commit = message.commit
    if hasPlantedBugs && plantedBugs.contains(.heartbeatCommitBeyondMatch) { commit = min(commit, log.lastIndex) }
    guard commit <= log.lastIndex else {
      throw .malformedMessage(
        "tocommit(\(commit)) is out of range [lastIndex(\(log.lastIndex))]. Was the raft log corrupted, truncated, or lost?"
      )
    }
    log.commit(to: commit)
    var answer = Message(type: .heartbeatResponse, to: message.from)
    answer.context = message.context
    send(answer)
  }

  // MARK: Snapshots

  @inline(never)
  private mutating func handleSnapshot(_ message: Message) throws(RaftError) {
    let snapshot = message.snapshot ?? Snapshot()
    let metadata = snapshot.metadata
    guard max(metadata.index, metadata.term) < 1 << 62, metadata.term <= message.term else {
      throw .malformedMessage("MsgSnap from \(message.from.hex) with an impossible index or term")
    }
    var answer = Message(type: .appendResponse, to: message.from)
    if try restore(snapshot) {
      logger.write(.info) {
        "\(id.hex) [commit: \(log.committed)] restored snapshot [index: \(metadata.index), term: \(metadata.term)]"
      }
      answer.index = log.lastIndex
    } else {
      logger.write(.info) {
        "\(id.hex) [commit: \(log.committed)] ignored snapshot [index: \(metadata.index), term: \(metadata.term)]"
      }
      answer.index = log.committed
    }
    send(answer)
  }

  /// Replaces log and membership by a snapshot's, unless this node has everything in it already.
  private mutating func restore(_ snapshot: Snapshot) throws(RaftError) -> Bool {
    let metadata = snapshot.metadata
    guard metadata.index > log.committed else { return false }
    let members = metadata.configuration
    // Learners-to-be are voters of the outgoing half until then.
    guard members.voters.contains(id) || members.learners.contains(id) || members.votersOutgoing.contains(id) else {
      logger.write(.warning) {
        "\(id.hex) attempted to restore snapshot but it is not in the ConfState "
          + "\(RaftDescription.configurationState(members)); should never happen"
      }
      return false
    }
    if log.matches(EntryID(term: metadata.term, index: metadata.index)) {
      logger.write(.info) {
        "\(id.hex) [commit: \(log.committed), lastindex: \(log.lastIndex), lastterm: \(log.lastTerm)] fast-forwarded "
          + "commit to snapshot [index: \(metadata.index), term: \(metadata.term)]"
      }
      log.commit(to: metadata.index)
      return false
    }
    // First see whether the membership can be, then touch anything.
    let restored = try trackerRestored(from: members, lastIndex: metadata.index)
    log.restore(snapshot)
    switchConfiguration(to: restored)
    logger.write(.info) {
      "\(id.hex) [commit: \(log.committed), lastindex: \(log.lastIndex), lastterm: \(log.lastTerm)] restored snapshot "
        + "[index: \(metadata.index), term: \(metadata.term)]"
    }
    return true
  }

  // MARK: Passing on to the leader

  mutating func forward(_ batch: EntryBatch, from sender: NodeID) throws(RaftError) {
    guard !batch.isEmpty else { throw .proposalDropped(.invalidPayload) }
    try checkForwarding()
    var message = Message(type: .propose, to: leader, from: sender)
    message.entries = batch.sealed()
    send(message)
  }

  func checkForwarding() throws(RaftError) {
    if leader == .none {
      logger.write(.info) { "\(id.hex) no leader at term \(term); dropping proposal" }
      throw .proposalDropped(.noLeader)
    }
    if configuration.disableProposalForwarding {
      logger.write(.info) {
        "\(id.hex) not forwarding to leader \(leader.hex) at term \(term); dropping proposal"
      }
      throw .proposalDropped(.forwardingDisabled(leader: leader))
    }
  }

  @inline(never)
  private mutating func forwardRead(_ message: Message) {
    guard leader != .none else {
      return logger.write(.info) { "\(id.hex) no leader at term \(term); dropping index reading msg" }
    }
    var forwarded = message
    forwarded.to = leader
    send(forwarded)
  }

  @inline(never)
  private mutating func forwardTransfer(_ message: Message) {
    guard leader != .none else {
      return logger.write(.info) { "\(id.hex) no leader at term \(term); dropping leader transfer msg" }
    }
    var forwarded = message
    forwarded.to = leader
    forwarded.term = 0
    send(forwarded)
  }

  @inline(never)
  private mutating func handleForgetLeader() {
    if configuration.readMode == .leaseBased {
      return logger.write(.error) { "ignoring MsgForgetLeader due to ReadOnlyLeaseBased" }
    }
    guard leader != .none else { return }
    logger.write(.info) { "\(id.hex) forgetting leader \(leader.hex) at term \(term)" }
    leader = .none
  }
}

extension Role {
  /// `StateFollower`, `StateCandidate`, `StateLeader`, `StatePreCandidate`.
  public var etcdName: String {
    switch self {
    case .follower: "StateFollower"
    case .candidate: "StateCandidate"
    case .leader: "StateLeader"
    case .preCandidate: "StatePreCandidate"
    }
  }
}
