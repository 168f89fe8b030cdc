import WeirCore

extension MessageType {
  /// Only the node itself and its threads may produce it.
  public var isLocal: Bool {
    switch self {
    case .hup, .beat, .unreachable, .snapshotStatus, .checkQuorum, .storageAppend, .storageAppendResponse,
      .storageApply, .storageApplyResponse:
      true
    default: false
    }
  }

  /// Makes sense only from a member.
  public var isResponse: Bool {
    switch self {
    case .appendResponse, .voteResponse, .heartbeatResponse, .unreachable, .readIndexResponse, .preVoteResponse,
      .storageAppendResponse, .storageApplyResponse:
      true
    default: false
    }
  }

  /// May come without a term.
  var mayLackTerm: Bool {
    switch self {
    case .propose, .readIndex, .transferLeader, .forgetLeader, .preVoteResponse: true
    default: isLocal
    }
  }
}

extension NodeID {
  /// One of the two local threads.
  @inline(__always)
  var isLocalThread: Bool { self >= .applyThread }
}

extension Message {
  /// An answer of one of the two local threads. Whoever passes messages in from a network refuses those that claim to be.
  @inline(__always)
  fileprivate var isStorageAnswer: Bool {
    from.isLocalThread && (type == .storageAppendResponse || type == .storageApplyResponse)
  }
}

/// Indexes and terms from elsewhere stay below: sums of them must not overflow.
private let impossibleNumber: UInt64 = 1 << 62

extension RawNode {
  /// Handles a message from another node, or an answer of a local thread.
  /// - Throws: what makes the message wrong. It has then been ignored, except that a higher term was followed.
  public mutating func step(_ message: borrowing Message) throws(RaftError) {
    var message = copy message
    try step(&message)
  }

  /// `step` of a message where it lies: nothing of it is copied, and it is as it was afterwards.
  ///
  /// Of the two kinds that all replication is made of, those that come as expected (from another node, in this term, with
  /// numbers that can be) go straight to where they are handled. All else goes the long way, which would lead these to
  /// the same places.
  public mutating func step(_ message: inout Message) throws(RaftError) {
    let from = message.from
    let numbers = message.term | message.logTerm | message.index | message.commit | message.rejectHint
    guard message.term == term, term != 0, numbers < impossibleNumber, from != id, from != .none, !from.isLocalThread
    else { return try stepUnexpected(message) }
    if message.type == .append, role == .follower {
      if !message.entries.isEmpty { try validateEntries(message) }
      trace(.receive(.append, from: from))
      hear(from: from)
      return try handleAppend(
        message.entries, from: from, behind: EntryID(term: message.logTerm, index: message.index),
        commit: message.commit)
    }
    if message.type == .appendResponse, role == .leader, !message.reject, let slot = tracker.slot(of: from) {
      trace(.receive(.appendResponse, from: from))
      return try acknowledge(slot: slot, from: from, index: message.index)
    }
    try stepUnexpected(message)
  }

  private mutating func stepUnexpected(_ message: borrowing Message) throws(RaftError) {
    if message.type.isLocal, !message.isStorageAnswer { throw .stepLocalMessage }
    if message.type.isResponse, !message.from.isLocalThread, tracker.slot(of: message.from) == nil {
      throw .stepPeerNotFound
    }
    try validate(message)
    trace(.receive(message.type, from: message.from))
    try stepChecked(message)
  }

  private func validate(_ message: borrowing Message) throws(RaftError) {
    // Reached with every message: what is wrong with one is said elsewhere.
    let numbers = message.term | message.logTerm | message.index | message.commit | message.rejectHint
    guard numbers < impossibleNumber, message.term != 0 || message.type.mayLackTerm else {
      throw impossibleNumbers(message.type, from: message.from, term: message.term)
    }
    if message.from == id || message.from == .none || message.from.isLocalThread { try validateUnusualSender(message) }
    if message.type == .append, !message.entries.isEmpty { try validateEntries(message) }
  }

  /// Who can it be that is not another node? With an append that claims to come from this node itself, it would follow
  /// itself.
  @inline(never)
  private func validateUnusualSender(_ message: borrowing Message) throws(RaftError) {
    let isPossible =
      switch message.type {
      // The node's own answers, carried through the storage thread; and what the thread says itself.
      case .appendResponse, .voteResponse, .preVoteResponse: message.from == id
      case .storageAppendResponse, .storageApplyResponse: message.from.isLocalThread
      // Passed on by another node on behalf of this one, or by the application.
      case .propose, .readIndex, .transferLeader, .forgetLeader: !message.from.isLocalThread
      default: false
      }
    if isPossible { return }
    throw .malformedMessage("\(message.type.etcdName) from \(message.from.hex), which cannot have sent it")
  }

  @inline(never)
  private func impossibleNumbers(_ type: MessageType, from: NodeID, term: Term) -> RaftError {
    term == 0
      ? .malformedMessage("\(type.etcdName) from \(from.hex) without a term")
      : .malformedMessage("\(type.etcdName) from \(from.hex) with an index or a term of 2^62 or more")
  }

  /// The entries of an append follow the previous entry, with terms that do not fall below its own nor exceed the
  /// leader's. That they follow one another so is what a batch promises.
  @inline(__always)
  private func validateEntries(_ message: borrowing Message) throws(RaftError) {
    let terms = message.entries.terms
    guard message.entries.firstIndex == message.index + 1, terms.first >= message.logTerm, terms.last <= message.term
    else {
      throw entriesCannotFollow(from: message.from, term: message.logTerm, index: message.index)
    }
  }

  @inline(never)
  private func entriesCannotFollow(from: NodeID, term: Term, index: LogIndex) -> RaftError {
    .malformedMessage("MsgApp from \(from.hex) behind \(term)/\(index): entries that cannot follow there")
  }

  /// Handles a message that came through `step`, or one of this node's own.
  mutating func stepChecked(_ message: Message) throws(RaftError) {
    if message.term != term, message.term != 0 {
      if message.term < term { return handleLowerTerm(message) }
      if isVoteRequest(message), ignoresVote(message) { return }
      followHigherTerm(message)
    } else if isVoteRequest(message), message.term == term, ignoresVote(message) {
      return
    }
    switch message.type {
    case .hup: handleHup(configuration.preVote ? .preElection : .election)
    case .storageAppendResponse: handleStorageAppendResponse(message)
    case .storageApplyResponse: handleStorageApplyResponse(message)
    case .vote, .preVote: handleVoteRequest(message)
    default: try stepByRole(message)
    }
  }

  @inline(__always)
  private mutating func stepByRole(_ message: Message) throws(RaftError) {
    switch role {
    case .leader: try stepLeader(message)
    case .follower: try stepFollower(message)
    case .candidate, .preCandidate: try stepCandidate(message)
    }
  }

  @inline(__always)
  private func isVoteRequest(_ message: Message) -> Bool { message.type == .vote || message.type == .preVote }

  // MARK: Terms

  private mutating func followHigherTerm(_ message: Message) {
    // A pre-vote asks about a term that nobody is in yet. Granted, it comes back with that term, which the pre-candidate
    // takes once it has a majority; refused, with the term of the one who refused.
    if message.type == .preVote || (message.type == .preVoteResponse && !message.reject) { return }
    logger.write(.info) {
      "\(id.hex) [term: \(term)] received a \(message.type.etcdName) message with higher term from "
        + "\(message.from.hex) [term: \(message.term)]"
    }
    let isFromLeader = message.type == .append || message.type == .heartbeat || message.type == .snapshot
    becomeFollower(term: message.term, leader: isFromLeader ? message.from : .none)
  }

  /// Whether a leader of an earlier term is told of this node's. With etcd's raft only stickiness to the leader is a reason;
  /// but a learner, or a voter that was made one, never campaigns, so where it has a higher term than its leader (it stood
  /// for election before) it would take nothing from it for ever.
  private var tellsOldLeaders: Bool {
    configuration.checkQuorum || configuration.preVote || isLearner
  }

  private mutating func handleLowerTerm(_ message: Message) {
    switch message.type {
    case .heartbeat where tellsOldLeaders, .append where tellsOldLeaders:
      // A node that was cut off came back with a higher term than the leader's. With stickiness nobody listens to its
      // campaigns, so the leader must hear of its term otherwise and step down, once, to let it in again.
      send(Message(type: .appendResponse, to: message.from))
    case .preVote:
      rejectOldPreVote(message)
    case .storageAppendResponse:
      if message.index != 0 {
        // Since that term, entries may have been replaced, and replaced again by others of the old one's term: index and
        // term alone do not say which of them is stored. A newer acknowledgement follows.
        logger.write(.info) {
          "\(id.hex) [term: \(term)] ignored entry appends from a \(message.type.etcdName) message with lower term "
            + "[term: \(message.term)]"
        }
        if hasPlantedBugs && plantedBugs.contains(.storageAckIgnoresTerm) {
          log.stableIgnoringTerm(through: message.index)
        }
      }
      // A snapshot holds committed state, whatever the term.
      if let snapshot = message.snapshot { snapshotStored(snapshot) }
    default:
      logger.write(.info) {
        "\(id.hex) [term: \(term)] ignored a \(message.type.etcdName) message with lower term from "
          + "\(message.from.hex) [term: \(message.term)]"
      }
    }
  }

  // MARK: Storage

  private mutating func handleStorageAppendResponse(_ message: Message) {
    if message.index != 0 { log.stable(through: EntryID(term: message.logTerm, index: message.index)) }
    if let snapshot = message.snapshot { snapshotStored(snapshot) }
  }

  private mutating func handleStorageApplyResponse(_ message: Message) {
    guard !message.entries.isEmpty else { return }
    entriesApplied(through: message.entries.lastIndex, batch: message.entries)
  }

  mutating func entriesApplied(through index: LogIndex, batch: EntryBatch) {
    applied(through: index, bytes: batch.byteCount)
    if hasPlantedBugs && plantedBugs.contains(.uncommittedBytesLeak) { return }
    uncommittedBytes = max(uncommittedBytes - batch.payloadBytes, 0)
  }

  private mutating func snapshotStored(_ snapshot: Snapshot) {
    let index = snapshot.metadata.index
    log.stableSnapshot(through: index)
    applied(through: index, bytes: 0)
  }

  private mutating func applied(through index: LogIndex, bytes: Int) {
    let newApplied = min(max(index, log.applied), log.committed)
    log.applied(through: newApplied, bytes: bytes)
    leaveJointIfDue()
  }
}

extension EntryBatch {
  /// Size of the payloads, each padded to 8, in bytes.
  @inline(__always)
  var payloadBytes: Int { byteCount - count * EntryFrame.headerBytes }
}
