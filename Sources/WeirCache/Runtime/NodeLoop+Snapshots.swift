import Dispatch
import Raft
import WeirCore
import WeirTransport

/// Keeping the log in memory short, and bringing followers up that are behind its beginning.
///
/// What is sent is no snapshot that was kept. When a follower needs one, the state is captured as it is at that moment,
/// which is never older than what the core had in mind, and streamed while commands go on being applied. Raft accepts a
/// newer one: the follower acknowledges the index that it got.
///
/// A follower with files has it written to its disk as it arrives, and reads it from there once the core wants it
/// (`SnapshotArrivalFile`); one without builds it beside the state in use (`StateReplacement`).
extension NodeLoop {
  /// Lets applied entries go that nobody is likely to need.
  func compactIfNeeded() {
    guard retention.isDue, let term = raft.term(at: appliedIndex) else { return }
    var neededFrom = appliedIndex
    if role == .leader {
      for member in raft.progress where member.isRecentlyActive { neededFrom = min(neededFrom, member.match + 1) }
    }
    guard let index = retention.cut(neededFrom: neededFrom) else { return }
    let metadata = SnapshotMetadata(index: appliedIndex, term: term, configuration: configurationState)
    raft.setAvailableSnapshot(Snapshot(metadata: metadata))
    raft.compact(through: index)
  }

  /// Sends the state as it is now in place of the snapshot that the core asked for.
  func sendSnapshot(_ message: Message) {
    let retry = stateRetries[message.to]
    guard !isStateInUse, retry?.isOver(nowNanoseconds: now) ?? true, let term = raft.term(at: appliedIndex) else {
      return raft.reportSnapshot(message.to, succeeded: false)
    }
    var current = message
    let metadata = SnapshotMetadata(index: appliedIndex, term: term, configuration: configurationState)
    current.attachment = MessageAttachment(snapshot: Snapshot(metadata: metadata))
    isCapturing = true
    if retry == nil {
      log.info("node \(configuration.id) sends its state at index \(appliedIndex) to node \(message.to)")
    }
    transport.sendSnapshot(current, source: CaptureSource(beginCapture()))
  }

  func transportSnapshotSent(_ peer: NodeID, succeeded: Bool) {
    isCapturing = false
    if succeeded { noteSent(to: peer) } else { noteUnsent(to: peer) }
    raft.reportSnapshot(peer, succeeded: succeeded)
    intake.post()
  }

  private func noteSent(to peer: NodeID) {
    guard stateRetries.removeValue(forKey: peer) != nil else { return }
    log.info("node \(configuration.id) has sent its state to node \(peer) at last")
  }

  /// A peer cannot be reached, or does not take the state. The core asks for the next attempt with the next heartbeat that it
  /// answers: without a pause, and a word only for the first failure, a full disk over there would have a capture, a
  /// connection and two lines in the log made here 20 times a second. The pause stays short: a peer that writes a snapshot of
  /// its own refuses as well, and is through before long; how often its disk is filled in vain it sees to itself.
  private func noteUnsent(to peer: NodeID) {
    if stateRetries[peer] == nil {
      log.warning(
        "node \(configuration.id) could not send its state to node \(peer). It goes on trying, and says when it has")
    }
    stateRetries[peer, default: RetryPause(leastNanoseconds: 50_000_000, mostNanoseconds: 1_000_000_000)]
      .failed(nowNanoseconds: now)
  }

  func transportSnapshotBegan(_ message: Message) -> (any SnapshotSink)? {
    guard let metadata = message.snapshot?.metadata, metadata.index > appliedIndex else { return nil }
    // One at a time, and never beside a capture: putting a state in place would pull the tables from under it.
    guard !isStateInUse, refusal?.retry.isOver(nowNanoseconds: now) ?? true else { return nil }
    guard let durable else {
      let sink = ReplacementSink(loop: self, message: message, replacement: StateReplacement(of: store))
      receiving = sink
      return sink
    }
    let file = SnapshotArrivalFile(durable.snapshots, metadata)
    let sink = SnapshotFileSink(self, message, file, queue: durable.snapshotQueue)
    receiving = sink
    return sink
  }

  /// Whether the state is being captured, or another one is about to take its place.
  var isStateInUse: Bool { isCapturing || isInstalling || receiving != nil || arrived != nil }

  /// An arriving state cannot be written. A disk without room for it is no reason to end: what this node has is whole, and
  /// the leader hears that it did not take this. It would send the next one before long, to be written until the disk is
  /// full again, which costs both their network and this one's disk all that there is room for, each time in vain. So none is
  /// begun for a while, and for twice as long after each attempt. Not for longer than half a minute: that is how long
  /// somebody who has made space waits for it to be seen.
  func arrivalFailed(_ failure: SnapshotFailure, of index: LogIndex) {
    if let error = failure.fatalError { return fail(error) }
    var next =
      refusal
      ?? StateRefusal(
        index: index, retry: RetryPause(leastNanoseconds: 1_000_000_000, mostNanoseconds: 30_000_000_000))
    next.index = index
    let pause = next.retry.failed(nowNanoseconds: now)
    refusal = next
    published.stateRefusal.withLock { $0 = "\(failure)" }
    log.error(
      "node \(configuration.id) does not take the state that it is sent: \(failure). What it holds is whole; it takes the next one in \(pause / 1_000_000_000) s at the earliest"
    )
  }

  /// Once this node is where the state would have brought it, by another one or by entries, what became of that one is past.
  func forgetRefusal() {
    guard let index = refusal?.index, appliedIndex >= index else { return }
    refusal = nil
    published.stateRefusal.withLock { $0 = nil }
  }

  /// A whole state has arrived: the core decides whether it is wanted.
  func received(_ message: Message, _ state: ArrivedState) {
    receiving = nil
    guard let index = message.snapshot?.metadata.index else { return discard(state) }
    arrived = (index, state)
    step(message)
    // Not wanted: an older term, or overtaken by appends.
    if raft.firstIndex != index + 1 || appliedIndex >= index { discardArrived() }
  }

  /// The state that has arrived, which the core asks for now.
  func takeArrived(_ metadata: SnapshotMetadata) -> ArrivedState {
    guard let arrived, arrived.index == metadata.index else {
      preconditionFailure("the core installs the snapshot that was just stepped")
    }
    self.arrived = nil
    return arrived.state
  }

  /// The core of a node without files wants a state: it takes the place of everything.
  func install(_ snapshot: Snapshot) {
    guard case .memory(let replacement) = takeArrived(snapshot.metadata) else {
      preconditionFailure("a node without files gets states in memory")
    }
    replacement.commit()
    discard(replacement)
    tookOver(snapshot.metadata, replacement.memberAddresses)
  }

  /// A state from the leader is in place.
  func tookOver(_ metadata: SnapshotMetadata, _ memberAddresses: [NodeID: String]) {
    meetMembers(ofSnapshot: memberAddresses)
    retention.reset()
    appliedIndex = metadata.index
    configurationState = metadata.configuration
    configurationIndex = metadata.index
    log.info("node \(configuration.id) took over the state at index \(appliedIndex)")
    notifyObservers(.snapshotInstalled(index: appliedIndex))
  }

  private func discardArrived() {
    if let arrived { discard(arrived.state) }
    arrived = nil
  }

  private func discard(_ state: ArrivedState) {
    switch state {
    case .memory(let replacement): discard(replacement)
    case .file(let file): durable?.snapshotQueue.async { file.cancel() }
    }
  }

  /// Lets go of the state that was replaced, or of one that is not wanted, elsewhere: a million records take tens of
  /// milliseconds to free.
  private func discard(_ old: StateReplacement) {
    // Nobody else has it once this turn is over, which the delay waits for.
    nonisolated(unsafe) let old = old
    DispatchQueue.global(qos: .utility).asyncAfter(deadline: .now() + .milliseconds(20)) {
      unsafe withExtendedLifetime(old) {}
    }
  }
}

/// A state that was not taken.
struct StateRefusal {
  /// Up to where it holds what was committed.
  var index: LogIndex
  /// When the next one may begin to arrive.
  var retry: RetryPause
}

/// A whole state that has come from a leader.
enum ArrivedState {
  /// Beside the one in use, of a node without files.
  case memory(StateReplacement)
  /// On the disk.
  case file(SnapshotArrivalFile)
}

/// The chunks of a captured state.
private final class CaptureSource: SnapshotSource {
  private var capture: StateCapture?

  init(_ capture: StateCapture) { self.capture = capture }

  func nextChunk(targetBytes: Int) throws -> [UInt8]? {
    let chunk = try capture?.nextChunk(targetBytes: targetBytes)
    if chunk == nil { capture = nil }
    return chunk
  }
}

/// Builds an arriving state beside the one in use: on nodes without files, see `StateReplacement`.
private final class ReplacementSink: SnapshotSink {
  private weak var loop: NodeLoop?
  private let message: Message
  private let replacement: StateReplacement

  init(loop: NodeLoop, message: Message, replacement: StateReplacement) {
    self.loop = loop
    self.message = message
    self.replacement = replacement
  }

  func append(_ chunk: [UInt8], completion: @escaping Completion) {
    completion(Result { try replacement.append(chunk) })
  }

  func finish(completion: @escaping Completion) {
    do throws(StateRestoreError) { try replacement.finish() } catch { return completion(.failure(error)) }
    loop?.received(message, .memory(replacement))
    completion(.success(()))
  }
}
