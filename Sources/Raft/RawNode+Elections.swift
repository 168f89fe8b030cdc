import WeirCore

/// Why a node campaigns.
enum CampaignKind {
  /// To find out whether an election could be won (dissertation 9.6).
  case preElection
  case election
  /// Because the leader hands leadership over: stickiness to the leader does not apply.
  case transfer
}

extension RawNode {
  // MARK: Roles

  /// Whether this node may become leader: a voter, and not waiting for a snapshot to be stored.
  var isPromotable: Bool {
    guard let ownSlot, !tracker.progress[ownSlot].isLearner else { return false }
    return log.unstableSnapshot == nil || (hasPlantedBugs && plantedBugs.contains(.campaignWithUnappliedChange))
  }

  var isPastElectionTimeout: Bool { electionElapsedTicks >= randomizedElectionTimeoutTicks }

  /// What every change of role or term begins with.
  func newProgress(for old: Progress) -> Progress {
    var progress = Progress(
      id: old.id, next: log.lastIndex + 1, isLearner: old.isLearner,
      inflights: Inflights(
        maximumMessages: configuration.maximumInflightMessages, maximumBytes: configuration.maximumInflightBytes))
    if old.id == id { progress.match = log.lastIndex }
    return progress
  }

  mutating func reset(term newTerm: Term) {
    if term != newTerm {
      term = newTerm
      vote = .none
    }
    leader = .none
    electionElapsedTicks = 0
    heartbeatElapsedTicks = 0
    let ticks = UInt64(configuration.electionTicks)
    randomizedElectionTimeoutTicks = configuration.electionTicks + Int(random.next() % ticks)
    abortLeaderTransfer()
    for slot in tracker.progress.indices { tracker.progress[slot] = newProgress(for: tracker.progress[slot]) }
    pendingConfigurationIndex = 0
    uncommittedBytes = 0
    hasCommittedInTerm = false
    refuseWaitingReads()
    lease.end()
  }

  mutating func becomeFollower(term newTerm: Term, leader newLeader: NodeID) {
    reset(term: newTerm)
    leader = newLeader
    role = .follower
    logger.write(.info) { "\(id.hex) became follower at term \(term)" }
    trace(.becomeFollower)
  }

  mutating func becomePreCandidate() {
    invariant(role != .leader, "invalid transition [leader -> pre-candidate]")
    // Neither term nor vote change: that is what a pre-candidate is for. The leader is forgotten, so that this node
    // grants the pre-votes of others: with each of two sticking to a dead leader, neither would be elected.
    tracker.resetVotes()
    leader = .none
    role = .preCandidate
    logger.write(.info) { "\(id.hex) became pre-candidate at term \(term)" }
    trace(.becomePreCandidate)
  }

  mutating func becomeCandidate() {
    invariant(role != .leader, "invalid transition [leader -> candidate]")
    reset(term: term + 1)
    vote = id
    role = .candidate
    logger.write(.info) { "\(id.hex) became candidate at term \(term)" }
    trace(.becomeCandidate)
  }

  mutating func becomeLeader() {
    invariant(role != .follower, "invalid transition [follower -> leader]")
    reset(term: term)
    leader = id
    role = .leader
    if let ownSlot {
      tracker.progress[ownSlot].becomeReplicate()
      tracker.progress[ownSlot].isRecentlyActive = true
    }
    // Whether there is a change in the log that is not applied yet is not known without a scan: assume there is one.
    pendingConfigurationIndex = log.lastIndex
    lease.begin()
    // An empty entry of the own term: committing it commits everything before it, which counting alone must not do
    // (paper, section 5.4.2). It is free of the limit on uncommitted bytes, since it has none.
    let accepted = appendOwn(payload: [UInt8]().span.bytes, kind: .normal)
    invariant(accepted, "empty entry was dropped: \(uncommittedBytes) bytes wait to be committed")
    logger.write(.info) { "\(id.hex) became leader at term \(term)" }
    trace(.becomeLeader)
  }

  // MARK: Campaigning

  mutating func handleHup(_ kind: CampaignKind) {
    if role == .leader { return logger.write(.debug) { "\(id.hex) ignoring MsgHup because already leader" } }
    guard isPromotable else {
      return logger.write(.warning) { "\(id.hex) is unpromotable and can not campaign" }
    }
    // The outcome of a vote depends on who the voters are, and a committed change that is not applied here may already
    // be in force elsewhere: with {1,2} -> {1,2,3,4} applied by half of the nodes, two disjoint majorities could elect.
    if log.hasUnappliedConfigurationChange(), !(hasPlantedBugs && plantedBugs.contains(.campaignWithUnappliedChange)) {
      return logger.write(.warning) {
        "\(id.hex) cannot campaign at term \(term) since there are still pending configuration changes to apply"
      }
    }
    if kind != .transfer, let remaining = remainingPromise {
      return logger.write(.info) {
        "\(id.hex) does not campaign at term \(term): promised the leader not to for another \(remaining) ns"
      }
    }
    logger.write(.info) { "\(id.hex) is starting a new election at term \(term)" }
    campaign(kind)
  }

  mutating func campaign(_ kind: CampaignKind) {
    let type: MessageType
    let campaignTerm: Term
    if kind == .preElection {
      becomePreCandidate()
      type = .preVote
      campaignTerm = term + 1
    } else {
      becomeCandidate()
      type = .vote
      campaignTerm = term
    }
    let last = log.lastEntryID
    for voter in tracker.configuration.allVoters {
      if voter == id {
        // Counted only once it is stored, like the vote for anybody else: a node that forgets its own vote in a restart
        // would vote again in the same term.
        send(Message(type: type.voteResponse, to: id, term: campaignTerm))
        continue
      }
      logger.write(.info) {
        "\(id.hex) [logterm: \(last.term), index: \(last.index)] sent \(type.etcdName) request to \(voter.hex) "
          + "at term \(term)"
      }
      var request = Message(type: type, to: voter, term: campaignTerm)
      request.index = last.index
      request.logTerm = last.term
      request.isLeadershipTransfer = kind == .transfer
      send(request)
    }
  }

  /// Counts a vote for this candidate.
  mutating func handleVoteResponse(_ message: Message) {
    let name = message.type.etcdName
    logger.write(.info) {
      "\(id.hex) received \(name)\(message.reject ? " rejection" : "") from \(message.from.hex) at term \(term)"
    }
    tracker.recordVote(from: message.from, granted: !message.reject)
    let (granted, rejected, result) = tracker.tallyVotes()
    logger.write(.info) {
      "\(id.hex) has received \(granted) \(name) votes and \(rejected) vote rejections"
    }
    switch result {
    case .won where role == .preCandidate:
      campaign(.election)
    case .won:
      becomeLeader()
      broadcastAppend()
    case .lost:
      // The message's term is one ahead if this was a pre-vote; nobody is in that term.
      becomeFollower(term: term, leader: .none)
    case .pending:
      break
    }
  }

  // MARK: Voting

  /// The part of a vote's log line that every outcome begins with.
  private func voteLine(_ message: Message, _ verb: String, _ preposition: String) -> String {
    "\(id.hex) [logterm: \(log.lastTerm), index: \(log.lastIndex), vote: \(vote.hex)] \(verb) \(message.type.etcdName) "
      + "\(preposition) \(message.from.hex) [logterm: \(message.logTerm), index: \(message.index)] at term \(term)"
  }

  /// Whether a vote request must be ignored because a leader is alive.
  mutating func ignoresVote(_ message: Message) -> Bool {
    guard !message.isLeadershipTransfer else { return false }
    if hasPlantedBugs && plantedBugs.contains(.votesWithinLease) { return false }
    // A node that was cut off, or removed and does not know it, would depose a working leader again and again
    // (dissertation, section 4.2.3).
    let isInLease =
      configuration.checkQuorum && leader != .none && electionElapsedTicks < configuration.electionTicks
    if isInLease, message.term > term {
      logger.write(.info) {
        voteLine(message, "ignored", "from")
          + ": lease is not expired (remaining ticks: \(configuration.electionTicks - electionElapsedTicks))"
      }
      return true
    }
    if let remaining = remainingPromise, role != .leader {
      logger.write(.info) {
        voteLine(message, "ignored", "from") + ": promised the leader not to vote for another \(remaining) ns"
      }
      return true
    }
    return false
  }

  mutating func handleVoteRequest(_ message: Message) {
    // A repeated vote; or none yet in this term, and no leader either; or a question about a later term, which promises
    // nothing. Learners vote as well: one that was promoted and does not know it yet may be needed for a majority.
    let canVote =
      vote == message.from || (vote == .none && leader == .none)
      || (message.type == .preVote && message.term > term)
    let isUpToDate =
      log.isUpToDate(EntryID(term: message.logTerm, index: message.index))
      || (hasPlantedBugs && plantedBugs.contains(.voteForShorterLog))
    guard canVote, isUpToDate else {
      logger.write(.info) { voteLine(message, "rejected", "from") }
      var answer = Message(type: message.type.voteResponse, to: message.from, term: term)
      answer.reject = true
      return send(answer)
    }
    logger.write(.info) { voteLine(message, "cast", "for") }
    // With the term of the request: of a pre-vote that is the next one, and the candidate would ignore an answer with
    // this node's own term as old.
    send(Message(type: message.type.voteResponse, to: message.from, term: message.term))
    if message.type == .vote {
      electionElapsedTicks = 0
      vote = message.from
    }
  }

  /// A pre-vote of an earlier term must be answered: a node with a higher term and a shorter log could otherwise wait
  /// for the others for ever, and they for it.
  mutating func rejectOldPreVote(_ message: Message) {
    logger.write(.info) { voteLine(message, "rejected", "from") }
    var answer = Message(type: .preVoteResponse, to: message.from, term: term)
    answer.reject = true
    send(answer)
  }
}

extension MessageType {
  /// What a vote request is answered with.
  var voteResponse: MessageType { self == .preVote ? .preVoteResponse : .voteResponse }
}
