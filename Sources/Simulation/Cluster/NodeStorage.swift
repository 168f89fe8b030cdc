@_spi(Testing) import Raft
import WeirCore

// What a node stores, what of it survives a crash, and how it starts again from that.
extension SimulatedCluster {
  /// The cluster begins with a snapshot at this index, which names the first members; others begin with nothing.
  static var firstIndex: LogIndex { 1 }

  func isInitialMember(_ position: Int) -> Bool { position < plan.initialVoters + plan.initialLearners }

  var initialConfiguration: ConfigurationState {
    let voters = (0..<plan.initialVoters).map(SafetyChecker.id)
    let learners = (plan.initialVoters..<plan.initialVoters + plan.initialLearners).map(SafetyChecker.id)
    return ConfigurationState(voters: voters, learners: learners)
  }

  func emptyMachine() -> RegisterMachine {
    RegisterMachine(keys: plan.workload.keys, clients: plan.workload.clients)
  }

  /// Puts the first snapshot on a first member's disk.
  func bootstrap(_ node: SimulatedNode) throws(Violation) {
    node.store = try openStore(node)
    guard isInitialMember(node.position) else { return }
    var machine = emptyMachine()
    machine.begin(at: Self.firstIndex, term: 1)
    var write = StableWrite()
    write.snapshot = Snapshot(
      metadata: SnapshotMetadata(index: Self.firstIndex, term: 1, configuration: initialConfiguration),
      data: machine.encode())
    write.snapshotChain = machine.digest
    write.snapshotReplacesLog = true
    write.hardState = HardState(term: 1, vote: 0, commit: Self.firstIndex)
    try hand(write, node)
    try storeDurably(write, EntryBatch(), node)
    checker.synced(write, by: node.position)
  }

  // MARK: Writes

  func stableWrite(_ ready: Ready, _ node: SimulatedNode) -> (write: StableWrite, isEmpty: Bool) {
    var write = StableWrite()
    if !ready.hardState.isEmpty { write.hardState = ready.hardState }
    takeSnapshot(ready.snapshot, into: &write)
    takeEntries(ready.entries, into: &write, node)
    forgetVoteIfPlanted(&write, node)
    return (write, write.hardState == nil && write.entries.isEmpty && write.snapshot == nil)
  }

  /// A storage message carries the hard state in its term, vote and commit; a term of 0 means that there is none.
  func stableWrite(_ message: Message, _ node: SimulatedNode) -> (write: StableWrite, isEmpty: Bool) {
    var write = StableWrite()
    let hardState = HardState(term: message.term, vote: message.vote, commit: message.commit)
    if !hardState.isEmpty { write.hardState = hardState }
    takeSnapshot(message.snapshot, into: &write)
    takeEntries(message.entries, into: &write, node)
    forgetVoteIfPlanted(&write, node)
    return (write, false)
  }

  private func forgetVoteIfPlanted(_ write: inout StableWrite, _ node: SimulatedNode) {
    guard options.driverBugs.contains(.forgetsVote), write.entries.isEmpty else { return }
    write.hardState?.vote = checker.nodes[node.position].written.hardState.vote
  }

  private func takeSnapshot(_ snapshot: Snapshot?, into write: inout StableWrite) {
    guard let snapshot, !snapshot.isEmpty else { return }
    write.snapshot = snapshot
    write.snapshotChain = RegisterMachine(decoding: snapshot.data)?.digest ?? 0
    write.snapshotReplacesLog = true
  }

  private func takeEntries(_ batch: EntryBatch, into write: inout StableWrite, _ node: SimulatedNode) {
    guard !batch.isEmpty else { return }
    let log = checker.nodes[node.position].written
    write.firstIndex = batch.firstIndex
    write.entries.reserveCapacity(batch.count)
    let isBehindSnapshot = write.snapshot?.metadata.index == batch.firstIndex - 1
    var chain = isBehindSnapshot ? write.snapshotChain : log.chain(at: batch.firstIndex - 1) ?? 0
    if batch.firstIndex <= log.lastIndex { mark(.truncation) }
    batch.forEach { header, payload in
      chain = RegisterMachine.chain(chain, header, payload)
      write.entries.append(
        StoredEntry(
          term: header.term, kind: header.kind, payload: payload.withUnsafeBytes { [UInt8]($0) }, chain: chain))
    }
  }

  /// Hands a write over to the node's storage; it is not durable yet.
  func hand(_ write: StableWrite, _ node: SimulatedNode) throws(Violation) {
    try checker.write(write, by: node.position)
  }

  /// The disk begins to write all that waits.
  func beginSync(_ node: SimulatedNode) throws(Violation) {
    node.jobsInFlight = node.jobs.count
    if let store = node.store {
      for job in node.jobs {
        do throws(StoreFailure) {
          try store.write(job.write, entries: job.entries)
        } catch {
          try fail(node, error)
          return
        }
      }
    }
    queue.push(
      at: now + syncDuration(node), .diskDone, subject: node.position, incarnation: node.incarnation)
    _ = crashIfArmed(.beforeSync, node)
  }

  private func syncDuration(_ node: SimulatedNode) -> UInt64 {
    let settings = plan.disk
    if !isHealing, node.slowDisks > 0 || node.disk.chance(perMillion: settings.slowPerMillion) {
      return UInt64(node.disk.between(settings.maximumSyncNanoseconds, settings.slowSyncNanoseconds))
    }
    let duration = node.disk.between(settings.minimumSyncNanoseconds, settings.maximumSyncNanoseconds)
    return UInt64(isHealing ? min(duration, 2_000_000) : duration)
  }

  /// What the disk worked on is durable.
  func diskDone(_ node: SimulatedNode) throws(Violation) {
    if let store = node.store, !options.driverBugs.contains(.syncDoesNothing) {
      do throws(StoreFailure) {
        try store.synchronize()
      } catch {
        try fail(node, error)
        return
      }
    }
    for job in node.jobs[..<node.jobsInFlight] { checker.synced(job.write, by: node.position) }
    node.finishedJobs.append(contentsOf: node.jobs[..<node.jobsInFlight])
    node.jobs.removeFirst(node.jobsInFlight)
    node.jobsInFlight = 0
    if !node.isPaused { try reactToDisk(node) }
  }

  /// The driver takes note that its writes are durable.
  func reactToDisk(_ node: SimulatedNode) throws(Violation) {
    guard let core = node.core, !node.finishedJobs.isEmpty else { return }
    let finished = node.finishedJobs
    node.finishedJobs.removeAll(keepingCapacity: true)
    guard plan.core.asynchronousStorage else {
      try finishReady(node)
      return
    }
    if crashIfArmed(.afterSync, node) { return }
    for job in finished {
      if let snapshot = job.write.snapshot { try restore(snapshot, node) }
      try deliverResponses(job.responses, node, core)
      guard node.isUp else { return }
    }
    try drain(node)
    guard node.isUp, node.jobsInFlight == 0, !node.jobs.isEmpty else { return }
    try beginSync(node)
  }

  /// Storage failed: the process ends at once, acknowledges nothing, and is started again later.
  private func fail(_ node: SimulatedNode, _ failure: StoreFailure, during write: StableWrite? = nil) throws(Violation)
  {
    guard failure.isExpected else { throw broken(.recovery, "n\(node.id): \(failure.text)") }
    mark(.diskError)
    record { "n\(node.id) ends: \(failure.text)" }
    crash(node)
    if let write { node.unsynced.append(write) }
    queue.push(
      at: now + plan.electionTimeoutNanoseconds, .restart, subject: node.position, incarnation: node.incarnation)
  }

  /// A write that is durable when this returns.
  func storeDurably(_ write: StableWrite, _ entries: EntryBatch, _ node: SimulatedNode) throws(Violation) {
    guard let store = node.store else { return }
    do throws(StoreFailure) {
      try store.write(write, entries: entries)
      if !options.driverBugs.contains(.syncDoesNothing) { try store.synchronize() }
    } catch {
      try fail(node, error, during: write)
    }
  }

  // MARK: The state machine

  func apply(_ batch: EntryBatch, _ node: SimulatedNode, _ core: Core) throws(Violation) {
    guard !batch.isEmpty else { return }
    var violation: Violation?
    let remembers = !options.driverBugs.contains(.ignoresSessions)
    batch.forEach { header, payload in
      guard violation == nil, header.index > node.restoredIndex else { return }
      let before = node.machine.appliedIndex
      if node.machine.holds(payload, header) { mark(.duplicateApplied) }
      let command = node.machine.apply(header, payload, remembersSessions: remembers)
      do throws(Violation) {
        try checker.applied(node.position, index: header.index, digest: node.machine.digest, after: before)
        if let command { answerWrite(command, node) }
        if header.kind != .normal { try applyChange(header, payload, node, core) }
      } catch {
        violation = error
      }
    }
    if let violation { throw violation }
    answerReads(node)
  }

  private func applyChange(
    _ header: EntryHeader, _ payload: RawSpan, _ node: SimulatedNode, _ core: Core
  ) throws(Violation) {
    let old = node.configuration
    do {
      node.configuration = try core.applyChange(header.kind, payload)
    } catch {
      throw broken(.coreError, "n\(node.id) cannot apply the configuration change \(header.index): \(error)")
    }
    let new = node.configuration
    mark(.configurationApplied)
    if !new.votersOutgoing.isEmpty { mark(.jointConfiguration) }
    if old.learners.contains(where: { new.voters.contains($0) }) { mark(.learnerPromoted) }
    if core.state.role == .leader, !new.voters.contains(node.id) { mark(.leaderRemoved) }
    record {
      "n\(node.id) applies configuration \(header.index): voters \(new.voters)"
        + (new.votersOutgoing.isEmpty ? "" : " & \(new.votersOutgoing)")
        + (new.learners.isEmpty ? "" : " learners \(new.learners)")
    }
    try checker.configured(node.position, index: header.index, from: old, to: new)
  }

  /// A snapshot that came from the leader is durable: the state machine takes it over.
  func restore(_ snapshot: Snapshot, _ node: SimulatedNode) throws(Violation) {
    guard let machine = RegisterMachine(decoding: snapshot.data) else {
      throw broken(.coreError, "n\(node.id) was handed a snapshot at \(snapshot.metadata.index) without its state")
    }
    guard snapshot.metadata.index > node.machine.appliedIndex else { return }
    mark(.snapshotRestored)
    node.machine = machine
    node.configuration = snapshot.metadata.configuration
    node.snapshotIndex = snapshot.metadata.index
    node.restoredIndex = snapshot.metadata.index
    node.core?.raw.setAvailableSnapshot(snapshot)
    record { "n\(node.id) restores the snapshot at \(snapshot.metadata.index)" }
    try checker.restored(node.position, index: machine.appliedIndex, digest: machine.digest)
    answerReads(node)
  }

  /// Makes a snapshot once enough was applied, and forgets the log in front of it.
  func makeSnapshotIfDue(_ node: SimulatedNode) throws(Violation) {
    guard let core = node.core, node.machine.appliedIndex >= node.snapshotIndex + UInt64(plan.core.snapshotThreshold)
    else { return }
    try makeSnapshot(node, core)
  }

  /// Makes a snapshot of what is applied, and forgets the log in front of it.
  func makeSnapshot(_ node: SimulatedNode, _ core: Core) throws(Violation) {
    let index = node.machine.appliedIndex
    mark(.snapshotMade)
    var write = StableWrite()
    write.snapshot = Snapshot(
      metadata: SnapshotMetadata(
        index: index, term: node.machine.appliedTerm, configuration: node.configuration),
      data: node.machine.encode())
    write.snapshotChain = node.machine.digest
    node.snapshotIndex = index
    if options.driverBugs.contains(.compactsBeforeSnapshot) {
      // The planted mistake: the log is cut first, and a crash comes in between.
      try compact(node, core, write, through: index)
      if crashIfArmed(.afterSnapshot, node) { return }
    }
    try hand(write, node)
    try storeDurably(write, EntryBatch(), node)
    guard node.isUp else { return }
    checker.synced(write, by: node.position)
    if crashIfArmed(.afterSnapshot, node) { return }
    let keep = UInt64(plan.core.trailingEntries)
    let compactIndex = index > keep ? index - keep : 0
    try compact(node, core, write, through: compactIndex)
  }

  /// Forgets the log up to `index`, which the snapshot of `write` holds.
  private func compact(
    _ node: SimulatedNode, _ core: Core, _ write: StableWrite, through index: LogIndex
  ) throws(Violation) {
    guard let snapshot = write.snapshot else { return }
    guard index > checker.nodes[node.position].written.anchorIndex else {
      core.compact(through: 0, snapshot: snapshot)
      return
    }
    core.compact(through: index, snapshot: snapshot)
    var compaction = StableWrite()
    compaction.compactIndex = index
    compaction.compactTerm = checker.nodes[node.position].written.term(at: index) ?? 0
    try hand(compaction, node)
    checker.synced(compaction, by: node.position)
    try storeDurably(compaction, EntryBatch(), node)
    record { "n\(node.id) makes a snapshot at \(snapshot.metadata.index), log begins at \(index + 1)" }
  }

  // MARK: Crash and restart

  /// Crashes the node if a crash at this point of its work was decided.
  func crashIfArmed(_ point: CrashPoint, _ node: SimulatedNode) -> Bool {
    guard node.armedCrash == point else { return false }
    let restart = max(node.armedRestartNanoseconds, now + 1_000_000)
    record { "n\(node.id) crashes \(point)" }
    crash(node)
    queue.push(at: restart, .restart, subject: node.position, incarnation: node.incarnation)
    return true
  }

  /// The process ends, and what was not synced may be lost, unless the machine goes on.
  func crash(_ node: SimulatedNode, losesPower: Bool = true) {
    guard node.isUp else { return }
    mark(.crash)
    if !node.configuration.votersOutgoing.isEmpty { mark(.crashInJointConfiguration) }
    let underWay = node.jobs[..<node.jobsInFlight].map(\.write)
    if !node.jobs.isEmpty { mark(.crashWithUnsyncedWrites) }
    if let store = node.store {
      if losesPower { store.crash(&crashRandom, tears: plan.disk.tearsAtCrash) } else { store.kill() }
      node.unsynced = underWay
      checker.crashed(node.position, surviving: [])
    } else {
      let kept = plan.disk.tearsAtCrash ? crashRandom.below(underWay.count + 1) : 0
      checker.crashed(node.position, surviving: Array(underWay.prefix(kept)))
    }
    node.loseMemory()
  }

  func restart(_ node: SimulatedNode) throws(Violation) {
    guard !node.isUp, !node.isRetired else { return }
    mark(.restart)
    if let store = node.store {
      guard try recover(node, store) else { return }
    }
    try start(node)
    record { "n\(node.id) starts again, applied \(node.machine.appliedIndex)" }
  }

  /// The planted mistake: the index was stored with the commit index, the state with the snapshot.
  private func skipAppliedEntries(_ node: SimulatedNode, _ image: StableImage) {
    node.machine.skip(to: min(image.hardState.commit, image.lastIndex))
  }

  /// Starts the core from what is durable.
  func start(_ node: SimulatedNode) throws(Violation) {
    let image = checker.nodes[node.position].durable
    node.machine = RegisterMachine(decoding: image.snapshot.data) ?? emptyMachine()
    if options.driverBugs.contains(.storesAppliedIndexApart) { skipAppliedEntries(node, image) }
    node.configuration = image.snapshot.metadata.configuration
    if options.driverBugs.contains(.dropsOutgoingVoters) { node.configuration.votersOutgoing = [] }
    node.snapshotIndex = image.snapshot.metadata.index
    node.incarnation += 1
    do {
      node.core = try Core(node: node, image: image, cluster: self)
    } catch {
      throw broken(.coreError, "n\(node.id) cannot start from what it stored: \(error)")
    }
    queue.push(
      at: now + 1 + UInt64(node.timeouts.below(Int(plan.core.tickNanoseconds))), .tick, subject: node.position,
      incarnation: node.incarnation)
    try drain(node)
  }
}
