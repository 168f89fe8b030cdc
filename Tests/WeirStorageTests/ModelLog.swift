import Testing
import WeirCore

@testable import WeirStorage

/// What a log must hold after each of a row of batches: the oracle of the recovery tests.
struct ModelLog: Hashable, Sendable {
  var hardState = HardState()
  var anchorIndex: LogIndex = 0
  var entries: [ModelEntry] = []

  var lastIndex: LogIndex { anchorIndex + UInt64(entries.count) }
}

/// A batch of the random workload.
enum ModelStep: Sendable {
  case append(first: LogIndex, count: Int, term: Term, payloadBytes: Int, HardState)
  case compact(LogIndex, Term)
  case reset(LogIndex, Term)
}

/// A generator of legal histories: appends, replaced suffixes, votes, compaction, received snapshots.
struct ModelHistory {
  private(set) var state = ModelLog()
  private var generator: SplitMix64
  private var term: Term = 1
  /// Whether the log is ever compacted or emptied.
  var compacts = true
  var maximumPayloadBytes = 120

  /// - Parameter state: what the history goes on from.
  init(seed: UInt64, from state: ModelLog = ModelLog()) {
    generator = SplitMix64(seed: seed)
    self.state = state
    term = max(state.hardState.term, state.entries.last?.term ?? 0) + 1
  }

  /// The next step, and the state behind it.
  mutating func next() -> ModelStep {
    let step = draw()
    apply(step)
    return step
  }

  private mutating func draw() -> ModelStep {
    let choice = generator.below(100)
    if compacts, choice < 6, state.entries.count > 4 {
      let position = generator.below(state.entries.count)
      return .compact(state.entries[position].index, state.entries[position].term)
    }
    if compacts, choice < 8 {
      term += 1
      return .reset(state.lastIndex + UInt64(generator.below(20)) + 1, term)
    }
    var first = state.lastIndex + 1
    if choice < 25, !state.entries.isEmpty {
      term += 1
      first = state.lastIndex - UInt64(generator.below(min(state.entries.count, 6)))
    }
    let vote = NodeID(generator.below(3))
    return .append(
      first: first, count: generator.below(4), term: term, payloadBytes: generator.below(maximumPayloadBytes + 1),
      HardState(term: term, vote: vote, commit: state.anchorIndex))
  }

  private mutating func apply(_ step: ModelStep) {
    switch step {
    case .append(let first, let count, let term, let payloadBytes, let hardState):
      state.hardState = hardState
      guard count > 0 else { return }
      state.entries.removeLast(Int(state.lastIndex + 1 - first))
      for index in first..<first + UInt64(count) {
        state.entries.append(
          ModelEntry(index: index, term: term, payload: makePayload(index, term, payloadBytes)))
      }
    case .compact(let index, _):
      state.entries.removeFirst(Int(index - state.anchorIndex))
      setAnchor(index)
    case .reset(let index, _):
      state.entries.removeAll()
      setAnchor(index)
    }
  }

  /// Opening raises the commit index to that of the snapshot, which covers the anchor here.
  private mutating func setAnchor(_ index: LogIndex) {
    state.anchorIndex = index
    state.hardState.commit = max(state.hardState.commit, index)
  }
}

extension WriteAheadLog {
  /// Stages a step of the model.
  func stage(_ step: ModelStep) {
    switch step {
    case .append(let first, let count, let term, let payloadBytes, let hardState):
      append(
        makeEntries(from: first, count: count, term: term, payloadBytes: payloadBytes), hardState: hardState)
    case .compact(let index, let term): compact(through: index, term: term)
    case .reset(let index, let term): reset(anchorIndex: index, anchorTerm: term)
    }
  }
}

extension OpenedLog {
  /// What was recovered, as the model says it.
  var state: ModelLog { ModelLog(hardState: hardState, anchorIndex: anchorIndex, entries: entries) }
}

/// A snapshot that covers any anchor, so that opening does not ask for one, and changes nothing.
func coveringSnapshot(of fileSystem: any FileSystem, directory: String = "/log") throws -> SnapshotMetadata? {
  let replay = LogReplay(fileSystem: fileSystem, directory: directory, owner: nil, memorySegmentBytes: 4096)
  do {
    try replay.run()
  } catch {
    return nil
  }
  let log = replay.takeLog()
  return log.anchorIndex == 0 ? nil : SnapshotMetadata(index: log.anchorIndex, term: log.anchorTerm)
}

/// Opens a log whose snapshots, as far as it needs any, exist.
func reopen(_ fileSystem: any FileSystem, _ options: LogOptions) throws -> OpenedLog {
  try openLog(fileSystem, options, snapshot: coveringSnapshot(of: fileSystem))
}

/// The whole way of a log that must hold `state`: opened, written to, and opened again after a power cut.
func requireGoesOn(_ disk: SimulatedFileSystem, _ options: LogOptions, from state: ModelLog) throws {
  let opened = try reopen(disk, options)
  try #require(opened.state == state)
  opened.log.append(makeEntries(from: opened.log.lastIndex + 1, count: 1, term: 9000))
  try opened.log.commitBatch()
  disk.crash(survivalPerMille: 0)
  try #require(try reopen(disk, options).entries.count == state.entries.count + 1)
}
