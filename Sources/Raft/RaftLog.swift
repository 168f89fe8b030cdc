import WeirCore

/// The last entry of a log, or any other: index and term say together which entry is meant.
struct EntryID {
  var term: Term
  var index: LogIndex
}

/// The replicated log with how far it is stored, committed, handed out and applied.
///
/// etcd's raft keeps stored entries (Storage) and new ones (unstable) apart; here one buffer holds both and
/// `unstableOffset` says where the new ones begin. The offsets move by etcd's rules.
///
///     anchor < ... applied <= applying <= committed <= last
///     entries below unstableOffset are stored; those in unstableOffset ..< offsetInProgress are being stored
struct RaftLog: ~Copyable {
  private let inMemory = InMemory()
  private var buffer: LogBuffer
  /// The buffer's own, at hand: they are asked for several times for each message.
  private(set) var firstIndex: LogIndex
  private(set) var lastIndex: LogIndex
  private(set) var lastTerm: Term
  /// From here to the end all entries held have `lastTerm`, as far as is known without a search.
  private var lastTermStart: LogIndex
  private let logger: (any RaftLogger)?

  /// What may be sent to a follower that is behind the first entry; nil while none is ready.
  var availableSnapshot: Snapshot?
  /// A snapshot that was received and is not yet known to be stored.
  private(set) var unstableSnapshot: Snapshot?
  private(set) var isSnapshotInProgress = false
  private(set) var unstableOffset: LogIndex
  private(set) var offsetInProgress: LogIndex

  private(set) var committed: LogIndex
  /// The last entry handed out to be applied.
  private(set) var applying: LogIndex
  /// The last entry known to be applied.
  private(set) var applied: LogIndex
  private let maximumApplyingBytes: Int
  private var applyingBytes = 0
  private var isApplyingPaused = false

  init(
    buffer: consuming LogBuffer, availableSnapshot: Snapshot?, maximumApplyingBytes: Int, logger: (any RaftLogger)?
  ) {
    let first = buffer.firstIndex
    firstIndex = first
    lastIndex = buffer.lastIndex
    lastTerm = buffer.lastTerm
    lastTermStart = buffer.lastIndex
    unstableOffset = buffer.lastIndex + 1
    offsetInProgress = buffer.lastIndex + 1
    committed = first - 1
    applying = first - 1
    applied = first - 1
    self.buffer = buffer
    self.availableSnapshot = availableSnapshot
    self.maximumApplyingBytes = maximumApplyingBytes
    self.logger = logger
  }

  // MARK: Looking

  var lastEntryID: EntryID { EntryID(term: lastTerm, index: lastIndex) }
  var memoryBytes: Int { buffer.memoryBytes }

  /// Those of the entries `lower ... upper`, which are held, that fit into `maximumBytes`; at least one.
  @inline(__always)
  func batch(from lower: LogIndex, through upper: LogIndex, maximumBytes: Int = .max) -> EntryBatch {
    buffer.batch(from: lower, through: upper, maximumBytes: maximumBytes)
  }

  /// The term at `index`, nil if it is compacted away or beyond the end.
  @inline(__always)
  func term(at index: LogIndex) -> Term? {
    // Nearly always: terms are long.
    if index >= lastTermStart, index <= lastIndex, index >= firstIndex - 1 { return lastTerm }
    return buffer.term(at: index)
  }

  func termOrZero(at index: LogIndex) -> Term { term(at: index) ?? 0 }

  @inline(__always)
  func matches(_ id: EntryID) -> Bool { term(at: id.index) == id.term }

  /// Whether a log that ends in `last` holds everything that this one does, as far as elections care (paper, 5.4.1).
  func isUpToDate(_ last: EntryID) -> Bool {
    last.term > lastTerm || (last.term == lastTerm && last.index >= lastIndex)
  }

  /// The highest index, at most `index`, whose term is at most `term`: no entry behind it can match a log that has `term`
  /// at `index`. The term is 0 where the log does not reach.
  func findConflict(at index: LogIndex, term: Term) -> EntryID {
    var index = index
    while index > 0 {
      guard let own = self.term(at: index) else { return EntryID(term: 0, index: index) }
      if own <= term { return EntryID(term: own, index: index) }
      index -= 1
    }
    return EntryID(term: 0, index: 0)
  }

  /// As etcd's raft writes it.
  var summary: String {
    "committed=\(committed), applied=\(applied), applying=\(applying), unstable.offset=\(unstableOffset), "
      + "unstable.offsetInProgress=\(offsetInProgress), len(unstable.Entries)=\(lastIndex + 1 - unstableOffset)"
  }

  // MARK: Appending

  /// Appends own entries, which get the indexes behind the last.
  @inline(__always)
  mutating func append(payload: RawSpan, kind: EntryKind, term: Term) {
    lastIndex = buffer.append(term: term, kind: kind, payload: payload)
    guard term != lastTerm else { return }
    lastTerm = term
    lastTermStart = lastIndex
  }

  mutating func append(proposals: EntryBatch, term: Term) {
    buffer.append(proposals: proposals, term: term)
    noteEnd()
  }

  /// Takes a leader's entries, the first of which is the one behind the last.
  @inline(__always)
  mutating func append(_ batch: borrowing EntryBatch) {
    buffer.append(batch, from: lastIndex + 1)
    noteEnd()
  }

  private mutating func noteEnd() {
    lastIndex = buffer.lastIndex
    let term = buffer.lastTerm
    // Terms never fall along the log: with the same term at the end, nothing in between has another.
    guard term != lastTerm else { return }
    lastTerm = term
    lastTermStart = lastIndex
  }

  /// The first entry of a leader's batch that is not in the log as it is, or nil if all are.
  @inline(__always)
  func findConflict(_ batch: EntryBatch) -> LogIndex? {
    batch.firstIndex > lastIndex ? batch.firstIndex : findOverlappingConflict(batch)
  }

  @inline(never)
  private func findOverlappingConflict(_ batch: EntryBatch) -> LogIndex? {
    var conflict: LogIndex?
    var existing: Term = 0
    var conflicting: Term = 0
    batch.forEach { header, _ in
      guard conflict == nil else { return }
      if let own = term(at: header.index), own == header.term { return }
      conflict = header.index
      existing = termOrZero(at: header.index)
      conflicting = header.term
    }
    if let conflict, conflict <= lastIndex {
      logger.write(.info) {
        "found conflict at index \(conflict) [existing term: \(existing), conflicting term: \(conflicting)]"
      }
    }
    return conflict
  }

  /// Takes a leader's entries from `index` on, replacing what is there.
  ///
  /// Only from the first real conflict on: an old message that repeats a part of what is here must not cut off what
  /// follows, since that may be acknowledged, even committed, already.
  mutating func replaceSuffix(with batch: EntryBatch, from index: LogIndex) {
    invariant(index > committed, "committed entries are never replaced: \(index) <= \(committed)")
    if index <= lastIndex { truncate(from: index) }
    buffer.append(batch, from: index)
    noteEnd()
  }

  @inline(never)
  private mutating func truncate(from index: LogIndex) {
    if index <= unstableOffset {
      logger.write(.info) { "replace the unstable entries from index \(index)" }
      unstableOffset = index
      offsetInProgress = index
    } else {
      logger.write(.info) { "truncate the unstable entries before index \(index)" }
      // Being stored, but to be stored again: what is under way are other entries.
      offsetInProgress = min(offsetInProgress, index)
    }
    buffer.truncateSuffix(from: index)
    noteEnd()
  }

  // MARK: Storing

  var unstableEntryCount: LogIndex { lastIndex + 1 - unstableOffset }
  /// Whether entries are to be stored and nobody was told yet.
  var hasNextUnstableEntries: Bool { offsetInProgress <= lastIndex }
  /// Whether entries are to be stored or being stored.
  var hasUnstableEntries: Bool { unstableOffset <= lastIndex }
  var hasNextUnstableSnapshot: Bool { unstableSnapshot != nil && !isSnapshotInProgress }

  func nextUnstableEntries() -> EntryBatch { buffer.batch(from: offsetInProgress, through: lastIndex) }

  var nextUnstableSnapshot: Snapshot? { isSnapshotInProgress ? nil : unstableSnapshot }

  /// Everything that is to be stored was handed out.
  mutating func acceptUnstable() {
    offsetInProgress = max(offsetInProgress, lastIndex + 1)
    if unstableSnapshot != nil { isSnapshotInProgress = true }
  }

  /// Storage says that it holds the log up to an entry.
  ///
  /// Index and term must fit: storage may speak of an entry that has been replaced since it began to store it.
  mutating func stable(through id: EntryID) {
    guard id.index >= unstableOffset else {
      if let unstableSnapshot, unstableSnapshot.metadata.index == id.index {
        logger.write(.info) { "entry at index \(id.index) matched unstable snapshot; ignoring" }
      } else {
        logger.write(.info) { "entry at index \(id.index) missing from unstable log; ignoring" }
      }
      return
    }
    guard id.index <= lastIndex, let own = term(at: id.index) else {
      return logger.write(.info) { "entry at index \(id.index) missing from unstable log; ignoring" }
    }
    guard own == id.term else {
      return logger.write(.info) {
        "entry at (index,term)=(\(id.index),\(id.term)) mismatched with entry at (\(id.index),\(own)) "
          + "in unstable log; ignoring"
      }
    }
    unstableOffset = id.index + 1
    offsetInProgress = max(offsetInProgress, unstableOffset)
  }

  /// As `stable(through:)`, without looking at the term: the planted bug of an acknowledgement that confirms other entries.
  mutating func stableIgnoringTerm(through index: LogIndex) {
    guard index >= unstableOffset, index <= lastIndex else { return }
    unstableOffset = index + 1
    offsetInProgress = max(offsetInProgress, unstableOffset)
  }

  mutating func stableSnapshot(through index: LogIndex) {
    guard let snapshot = unstableSnapshot, snapshot.metadata.index == index else { return }
    unstableSnapshot = nil
    isSnapshotInProgress = false
  }

  /// Everything is replaced by a snapshot.
  mutating func restore(_ snapshot: Snapshot) {
    let metadata = snapshot.metadata
    logger.write(.info) {
      "log [\(summary)] starts to restore snapshot [index: \(metadata.index), term: \(metadata.term)]"
    }
    committed = metadata.index
    buffer.reset(anchorIndex: metadata.index, anchorTerm: metadata.term)
    firstIndex = metadata.index + 1
    noteEnd()
    unstableOffset = metadata.index + 1
    offsetInProgress = metadata.index + 1
    unstableSnapshot = snapshot
    isSnapshotInProgress = false
  }

  /// What to send to a follower that needs a snapshot.
  var snapshotToSend: Snapshot? { unstableSnapshot ?? availableSnapshot }

  /// Forgets entries that the driver has in a snapshot.
  mutating func compact(through index: LogIndex) {
    // Beyond what is applied nobody can have a snapshot of; below the first, it has been done.
    let limit = min(index, applied, unstableOffset - 1)
    buffer.releasePrefix(through: limit)
    firstIndex = buffer.firstIndex
  }

  // MARK: Committing and applying

  mutating func commit(to index: LogIndex) {
    guard index > committed else { return }
    invariant(
      index <= lastIndex,
      "tocommit(\(index)) is out of range [lastIndex(\(lastIndex))]. Was the raft log corrupted, truncated, or lost?")
    committed = index
  }

  /// Commits up to an entry, if its term is that of the entry there.
  @inline(__always)
  mutating func maybeCommit(_ id: EntryID) -> Bool {
    guard id.term != 0, id.index > committed, matches(id) else { return false }
    commit(to: id.index)
    return true
  }

  private func maximumAppliableIndex(allowUnstable: Bool) -> LogIndex {
    allowUnstable ? committed : min(committed, unstableOffset - 1)
  }

  func hasNextCommittedEntries(allowUnstable: Bool) -> Bool {
    // Entries behind a snapshot that is not stored yet cannot be applied: the state before them is not there.
    guard !isApplyingPaused, unstableSnapshot == nil else { return false }
    return applying < maximumAppliableIndex(allowUnstable: allowUnstable)
  }

  func nextCommittedEntries(allowUnstable: Bool) -> EntryBatch {
    guard hasNextCommittedEntries(allowUnstable: allowUnstable) else { return EntryBatch() }
    return buffer.batch(
      from: applying + 1, through: maximumAppliableIndex(allowUnstable: allowUnstable),
      maximumBytes: maximumApplyingBytes - applyingBytes)
  }

  /// Entries through `index`, of `bytes`, were handed out.
  mutating func acceptApplying(through index: LogIndex, bytes: Int, allowUnstable: Bool) {
    invariant(index <= committed, "applying(\(index)) is out of range [committed(\(committed))]")
    applying = index
    applyingBytes += bytes
    // More would exceed the limit, either for certain or because the last batch was already cut off by it.
    isApplyingPaused =
      applyingBytes >= maximumApplyingBytes || index < maximumAppliableIndex(allowUnstable: allowUnstable)
  }

  /// Entries through `index`, of `bytes`, were applied.
  mutating func applied(through index: LogIndex, bytes: Int) {
    invariant(
      index >= applied && index <= committed,
      "applied(\(index)) is out of range [prevApplied(\(applied)), committed(\(committed))]")
    applied = index
    applying = max(applying, index)
    applyingBytes = max(applyingBytes - bytes, 0)
    isApplyingPaused = applyingBytes >= maximumApplyingBytes
  }

  /// Whether a committed and not yet applied entry changes the membership.
  func hasUnappliedConfigurationChange() -> Bool {
    var index = applied + 1
    while index <= committed {
      if let header = buffer.header(at: index), header.kind != .normal { return true }
      index += 1
    }
    return false
  }
}
