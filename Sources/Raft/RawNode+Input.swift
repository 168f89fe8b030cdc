import WeirCore

extension RawNode {
  // MARK: Time

  /// A tick passed.
  public mutating func tick() {
    startRestartPromise()
    if role == .leader { tickHeartbeat() } else { tickElection() }
  }

  private mutating func tickElection() {
    electionElapsedTicks += 1
    guard isPromotable, isPastElectionTimeout else { return }
    electionElapsedTicks = 0
    stepOwn(.hup)
  }

  private mutating func tickHeartbeat() {
    heartbeatElapsedTicks += 1
    electionElapsedTicks += 1
    if electionElapsedTicks >= configuration.electionTicks {
      electionElapsedTicks = 0
      if configuration.checkQuorum { stepOwn(.checkQuorum) }
      // A transfer that takes longer than that has failed: take proposals again.
      if role == .leader, leadTransferee != .none {
        abortLeaderTransfer()
        // It kept this leader from leaving a joint configuration. Waiting for the next applied entry, as etcd's raft
        // does, is waiting for ever where nobody writes.
        leaveJointIfDue()
      }
    }
    guard role == .leader, heartbeatElapsedTicks >= configuration.heartbeatTicks else { return }
    heartbeatElapsedTicks = 0
    stepOwn(.beat)
  }

  private mutating func stepOwn(_ type: MessageType) {
    do throws(RaftError) {
      try stepChecked(Message(type: type, from: id))
    } catch {
      logger.write(.debug) {
        type == .hup
          ? "error occurred during election: \(error)" : "error occurred during checking sending heartbeat: \(error)"
      }
    }
  }

  /// Campaigns at once.
  public mutating func campaign() throws(RaftError) { try stepChecked(Message(type: .hup, from: id)) }

  // MARK: Proposals

  /// Proposes one command. A follower passes it on to the leader, which may drop it without telling.
  public mutating func propose(payload: RawSpan) throws(RaftError) {
    guard payload.byteCount <= EntryFrame.maximumPayloadBytes else { throw .proposalDropped(.invalidPayload) }
    if role == .leader { return try proposeOwn(payload: payload) }
    try refuseProposalOfCandidate()
    try checkForwarding()
    try forward(framed(payload, kind: .normal), from: id)
  }

  /// Proposes a batch of commands, all or none.
  public mutating func propose(_ batch: EntryBatch) throws(RaftError) {
    if role == .leader { return try proposeOwn(batch) }
    try refuseProposalOfCandidate()
    try forward(batch, from: id)
  }

  /// Proposes a change of one member. A leader that refuses it puts an empty entry into the log instead, and says so only
  /// in its log lines: whether a change took place is known when it is applied.
  public mutating func propose(_ change: ConfigurationChange) throws(RaftError) {
    guard change.context.count <= ConfigurationChangeV2.maximumContextBytes else {
      throw .proposalDropped(.invalidPayload)
    }
    try propose(framed(change.encoded().span.bytes, kind: .configurationChange))
  }

  /// Proposes a change of any number of members; the empty one leaves an explicit joint configuration.
  public mutating func propose(_ change: ConfigurationChangeV2) throws(RaftError) {
    guard change.context.count <= ConfigurationChangeV2.maximumContextBytes,
      change.changes.count <= ConfigurationChangeV2.maximumChanges
    else { throw .proposalDropped(.invalidPayload) }
    try propose(framed(change.encoded().span.bytes, kind: .configurationChangeV2))
  }

  private func refuseProposalOfCandidate() throws(RaftError) {
    guard role != .follower else { return }
    logger.write(.info) { "\(id.hex) no leader at term \(term); dropping proposal" }
    throw .proposalDropped(.noLeader)
  }

  private mutating func framed(_ payload: RawSpan, kind: EntryKind) -> EntryBatch {
    var builder = forwarding.take() ?? EntryBatchBuilder(capacity: 16 << 10)
    builder.append(kind: kind, payload: payload)
    let batch = builder.finish()
    forwarding = consume builder
    return batch
  }

  // MARK: Leadership

  /// Asks the leader to hand over to `target`: on the leader itself, or on a follower, which passes it on.
  public mutating func transferLeadership(to target: NodeID) {
    stepIgnoringErrors(Message(type: .transferLeader, from: target))
  }

  /// Makes a follower forget its leader, so that it may grant votes before its timeout; for applications that know the
  /// leader to be dead. Refused with lease-based reads, whose promise it would break, and ignored by leaders.
  public mutating func forgetLeader() throws(RaftError) {
    if configuration.refuseVotesWithinLease, role == .follower {
      return logger.write(.error) { "ignoring MsgForgetLeader due to ReadOnlyLeaseBased" }
    }
    try stepChecked(Message(type: .forgetLeader))
  }

  /// The transport could not send to a member: probe it before sending much.
  public mutating func reportUnreachable(_ id: NodeID) { stepIgnoringErrors(Message(type: .unreachable, from: id)) }

  /// How sending a snapshot to a member ended. Must be called: until then it is sent nothing else.
  public mutating func reportSnapshot(_ id: NodeID, succeeded: Bool) {
    var message = Message(type: .snapshotStatus, from: id)
    message.reject = !succeeded
    stepIgnoringErrors(message)
  }

  /// For messages of which nothing that could be thrown is worth knowing.
  mutating func stepIgnoringErrors(_ message: Message) {
    do throws(RaftError) { try stepChecked(message) } catch {
      logger.write(.debug) { "\(id.hex) ignored \(message.type.etcdName): \(error)" }
    }
  }

  // MARK: Storage

  /// The driver holds a snapshot of everything up to `index` and drops those entries. Entries that are not applied or not
  /// stored stay.
  public mutating func compact(through index: LogIndex) { log.compact(through: index) }

  /// What followers that are behind the first entry are sent from now on; nil while there is none.
  public mutating func setAvailableSnapshot(_ snapshot: Snapshot?) { log.availableSnapshot = snapshot }

  /// Starts a new cluster: a log that begins with one committed change per voter, as if an earlier term had made them.
  /// All first members call it with the same voters.
  /// - Throws: `RaftError.inconsistentStorage` if there is a log already.
  public mutating func bootstrap(voters: [NodeID]) throws(RaftError) {
    guard log.lastIndex == 0 else { throw .inconsistentStorage("can't bootstrap a nonempty Storage") }
    guard !voters.isEmpty else { throw .invalidMembership("must provide at least one peer to Bootstrap") }
    guard Set(voters).count == voters.count, !voters.contains(where: { $0 == .none || $0.isLocalThread }) else {
      throw .invalidMembership("the voters to bootstrap with must be distinct node ids")
    }
    previousHardState = HardState()
    becomeFollower(term: 1, leader: .none)
    for voter in voters {
      let change = ConfigurationChange(MemberChange(.addVoter, voter))
      log.append(payload: change.encoded().span.bytes, kind: .configurationChange, term: 1)
    }
    log.commit(to: log.lastIndex)
    // In force before they are applied, so that a node can campaign right away; applying them again changes nothing.
    for voter in voters {
      try applyConfigurationChange(ConfigurationChangeV2(changes: [MemberChange(.addVoter, voter)]))
    }
  }
}
