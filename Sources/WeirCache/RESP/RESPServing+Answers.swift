import CWeir
import RESPWire
import WeirCore

/// Saying what has become of commands, to each client in its order.
extension RESPServing {
  // MARK: Answering writes

  func answerWrites(_ connection: RESPConnection) {
    guard connection.writesUnderWay > 0 else { return }
    connection.answerWrites { write, outcome, refusal in
      if let refusal {
        RESPReply.appendError(refusal.text, to: &connection.output.bytes)
      } else {
        append(write, outcome, to: &connection.output.bytes)
      }
    }
  }

  private func append(_ write: RESPConnection.Write, _ outcome: Outcome, to output: inout [UInt8]) {
    switch (outcome, write.reply) {
    case (.appliedFresh, .ok), (.appliedExisting, .ok), (.appliedNumber, .ok):
      RESPReply.appendSimple("OK", to: &output)
    case (.conditionUnmet, .ok): RESPReply.appendNull(to: &output)
    case (.appliedFresh, .met), (.appliedExisting, .met), (.appliedExisting, .existed):
      RESPReply.appendInteger(1, to: &output)
    case (.conditionUnmet, .met), (.appliedFresh, .existed): RESPReply.appendInteger(0, to: &output)
    case (.appliedNumber, .number): RESPReply.appendInteger(write.number, to: &output)
    default: RESPReply.appendError(errorText(outcome, slot: Int(write.slot)), to: &output)
    }
  }

  // MARK: Answering reads

  /// What may be done with a read.
  private enum Leave {
    case answer, refuse, wait
  }

  func answerReads(_ connection: RESPConnection) {
    guard connection.readsUnderWay > 0, connection.removalsUnderWay == 0 else { return }
    if connection.readsStale {
      _ = answer(connection, hidesExpired: true) { _ in .answer }
      return connection.forgetAnsweredReads()
    }
    guard let lane else { return }
    if configuration.consistency == .lease, connection.firstRead?.ticket == 0, answerUnderLease(connection) { return }
    let (settled, failed) = lane.settledReads
    let expired = answer(connection) { read in
      if read.ticket == 0 || read.ticket > settled { return .wait }
      return read.ticket > failed ? .answer : .refuse
    }
    connection.forgetAnsweredReads()
    remove(expired, connection)
    if connection.readsUnderWay > 0, connection.reads.last?.ticket == 0 { wantTicket(connection) }
  }

  /// Answers all reads without asking anybody.
  /// - Returns: whether a lease covers it; nothing has happened if not.
  private func answerUnderLease(_ connection: RESPConnection) -> Bool {
    let written = connection.output.bytes.count
    let answered = connection.answeredReads
    let expired = answer(connection) { _ in .answer }
    // In this order: the lease has to hold after the values were read, see `leaseHeldDuringReads`.
    guard node.leaseHeldDuringReads() else {
      connection.output.bytes.removeLast(connection.output.bytes.count - written)
      connection.takeBackReads(to: answered)
      return false
    }
    connection.forgetAnsweredReads()
    remove(expired, connection)
    return true
  }

  /// Answers reads, from the first on, as far as `leave` lets it and the client takes them.
  /// - Returns: keys that have to be removed before the read that is the first now can be answered.
  private func answer(
    _ connection: RESPConnection, hidesExpired: Bool = false, _ leave: (RESPConnection.Read) -> Leave
  ) -> [[UInt8]] {
    while let read = connection.firstRead, connection.output.pendingBytes <= configuration.maximumPendingBytes {
      switch leave(read) {
      case .wait: return []
      case .refuse: appendError(.notLeader, read, connection)
      case .answer:
        if let failure = connection.removalFailure {
          appendError(failure, read, connection)
          break
        }
        let result = RESPReads.answer(
          read, of: connection, node.store, now: now, hidesExpired: hidesExpired,
          maximumBytes: configuration.maximumPendingBytes, to: &connection.output.bytes)
        switch result {
        case .answered: break
        case .expired(let keys): return keys
        case .loading: RESPReply.appendError(Self.loadingText, to: &connection.output.bytes)
        }
      }
      connection.finishRead()
    }
    return []
  }

  private func appendError(_ outcome: Outcome, _ read: RESPConnection.Read, _ connection: RESPConnection) {
    let slot = connection.withKeys(of: read) { places, bytes in
      places.first.map { unsafe RESPKeySlot.slot(of: bytes.span.bytes.extracting($0)) } ?? 0
    }
    RESPReply.appendError(errorText(outcome, slot: slot), to: &connection.output.bytes)
  }

  // MARK: Errors

  /// What is said of a command that did not succeed. Only the codes that clients repeat by themselves (`MOVED`,
  /// `CLUSTERDOWN`, `TRYAGAIN`) promise that it has had no effect.
  func errorText(_ outcome: Outcome, slot: Int) -> String {
    switch outcome {
    case .notLeader: notLeaderText(slot: slot)
    case .leadershipLost, .shutdown:
      "OUTCOMEUNKNOWN the node stopped leading meanwhile: the command may take effect or not, read before repeating it"
    case .overloaded: "OVERLOADED too much is under way: the command has no effect, try again later"
    case .outOfSpace: "MISCONF the node's disk is full: the command has no effect"
    case .notANumber: RESPRefusal.notANumber.text
    case .overflow: RESPRefusal.overflow.text
    case .refused: "ERR the state machine of this node does not know the command"
    case .appliedFresh, .appliedExisting, .appliedNumber, .conditionUnmet: "ERR an answer of another kind was expected"
    }
  }

  /// As Redis says it while it reads its file, which clients of a cluster take as a reason to ask another node.
  static let loadingText = "LOADING this node is loading a state from its leader"

  private func notLeaderText(slot: Int) -> String {
    let leader = node.status.leader
    guard leader != NodeID.none else { return "CLUSTERDOWN no node leads at the moment" }
    guard leader != node.id else { return "TRYAGAIN this node has just begun to lead" }
    guard let address = addressOf(leader: leader) else {
      return "CLUSTERDOWN node \(leader) leads, and where it serves RESP is not known"
    }
    return "MOVED \(slot) \(address)"
  }

  /// Asked again ten times a second at most: an answer may be needed for every command.
  private func addressOf(leader: NodeID) -> String? {
    let time = cweir_monotonic_nanoseconds()
    if knownLeader.id != leader || time >= knownLeader.until {
      knownLeader = (leader, directory()[leader], time &+ 100_000_000)
    }
    return knownLeader.address
  }
}
