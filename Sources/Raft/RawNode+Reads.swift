import WeirCore

/// Reads that wait for a heartbeat round.
///
/// Rounds are numbered, and a heartbeat carries its round's number, which answers bring back. A read waits for the next
/// round to be sent after it came: an answer to that round or a later one says that the sender still followed this leader
/// after the read began. Numbers that users give to reads are never looked at: with those, a late answer to an earlier
/// attempt would confirm a later one (etcd #20418).
struct ReadQueue {
  struct Read {
    var context: UInt64
    /// Who asked; this node itself if it is its own id.
    var from: NodeID
    var index: LogIndex
    var round: UInt64
  }

  /// Reads for which the commit index is not known to be current: nothing is committed in this term yet.
  private(set) var postponed: [Read] = []
  private var waiting: [Read] = []
  private var head = 0
  /// The last round that was sent.
  private(set) var lastRound: UInt64 = 0
  /// The last round that a quorum answered.
  var confirmedRound: UInt64 = 0
  /// Reads wait for a round that has not been sent.
  private(set) var isRoundDue = false

  var count: Int { postponed.count + waiting.count - head }

  mutating func postpone(_ context: UInt64, from: NodeID) {
    postponed.append(Read(context: context, from: from, index: 0, round: 0))
  }

  mutating func wait(_ context: UInt64, from: NodeID, index: LogIndex) {
    waiting.append(Read(context: context, from: from, index: index, round: lastRound + 1))
    isRoundDue = true
  }

  /// A round goes out. Returns its number.
  mutating func sendRound() -> UInt64 {
    lastRound += 1
    isRoundDue = false
    return lastRound
  }

  /// The next read that is confirmed, in the order in which they came.
  mutating func nextConfirmed(ignoringRounds: Bool = false) -> Read? {
    guard head < waiting.count, waiting[head].round <= confirmedRound || ignoringRounds else { return nil }
    let read = waiting[head]
    head += 1
    if head == waiting.count {
      waiting.removeAll(keepingCapacity: true)
      head = 0
    } else if head >= 4096, head > waiting.count / 2 {
      waiting.removeFirst(head)
      head = 0
    }
    return read
  }

  /// Takes out everything that was postponed.
  mutating func takePostponed() -> [Read] {
    defer { postponed.removeAll(keepingCapacity: true) }
    return postponed
  }

  /// Takes out everything.
  mutating func takeAll() -> [Read] {
    guard count > 0 else { return [] }
    let all = postponed + waiting[head...]
    postponed.removeAll(keepingCapacity: true)
    waiting.removeAll(keepingCapacity: true)
    head = 0
    isRoundDue = false
    return all
  }
}

extension RawNode {
  /// Asks for a linearizable read. Its answer comes in `Ready.readStates`, or its refusal in `Ready.refusedReads`; from a
  /// follower both can get lost like any message, so the requester has a time limit.
  /// - Parameter context: the requester's own number, which comes back; the core does not compare it with others.
  public mutating func readIndex(context: UInt64) {
    if role == .leader { return handleReadIndex(context: context, from: id) }
    guard role == .follower, leader != .none else {
      logger.write(.info) { "\(id.hex) no leader at term \(term); dropping index reading msg" }
      return refusedReads.append(context)
    }
    if hasPlantedBugs && plantedBugs.contains(.readFromLocalCommit) {
      return readStates.append(ReadState(index: log.committed, context: context))
    }
    var request = Message(type: .readIndex, to: leader)
    request.context = context
    send(request)
  }

  /// The leader's part of a read.
  mutating func handleReadIndex(context: UInt64, from requester: NodeID) {
    let isOwnCommitMissing = !hasCommittedInTerm
    if hasPlantedBugs {
      if plantedBugs.contains(.readWithoutQuorum) || (plantedBugs.contains(.readBeforeOwnCommit) && isOwnCommitMissing)
      {
        return answerRead(context: context, to: requester, index: log.committed)
      }
    }
    guard reads.count < configuration.maximumPendingReads else {
      return refuseRead(context: context, from: requester)
    }
    // The commit index of a new leader may be behind what its predecessor committed and answered for: until it has
    // committed an entry of its own it does not know. That holds for a single voter too, where etcd's raft answers at
    // once: it may have restarted with an older commit index than it had answered for, as a commit index alone is
    // written lazily.
    if isOwnCommitMissing { return reads.postpone(context, from: requester) }
    confirmRead(context: context, from: requester)
  }

  private mutating func confirmRead(context: UInt64, from requester: NodeID) {
    if tracker.isSingleton, ownSlot != nil {
      return answerRead(context: context, to: requester, index: log.committed)
    }
    if configuration.readMode == .leaseBased, holdsLease(at: nowNanoseconds) {
      return answerRead(context: context, to: requester, index: log.committed)
    }
    reads.wait(context, from: requester, index: log.committed)
  }

  private mutating func answerRead(context: UInt64, to requester: NodeID, index: LogIndex) {
    if requester == id || requester == .none {
      return readStates.append(ReadState(index: index, context: context))
    }
    var answer = Message(type: .readIndexResponse, to: requester)
    answer.index = index
    answer.context = context
    send(answer)
  }

  /// The first entry of the own term is committed: reads that waited for that go on.
  mutating func releasePostponedReads() {
    guard !reads.postponed.isEmpty, hasCommittedInTerm else { return }
    for read in reads.takePostponed() { confirmRead(context: read.context, from: read.from) }
  }

  /// A member answered heartbeat round `round`.
  mutating func handleRoundAnswer(slot: Int, round: UInt64) {
    // An answer to a round that was not sent comes from a broken peer; it must not confirm what is to come.
    guard round <= reads.lastRound else { return }
    if hasPlantedBugs && plantedBugs.contains(.readConfirmedByOldRound), tracker.progress[slot].id != id {
      while let read = reads.nextConfirmed(ignoringRounds: true) {
        answerRead(context: read.context, to: read.from, index: read.index)
      }
    }
    guard round > tracker.progress[slot].confirmedReadPosition else { return }
    tracker.progress[slot].confirmedReadPosition = round
    advanceConfirmedRound()
  }

  /// Counts which round a quorum has answered, and lets the reads go that waited for it.
  mutating func advanceConfirmedRound() {
    let round = tracker.confirmedRound
    guard round > reads.confirmedRound, round <= reads.lastRound else { return }
    reads.confirmedRound = round
    extendLease(round: round)
    while let read = reads.nextConfirmed() {
      answerRead(context: read.context, to: read.from, index: read.index)
    }
  }

  /// This node is no longer the leader it was: reads that nobody confirmed will not be.
  mutating func refuseWaitingReads() {
    for read in reads.takeAll() { refuseRead(context: read.context, from: read.from) }
  }

  /// Those from elsewhere time out there: no message of the protocol says no to a read.
  private mutating func refuseRead(context: UInt64, from requester: NodeID) {
    if requester == id || requester == .none { refusedReads.append(context) }
  }
}
