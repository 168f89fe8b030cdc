import WeirCore

/// Computes the configuration that a change leads to, from the one in force (etcd's confchange.Changer).
///
/// Nothing here is in place until the result is put in place; a refused change leaves no trace.
public struct ConfigurationChanger {
  /// The configuration in force.
  public var tracker: ProgressTracker
  /// The last entry of the log: a new member is probed there first.
  public var lastIndex: LogIndex
  public var maximumInflightMessages: Int
  public var maximumInflightBytes: Int

  public init(
    tracker: ProgressTracker, lastIndex: LogIndex, maximumInflightMessages: Int, maximumInflightBytes: Int = 0
  ) {
    self.tracker = tracker
    self.lastIndex = lastIndex
    self.maximumInflightMessages = maximumInflightMessages
    self.maximumInflightBytes = maximumInflightBytes
  }

  private struct Draft {
    var configuration: MembershipConfiguration
    var progress: [Progress]

    func slot(of id: NodeID) -> Int? { progress.firstIndex { $0.id == id } }
  }

  private var draft: Draft { Draft(configuration: tracker.configuration, progress: tracker.progress) }

  /// Changes at most one voter, without a joint configuration (dissertation, section 4.1: majorities of configurations
  /// that differ by one voter intersect).
  public func simple(_ changes: [MemberChange]) throws(ConfigurationChangeError) -> ProgressTracker {
    guard !tracker.configuration.isJoint else { throw .simpleInJoint }
    var draft = draft
    try apply(changes, to: &draft)
    let before = Set(tracker.configuration.voters)
    guard before.symmetricDifference(draft.configuration.voters).count <= 1 else { throw .moreThanOneVoterChanged }
    return finish(draft)
  }

  /// Enters a joint configuration: the voters in force become its outgoing half, the changes are made to the incoming.
  public func enterJoint(
    _ changes: [MemberChange], autoLeave: Bool
  ) throws(ConfigurationChangeError) -> ProgressTracker {
    guard !tracker.configuration.isJoint else { throw .alreadyJoint }
    // An empty configuration may be filled by simple changes, but has no majority to hand over from.
    guard !tracker.configuration.voters.isEmpty else { throw .zeroVoterJoint }
    var draft = draft
    draft.configuration.votersOutgoing = draft.configuration.voters
    try apply(changes, to: &draft)
    draft.configuration.autoLeave = autoLeave
    return finish(draft)
  }

  /// Leaves the joint configuration: only its incoming half remains.
  public func leaveJoint() throws(ConfigurationChangeError) -> ProgressTracker {
    guard tracker.configuration.isJoint else { throw .notJoint }
    var draft = draft
    for id in draft.configuration.learnersNext {
      draft.configuration.learners.insertSorted(id)
      if let slot = draft.slot(of: id) { draft.progress[slot].isLearner = true }
    }
    draft.configuration.learnersNext = []
    for id in draft.configuration.votersOutgoing
    where !draft.configuration.voters.contains(id) && !draft.configuration.learners.contains(id) {
      draft.progress.removeAll { $0.id == id }
    }
    draft.configuration.votersOutgoing = []
    draft.configuration.autoLeave = false
    return finish(draft)
  }

  /// Makes the change that an entry asks for, in the way it asks for.
  public func apply(_ change: ConfigurationChangeV2) throws(ConfigurationChangeError) -> ProgressTracker {
    if change.leavesJoint { return try leaveJoint() }
    if change.entersJoint { return try enterJoint(change.changes, autoLeave: change.autoLeaves) }
    return try simple(change.changes)
  }

  /// The configuration that a snapshot describes, reached by the same steps that led to it: the outgoing half one by one,
  /// then a joint change to the incoming. `tracker` is empty.
  public func restore(_ state: ConfigurationState) throws(ConfigurationChangeError) -> ProgressTracker {
    var incoming = state.votersOutgoing.map { MemberChange(.remove, $0) }
    incoming += state.voters.map { MemberChange(.addVoter, $0) }
    incoming += state.learners.map { MemberChange(.addLearner, $0) }
    // Voters of the outgoing half, so this puts them into learnersNext.
    incoming += state.learnersNext.map { MemberChange(.addLearner, $0) }
    var step = self
    if state.votersOutgoing.isEmpty {
      for change in incoming { step.tracker = try step.simple([change]) }
      return step.tracker
    }
    for id in state.votersOutgoing { step.tracker = try step.simple([MemberChange(.addVoter, id)]) }
    return try step.enterJoint(incoming, autoLeave: state.autoLeave)
  }

  // MARK: Single members

  private func apply(_ changes: [MemberChange], to draft: inout Draft) throws(ConfigurationChangeError) {
    for change in changes where change.nodeID != .none {
      switch change.kind {
      case .addVoter: makeVoter(change.nodeID, &draft)
      case .addLearner: makeLearner(change.nodeID, &draft)
      case .remove: remove(change.nodeID, &draft)
      case .update: break
      }
    }
    guard !draft.configuration.voters.isEmpty else { throw .removedAllVoters }
  }

  private func makeVoter(_ id: NodeID, _ draft: inout Draft) {
    guard let slot = draft.slot(of: id) else {
      draft.configuration.voters.insertSorted(id)
      return insertProgress(id, isLearner: false, &draft)
    }
    draft.progress[slot].isLearner = false
    draft.configuration.learners.remove(id)
    draft.configuration.learnersNext.remove(id)
    draft.configuration.voters.insertSorted(id)
  }

  private func makeLearner(_ id: NodeID, _ draft: inout Draft) {
    guard let slot = draft.slot(of: id) else {
      draft.configuration.learners.insertSorted(id)
      return insertProgress(id, isLearner: true, &draft)
    }
    guard !draft.progress[slot].isLearner else { return }
    let kept = draft.progress[slot]
    remove(id, &draft)
    if draft.slot(of: id) == nil { insert(kept, &draft) }
    if draft.configuration.votersOutgoing.contains(id) {
      draft.configuration.learnersNext.insertSorted(id)
    } else {
      if let slot = draft.slot(of: id) { draft.progress[slot].isLearner = true }
      draft.configuration.learners.insertSorted(id)
    }
  }

  private func remove(_ id: NodeID, _ draft: inout Draft) {
    guard draft.slot(of: id) != nil else { return }
    draft.configuration.voters.remove(id)
    draft.configuration.learners.remove(id)
    draft.configuration.learnersNext.remove(id)
    // A voter of the outgoing half still decides, so what is known of it is still needed.
    if !draft.configuration.votersOutgoing.contains(id) { draft.progress.removeAll { $0.id == id } }
  }

  private func insertProgress(_ id: NodeID, isLearner: Bool, _ draft: inout Draft) {
    var progress = Progress(
      id: id, next: max(lastIndex, 1), isLearner: isLearner,
      inflights: Inflights(maximumMessages: maximumInflightMessages, maximumBytes: maximumInflightBytes))
    // A new member counts as active: otherwise a quorum check before its first message would end the leader's term.
    progress.isRecentlyActive = true
    insert(progress, &draft)
  }

  private func insert(_ progress: Progress, _ draft: inout Draft) {
    let position = draft.progress.firstIndex { $0.id > progress.id } ?? draft.progress.endIndex
    draft.progress.insert(progress, at: position)
  }

  /// Checks what must hold of any configuration and puts the draft together.
  private func finish(_ draft: Draft) -> ProgressTracker {
    let configuration = draft.configuration
    for id in configuration.allVoters + configuration.learners {
      invariant(draft.slot(of: id) != nil, "no progress for member \(id) of \(configuration)")
    }
    for id in configuration.learnersNext {
      invariant(configuration.votersOutgoing.contains(id), "\(id) is in learners_next, but is no outgoing voter")
    }
    for id in configuration.learners {
      invariant(!configuration.isVoter(id), "\(id) is in learners and in voters of \(configuration)")
    }
    invariant(
      configuration.isJoint || (configuration.learnersNext.isEmpty && !configuration.autoLeave),
      "learners_next or autoleave outside of a joint configuration")
    return ProgressTracker(configuration: configuration, progress: draft.progress, continuing: tracker)
  }
}
