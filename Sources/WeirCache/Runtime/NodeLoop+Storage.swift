import Raft
import Synchronization
import WeirCore
import WeirStorage

/// What a node with a write-ahead log does beside the protocol.
extension NodeLoop {
  /// Stores what the core asks for; its answers are stepped and sent once it is durable.
  func storeDurably(_ message: Message) {
    guard let durable else { return }
    if let snapshot = message.snapshot {
      install(snapshot)
      persistInstalled(snapshot.metadata, durable)
      durable.reset(snapshot.metadata, responses: message.responses)
    } else {
      deliver(durable.store(message))
    }
  }

  /// Steps and sends the answers of everything that has become durable.
  func finishWrites() { durable?.finished { deliver($0) } }

  private func deliver(_ responses: [Message]) {
    for response in responses {
      if response.to == configuration.id { step(response) } else { transport.send(response) }
    }
  }

  /// A state that came from the leader is made durable before the log is told to continue behind it. The queue waits for
  /// that: it happens once in a while to a follower that is far behind and has nothing better to do.
  private func persistInstalled(_ metadata: SnapshotMetadata, _ durable: DurableStorage) {
    do throws(StorageError) {
      try DurableStorage.write(beginCapture(), metadata, to: durable.snapshots)
    } catch {
      fail(error)
    }
  }

  /// Writes the state as a snapshot once the log has grown by enough, so that it can be cut.
  func writeSnapshotIfNeeded() {
    guard let durable, durable.bytesSinceSnapshot > configuration.snapshotAfterBytes, !isCapturing, receiving == nil,
      restore == nil, let term = raft.term(at: appliedIndex)
    else { return }
    isCapturing = true
    let metadata = SnapshotMetadata(index: appliedIndex, term: term, configuration: configurationState)
    let intake = intake
    durable.write(beginCapture(), metadata) { result in
      _ = intake.perform { $0.snapshotWritten(metadata, result) }
    }
  }

  private func snapshotWritten(_ metadata: SnapshotMetadata, _ result: Result<Void, StorageError>) {
    isCapturing = false
    switch result {
    case .success:
      log.info("node \(configuration.id) wrote its state at index \(metadata.index)")
      durable?.log.compact(through: metadata.index, term: metadata.term)
    case .failure(let error):
      // The log goes on growing, and the next attempt comes with its next stretch.
      log.error("node \(configuration.id) could not write its state: \(error)")
    }
  }

  /// The storage has failed. What it had promised may be lost, so the node answers nothing any more and ends.
  func fail(_ error: StorageError) {
    guard !isStopping else { return }
    log.critical("node \(configuration.id) ends: its storage failed: \(error)")
    published.failure.withLock { $0 = "\(error)" }
    shutDown()
  }
}
