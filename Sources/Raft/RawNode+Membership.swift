import WeirCore

extension RawNode {
  // MARK: Proposing

  /// Checks the membership changes of a proposal against what is in force and on its way.
  ///
  /// At most one change may be in the log and not applied: two at once could take two steps, and majorities of
  /// configurations two steps apart need not intersect. A refused change becomes an empty entry, as in etcd's raft.
  /// - Returns: the positions of the refused changes within the batch.
  mutating func checkConfigurationChanges(in batch: EntryBatch) throws(RaftError) -> [Int] {
    if batch.isKnownNormal { return [] }
    var changes: [(position: Int, change: ConfigurationChangeV2?)] = []
    var position = 0
    batch.forEach { header, payload in
      switch header.kind {
      case .normal: break
      case .configurationChange: changes.append((position, try? ConfigurationChange(decoding: payload).v2))
      case .configurationChangeV2: changes.append((position, try? ConfigurationChangeV2(decoding: payload)))
      }
      position += 1
    }
    guard !changes.isEmpty else { return [] }
    guard changes.allSatisfy({ $0.change != nil }) else { throw .proposalDropped(.invalidPayload) }
    var refused: [Int] = []
    for case (let position, let change?) in changes {
      if let reason = refusal(of: change), !configuration.disableConfigurationChangeValidation {
        logger.write(.info) {
          "\(id.hex) ignoring conf change \(RaftDescription.configurationChange(change)) at config "
            + "\(tracker.configuration): \(reason)"
        }
        refused.append(position)
        trace(.changeConfiguration(refused: true))
      } else {
        notePending(change, at: log.lastIndex + UInt64(position) + 1)
        trace(.changeConfiguration(refused: false))
      }
    }
    return refused
  }

  private mutating func notePending(_ change: ConfigurationChangeV2, at index: LogIndex) {
    if hasPlantedBugs && plantedBugs.contains(.autoLeaveNotPending), change.leavesJoint { return }
    pendingConfigurationIndex = index
  }

  private func refusal(of change: ConfigurationChangeV2) -> String? {
    if pendingConfigurationIndex > log.applied,
      !(hasPlantedBugs && plantedBugs.contains(.changeWhileChangePending))
    {
      return "possible unapplied conf change at index \(pendingConfigurationIndex) (applied to \(log.applied))"
    }
    if tracker.configuration.isJoint {
      return change.changes.isEmpty ? nil : "must transition out of joint config first"
    }
    return change.changes.isEmpty ? "not in joint state; refusing empty conf change" : nil
  }

  /// Leaves a joint configuration once everything up to the change that entered it is applied.
  mutating func leaveJointIfDue() {
    guard role == .leader, tracker.configuration.autoLeave, log.applied >= pendingConfigurationIndex else { return }
    leaveJointAutomatically()
  }

  private mutating func leaveJointAutomatically() {
    var builder = EntryBatchBuilder(capacity: 64)
    // The empty payload is the empty change, and has no size that could be refused.
    builder.append(kind: .configurationChangeV2, payload: [])
    do throws(RaftError) {
      try proposeOwn(builder.finish())
      logger.write(.info) {
        "initiating automatic transition out of joint configuration \(tracker.configuration)"
      }
    } catch {
      // A transfer is under way. Either it succeeds and the next leader leaves, or its failure or the next applied entry
      // tries again.
      logger.write(.debug) {
        "not initiating automatic transition out of joint configuration \(tracker.configuration): \(error)"
      }
    }
  }

  // MARK: Applying

  /// Puts a committed change into force. The driver calls it for each entry that is one, when it applies it; a change that
  /// the application refuses is applied with all its members replaced by 0, which changes nothing.
  /// - Returns: the membership that results, for snapshots.
  /// - Throws: `RaftError.invalidMembership` if the change cannot follow the membership in force; nothing has changed.
  @discardableResult
  public mutating func applyConfigurationChange(
    _ change: ConfigurationChangeV2
  ) throws(RaftError) -> ConfigurationState {
    let result: ProgressTracker
    do throws(ConfigurationChangeError) {
      result = try changer(tracker, lastIndex: log.lastIndex).apply(change)
    } catch {
      throw .invalidMembership(error.description)
    }
    switchConfiguration(to: result)
    trace(.applyConfigurationChange)
    return tracker.configuration.configurationState
  }

  /// The same for a change of one member.
  @discardableResult
  public mutating func applyConfigurationChange(_ change: ConfigurationChange) throws(RaftError) -> ConfigurationState {
    try applyConfigurationChange(change.v2)
  }

  private func changer(_ tracker: ProgressTracker, lastIndex: LogIndex) -> ConfigurationChanger {
    Self.changer(tracker, lastIndex: lastIndex, configuration: configuration)
  }

  private static func changer(
    _ tracker: ProgressTracker, lastIndex: LogIndex, configuration: RaftConfiguration
  ) -> ConfigurationChanger {
    ConfigurationChanger(
      tracker: tracker, lastIndex: lastIndex, maximumInflightMessages: configuration.maximumInflightMessages,
      maximumInflightBytes: configuration.maximumInflightBytes)
  }

  /// The tracker of the membership that a snapshot describes.
  /// - Throws: `RaftError.invalidMembership` if no sequence of changes leads to it.
  static func trackerRestored(
    from state: ConfigurationState, lastIndex: LogIndex, configuration: RaftConfiguration
  ) throws(RaftError) -> ProgressTracker {
    let restored: ProgressTracker
    do throws(ConfigurationChangeError) {
      restored = try changer(ProgressTracker(), lastIndex: lastIndex, configuration: configuration).restore(state)
    } catch {
      throw .invalidMembership(error.description)
    }
    guard restored.configuration.configurationState == state.sorted else {
      throw .invalidMembership(
        "ConfStates not equivalent: \(RaftDescription.configurationState(state.sorted)) and "
          + RaftDescription.configurationState(restored.configuration.configurationState))
    }
    return restored
  }

  func trackerRestored(from state: ConfigurationState, lastIndex: LogIndex) throws(RaftError) -> ProgressTracker {
    var state = state
    if hasPlantedBugs && plantedBugs.contains(.outgoingVotersDropped) {
      state.votersOutgoing = []
      state.learnersNext = []
      state.autoLeave = false
    }
    return try Self.trackerRestored(from: state, lastIndex: lastIndex, configuration: configuration)
  }

  mutating func switchConfiguration(to next: ProgressTracker) {
    tracker = next
    ownSlot = tracker.slot(of: id)
    logger.write(.info) { "\(id.hex) switched to configuration \(tracker.configuration)" }
    guard role == .leader else { return }
    if ownSlot == nil || isLearner {
      if configuration.stepDownOnRemoval { becomeFollower(term: term, leader: .none) }
      if role == .leader { recountRounds() }
      return
    }
    guard !tracker.configuration.voters.isEmpty else { return }
    recountRounds()
    if maybeCommit() {
      // A smaller quorum may be enough for what was waiting: nothing else would say so to the others.
      releasePostponedReads()
      broadcastAppend()
    } else {
      // New members need not wait for the next proposal or heartbeat.
      for slot in tracker.progress.indices where slot != ownSlot { sendAppend(slot: slot, evenIfEmpty: false) }
    }
    if leadTransferee != .none, !tracker.configuration.isVoter(leadTransferee) { abortLeaderTransfer() }
  }

  /// A lease was granted by a quorum of the membership before: the one now in force must have granted it too, since the
  /// next leader is elected by a quorum of this one or of the one after.
  private mutating func recountRounds() {
    lease.startNanoseconds = nil
    let round = tracker.confirmedRound
    if round <= reads.lastRound { extendLease(round: round) }
    advanceConfirmedRound()
  }
}

extension ConfigurationState {
  /// With ascending lists.
  fileprivate var sorted: ConfigurationState {
    ConfigurationState(
      voters: voters.sorted(), votersOutgoing: votersOutgoing.sorted(), learners: learners.sorted(),
      learnersNext: learnersNext.sorted(), autoLeave: autoLeave)
  }
}
