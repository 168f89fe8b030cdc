import WeirCore

/// An entry as a node's storage holds it.
struct StoredEntry: Sendable {
  var term: Term
  var kind: EntryKind
  var payload: [UInt8]
  /// Digest of this entry and all before it.
  var chain: UInt64
}

/// What is on a node's disk: hard state, snapshot, log. The checks compare against it, so it is kept even where the bytes
/// themselves live in the write-ahead log.
struct StableImage: Sendable {
  var hardState = HardState()
  /// The newest snapshot; empty at first.
  var snapshot = Snapshot()
  /// Digest of the log up to the snapshot's index.
  var snapshotChain: UInt64 = 0
  /// The last index before the first entry held.
  private(set) var anchorIndex: LogIndex = 0
  private(set) var anchorTerm: Term = 0
  private(set) var anchorChain: UInt64 = 0
  private(set) var entries: [StoredEntry] = []

  var lastIndex: LogIndex { anchorIndex + UInt64(entries.count) }
  var lastTerm: Term { entries.last?.term ?? anchorTerm }
  var lastChain: UInt64 { entries.last?.chain ?? anchorChain }

  /// The entry at `index`, if it is held.
  func entry(at index: LogIndex) -> StoredEntry? {
    guard index > anchorIndex, index <= lastIndex else { return nil }
    return entries[Int(index - anchorIndex - 1)]
  }

  /// Digest of the log up to `index`, where that is known.
  func chain(at index: LogIndex) -> UInt64? {
    guard index >= anchorIndex, index <= lastIndex else {
      return index == snapshot.metadata.index && index > 0 ? snapshotChain : nil
    }
    return index == anchorIndex ? anchorChain : entries[Int(index - anchorIndex - 1)].chain
  }

  /// Term of the entry at `index`, where that is known.
  func term(at index: LogIndex) -> Term? {
    guard index >= anchorIndex, index <= lastIndex else { return nil }
    return index == anchorIndex ? anchorTerm : entries[Int(index - anchorIndex - 1)].term
  }

  /// Removes what is at `index` and behind it.
  mutating func truncate(from index: LogIndex) {
    guard index > anchorIndex, index <= lastIndex else { return }
    entries.removeLast(Int(lastIndex - index + 1))
  }

  mutating func append(_ entry: StoredEntry) { entries.append(entry) }

  /// Forgets entries up to and including `index`.
  mutating func compact(through index: LogIndex) {
    guard index > anchorIndex, index <= lastIndex, let term = term(at: index), let chain = chain(at: index) else {
      return
    }
    entries.removeFirst(Int(index - anchorIndex))
    anchorIndex = index
    anchorTerm = term
    anchorChain = chain
  }

  /// Forgets the log and continues behind a snapshot.
  mutating func reset(index: LogIndex, term: Term, chain: UInt64) {
    entries.removeAll(keepingCapacity: true)
    anchorIndex = index
    anchorTerm = term
    anchorChain = chain
  }
}

/// One write to storage, as it is handed over; it becomes part of the durable image when it is synced.
struct StableWrite: Sendable {
  var hardState: HardState?
  /// Where `entries` begin, if there are any; what is behind them in the log goes.
  var firstIndex: LogIndex = 0
  var entries: [StoredEntry] = []
  /// A snapshot, of this node's state or received from the leader.
  var snapshot: Snapshot?
  var snapshotChain: UInt64 = 0
  /// Whether the log is dropped for the snapshot (received), or stays (own).
  var snapshotReplacesLog = false
  /// The log is not needed up to here.
  var compactIndex: LogIndex = 0
  var compactTerm: Term = 0

  /// Does the write to an image.
  func apply(to image: inout StableImage) {
    if let snapshot, snapshot.metadata.index >= image.snapshot.metadata.index {
      image.snapshot = snapshot
      image.snapshotChain = snapshotChain
      if snapshotReplacesLog {
        image.reset(index: snapshot.metadata.index, term: snapshot.metadata.term, chain: snapshotChain)
      }
    }
    if !entries.isEmpty {
      image.truncate(from: firstIndex)
      for entry in entries { image.append(entry) }
    }
    if let hardState { image.hardState = hardState }
    if compactIndex > 0 { image.compact(through: compactIndex) }
  }
}
