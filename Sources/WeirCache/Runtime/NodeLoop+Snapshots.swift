import Dispatch
import Raft
import WeirCore
import WeirTransport

/// Keeping the log in memory short, and bringing followers up that are behind its beginning.
///
/// No snapshot is kept. When a follower needs one, the state is captured as it is at that moment, which is never older
/// than what the core had in mind, and streamed while commands go on being applied. Raft accepts a newer one: the
/// follower acknowledges the index that it got.
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
    guard !isCapturing, receiving == nil, let term = raft.term(at: appliedIndex) else {
      return raft.reportSnapshot(message.to, succeeded: false)
    }
    var current = message
    let metadata = SnapshotMetadata(index: appliedIndex, term: term, configuration: configurationState)
    current.attachment = MessageAttachment(snapshot: Snapshot(metadata: metadata))
    isCapturing = true
    log.info("node \(configuration.id) sends its state at index \(appliedIndex) to node \(message.to)")
    transport.sendSnapshot(current, source: CaptureSource(beginCapture()))
  }

  func transportSnapshotSent(_ peer: NodeID, succeeded: Bool) {
    isCapturing = false
    if !succeeded { log.warning("node \(configuration.id) could not send its state to node \(peer)") }
    raft.reportSnapshot(peer, succeeded: succeeded)
    intake.post()
  }

  func transportSnapshotBegan(_ message: Message) -> (any SnapshotSink)? {
    guard let metadata = message.snapshot?.metadata, metadata.index > appliedIndex else { return nil }
    // One at a time, and never beside a capture: putting a state in place would pull the tables from under it.
    guard !isCapturing, receiving == nil, restore == nil else { return nil }
    let sink = RestoreSink(loop: self, message: message, restore: StateRestore(into: store))
    receiving = sink
    return sink
  }

  /// A whole state has arrived: the core decides whether it is wanted.
  fileprivate func received(_ message: Message, _ restore: StateRestore) {
    guard let index = message.snapshot?.metadata.index else { return }
    receiving = nil
    self.restore = (index, restore)
    step(message)
    // Not wanted: an older term, or overtaken by appends.
    if raft.firstIndex != index + 1 || appliedIndex >= index { self.restore = nil }
  }

  /// The core wants it: it takes the place of everything.
  func install(_ snapshot: Snapshot) {
    guard let restore, restore.index == snapshot.metadata.index else {
      preconditionFailure("the core installs the snapshot that was just stepped")
    }
    do throws(StateRestoreError) {
      try restore.restore.commit()
    } catch {
      preconditionFailure("a snapshot that ended cleanly can be installed: \(error)")
    }
    discard(restore.restore)
    self.restore = nil
    meetMembers(ofSnapshot: restore.restore.memberAddresses)
    retention.reset()
    appliedIndex = snapshot.metadata.index
    configurationState = snapshot.metadata.configuration
    configurationIndex = snapshot.metadata.index
    log.info("node \(configuration.id) took over the state at index \(appliedIndex)")
    notifyObservers(.snapshotInstalled(index: appliedIndex))
  }
}

extension NodeLoop {
  /// Lets go of the state that was replaced, elsewhere: a million records take tens of milliseconds to free.
  private func discard(_ old: StateRestore) {
    // Nobody else has it once this turn is over, which the delay waits for.
    nonisolated(unsafe) let old = old
    DispatchQueue.global(qos: .utility).asyncAfter(deadline: .now() + .milliseconds(20)) {
      unsafe withExtendedLifetime(old) {}
    }
  }
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

/// Builds an arriving state beside the one in use.
private final class RestoreSink: SnapshotSink {
  private weak var loop: NodeLoop?
  private let message: Message
  private let restore: StateRestore

  init(loop: NodeLoop, message: Message, restore: StateRestore) {
    self.loop = loop
    self.message = message
    self.restore = restore
  }

  func append(_ chunk: [UInt8]) throws { try restore.append(chunk) }
  func finish() throws { loop?.received(message, restore) }
}
