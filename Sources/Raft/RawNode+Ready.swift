import WeirCore

extension RawNode {
  /// Whether entries may be handed out to be applied before they are known to be stored here: without asynchronous storage
  /// the driver stores them first, within the same `Ready`.
  private var appliesUnstableEntries: Bool { !configuration.asynchronousStorageWrites }

  /// Whether `ready(into:)` has something to say.
  public var hasReady: Bool {
    if !outbox.isEmpty || !afterAppend.isEmpty || !ownSteps.isEmpty || !readStates.isEmpty || !refusedReads.isEmpty
      || reads.isRoundDue
    {
      return true
    }
    if log.hasNextUnstableEntries || log.hasNextCommittedEntries(allowUnstable: appliesUnstableEntries) { return true }
    if softState != previousSoftState || log.hasNextUnstableSnapshot { return true }
    return !hardState.isEmpty && hardState != previousHardState
  }

  /// Collects everything that is to be done, and takes it as handed out.
  /// - Parameter ready: is overwritten; used again, its arrays keep their memory.
  public mutating func ready(into ready: inout Ready) {
    invariant(!isAdvanceDue, "two accepted Ready structs without call to Advance")
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
    if ready.messages.isEmpty {
      swap(&ready.messages, &afterAppend)
    } else if !afterAppend.isEmpty {
      ready.messages.append(contentsOf: afterAppend)
      afterAppend.removeAll(keepingCapacity: true)
    }
    swap(&ownSteps, &ownStepsOnAdvance)
    if needsStorageAppendResponse(ready) { stepsOnAdvance.append(storageAppendResponse(ready)) }
    if !ready.committedEntries.isEmpty { stepsOnAdvance.append(storageApplyResponse(ready)) }
  }

  /// The driver has stored, applied and sent what `ready` says.
  public mutating func advance(_ ready: borrowing Ready) {
    invariant(
      !configuration.asynchronousStorageWrites,
      "Advance must not be called when using AsyncStorageWrites: step the responses instead")
    invariant(isAdvanceDue, "Advance without an accepted Ready")
    isAdvanceDue = false
    var position = 0
    while position < ownStepsOnAdvance.count {
      step(ownStepsOnAdvance[position])
      position += 1
    }
    ownStepsOnAdvance.removeAll(keepingCapacity: true)
    var steps: [Message] = []
    swap(&steps, &stepsOnAdvance)
    for message in steps { stepIgnoringErrors(message) }
    steps.removeAll(keepingCapacity: true)
    swap(&steps, &stepsOnAdvance)
  }

  /// What storage acknowledged may be old by now, which stepping it finds out; nothing else can be wrong with it.
  @inline(__always)
  private mutating func step(_ own: OwnStep) {
    if own.type == .appendResponse, own.term == term, role == .leader, let ownSlot, own.index <= log.lastIndex {
      try? acknowledge(slot: ownSlot, from: id, index: own.index)
    } else {
      stepIgnoringErrors(own.message(id: id))
    }
  }

  // MARK: Asynchronous storage

  private mutating func addStorageMessages(to ready: inout Ready) {
    if !ready.entries.isEmpty || !ready.hardState.isEmpty || ready.snapshot != nil || !afterAppend.isEmpty
      || !ownSteps.isEmpty
    {
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
    var responses = takeResponses()
    if needsStorageAppendResponse(ready) { responses.append(storageAppendResponse(ready)) }
    message.attachment = MessageAttachment(snapshot: ready.snapshot, responses: responses)
    return message
  }

  /// What waits for storage, to others and to this node itself, in the order in which it was sent.
  private mutating func takeResponses() -> [Message] {
    var responses: [Message] = []
    responses.reserveCapacity(afterAppend.count + ownSteps.count + 1)
    var position = 0
    for own in ownSteps {
      while position < own.position {
        responses.append(afterAppend[position])
        position += 1
      }
      responses.append(own.message(id: id))
    }
    responses += afterAppend[position...]
    ownSteps.removeAll(keepingCapacity: true)
    afterAppend.removeAll(keepingCapacity: true)
    return responses
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

/// An answer of this node to itself, which counts once what it is about is stored.
struct OwnStep: BitwiseCopyable {
  var type: MessageType
  var term: Term
  var index: LogIndex
  /// How many messages to others were sent before it.
  var position: Int

  func message(id: NodeID) -> Message {
    var message = Message(type: type, to: id, from: id, term: term)
    message.index = index
    return message
  }
}
