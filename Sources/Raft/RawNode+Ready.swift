import WeirCore

extension RawNode {
  /// Whether entries may be handed out to be applied before they are known to be stored here: without asynchronous storage
  /// the driver stores them first, within the same `Ready`.
  private var appliesUnstableEntries: Bool { !configuration.asynchronousStorageWrites }

  /// Whether `ready(into:)` has something to say.
  public var hasReady: Bool {
    if !outbox.isEmpty || !afterAppend.isEmpty || !readStates.isEmpty || !refusedReads.isEmpty || reads.isRoundDue {
      return true
    }
    if log.hasNextUnstableEntries || log.hasNextCommittedEntries(allowUnstable: appliesUnstableEntries) { return true }
    if softState != previousSoftState || log.hasNextUnstableSnapshot { return true }
    return !hardState.isEmpty && hardState != previousHardState
  }

  /// Collects everything that is to be done, and takes it as handed out.
  /// - Parameter ready: is overwritten; used again, its arrays keep their memory.
  public mutating func ready(into ready: inout Ready) {
    precondition(!isAdvanceDue, "two accepted Ready structs without call to Advance")
    if reads.isRoundDue, role == .leader { broadcastHeartbeat() }
    ready.removeAll()
    let state = hardState
    collectState(into: &ready, state)
    swap(&ready.messages, &outbox)
    swap(&ready.readStates, &readStates)
    swap(&ready.refusedReads, &refusedReads)
    if configuration.asynchronousStorageWrites {
      addStorageMessages(to: &ready)
    } else {
      releaseAfterAppend(to: &ready)
      isAdvanceDue = true
    }
    if !ready.committedEntries.isEmpty {
      log.acceptApplying(
        through: ready.committedEntries.lastIndex, bytes: ready.committedEntries.byteCount,
        allowUnstable: appliesUnstableEntries)
    }
    log.acceptUnstable()
    trace(.ready)
  }

  private mutating func collectState(into ready: inout Ready, _ state: HardState) {
    if softState != previousSoftState {
      ready.softState = softState
      previousSoftState = softState
    }
    if log.hasNextUnstableEntries { ready.entries = log.nextUnstableEntries() }
    ready.committedEntries = log.nextCommittedEntries(allowUnstable: appliesUnstableEntries)
    ready.snapshot = log.nextUnstableSnapshot
    ready.mustSync =
      !ready.entries.isEmpty || state.vote != previousHardState.vote || state.term != previousHardState.term
    if state != previousHardState, !state.isEmpty {
      ready.hardState = state
      previousHardState = state
    }
  }

  // MARK: Synchronous storage

  /// Messages that wait for storage go out behind the others: the driver stores before it sends. Those to this node itself
  /// wait for `advance`.
  private mutating func releaseAfterAppend(to ready: inout Ready) {
    for message in afterAppend {
      if message.to == id { stepsOnAdvance.append(message) } else { ready.messages.append(message) }
    }
    afterAppend.removeAll(keepingCapacity: true)
    if needsStorageAppendResponse(ready) { stepsOnAdvance.append(storageAppendResponse(ready)) }
    if !ready.committedEntries.isEmpty { stepsOnAdvance.append(storageApplyResponse(ready)) }
  }

  /// The driver has stored, applied and sent what `ready` says.
  public mutating func advance(_ ready: borrowing Ready) {
    precondition(
      !configuration.asynchronousStorageWrites, "Advance must not be called when using AsyncStorageWrites")
    precondition(isAdvanceDue, "Advance without an accepted Ready")
    isAdvanceDue = false
    var steps: [Message] = []
    swap(&steps, &stepsOnAdvance)
    for message in steps {
      // What storage acknowledged may be old by now, which stepping it finds out; nothing else can be wrong with it.
      do throws(RaftError) { try stepChecked(message) } catch {
        logger.write(.debug) { "\(id.hex) ignored own \(message.type.etcdName): \(error)" }
      }
    }
    steps.removeAll(keepingCapacity: true)
    swap(&steps, &stepsOnAdvance)
  }

  // MARK: Asynchronous storage

  private mutating func addStorageMessages(to ready: inout Ready) {
    if !ready.entries.isEmpty || !ready.hardState.isEmpty || ready.snapshot != nil || !afterAppend.isEmpty {
      ready.messages.append(storageAppend(ready))
    }
    if !ready.committedEntries.isEmpty { ready.messages.append(storageApply(ready)) }
  }

  private mutating func storageAppend(_ ready: Ready) -> Message {
    var message = Message(type: .storageAppend, to: .appendThread, from: id)
    message.entries = ready.entries
    // All zero says that the hard state did not change.
    message.term = ready.hardState.term
    message.vote = ready.hardState.vote
    message.commit = ready.hardState.commit
    if needsStorageAppendResponse(ready) { afterAppend.append(storageAppendResponse(ready)) }
    message.attachment = MessageAttachment(snapshot: ready.snapshot, responses: afterAppend)
    afterAppend.removeAll(keepingCapacity: true)
    return message
  }

  private func needsStorageAppendResponse(_ ready: Ready) -> Bool {
    log.hasUnstableEntries || ready.snapshot != nil
  }

  /// What storage answers once it is done.
  ///
  /// It names the last entry of the whole log, not of what is handed over now, and carries the present term. Storage works
  /// in order, so when it is done with this, everything before is stored too, if nothing was replaced meanwhile; and if
  /// something was, in a later term, then the answer is of an older term than the node, and says nothing. Entries alone
  /// could not tell: replaced and replaced again, the same index and term can come back with the storing of the second
  /// copy still under way (the ABA problem). Whenever entries are not known to be stored the answer is asked for again,
  /// so one that was ignored is made up for.
  private func storageAppendResponse(_ ready: Ready) -> Message {
    var message = Message(type: .storageAppendResponse, to: id, from: .appendThread, term: term)
    if log.hasUnstableEntries {
      message.index = log.lastIndex
      message.logTerm = log.lastTerm
    }
    if let snapshot = ready.snapshot { message.attachment = MessageAttachment(snapshot: snapshot) }
    return message
  }

  private func storageApply(_ ready: Ready) -> Message {
    var message = Message(type: .storageApply, to: .applyThread, from: id)
    message.entries = ready.committedEntries
    message.attachment = MessageAttachment(responses: [storageApplyResponse(ready)])
    return message
  }

  private func storageApplyResponse(_ ready: Ready) -> Message {
    var message = Message(type: .storageApplyResponse, to: id, from: .applyThread)
    message.entries = ready.committedEntries
    return message
  }
}
