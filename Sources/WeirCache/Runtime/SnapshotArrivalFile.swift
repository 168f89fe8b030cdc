import Dispatch
import WeirCore
import WeirStorage
import WeirTransport

/// The file that a state is written to as it arrives from the leader, and from which it is put in place.
///
/// A node with files never has two states in memory: what arrives goes to the disk, and the state in use is let go of before
/// the new one is read from there. The order makes every moment one that the node can start from again.
///
/// 1. Arriving: a temporary file, which opening the store removes. The state in use and the log are as they were.
/// 2. Sealed: whole, durable, and still without a name. Only now does the core hear of the snapshot, and decides whether it
///    is wanted. If not, the file goes. One that was merely overtaken could stay: it holds committed state, with which every
///    later leader's entries agree, so recovery may begin the log anew behind it where the log does not reach it. But the
///    core also refuses what cannot be (an impossible index or term, members that make no configuration, or not this
///    node's), and recovery starts from the newest snapshot that there is, without asking anybody; and a name would take
///    the place of a retained snapshot whose log is still here.
/// 3. Wanted: the file is read back and checked as a whole, then it gets its name. The core's log begins behind it by now,
///    and nothing that comes behind it is stored before the log on the disk knows (`DurableStorage.install`); so a crash
///    finds a log that ends before the snapshot, or contradicts it, which recovery begins anew behind it.
/// 4. Put in place: the state in use is let go of and the new one read. A crash finds the snapshot and starts from it.
///
/// Sendable: used on the snapshots' queue only, in the order of what was sent there.
final class SnapshotArrivalFile: @unchecked Sendable {
  private let snapshots: SnapshotStore
  private let metadata: SnapshotMetadata
  private var writer: SnapshotWriter?
  private var records = StateRecords()
  private var failure: SnapshotFailure?

  init(_ snapshots: SnapshotStore, _ metadata: SnapshotMetadata) {
    self.snapshots = snapshots
    self.metadata = metadata
  }

  /// Writes the next bytes. What is no captured state is refused here, as long as there is another one.
  func append(_ chunk: [UInt8]) throws(SnapshotFailure) {
    try perform { () throws(SnapshotFailure) in
      do throws(StateRestoreError) { try records.read(chunk) { _, _, _ in } } catch { throw .malformed(error) }
      try SnapshotFailure.of { () throws(StorageError) in unsafe try opened().append(chunk.span.bytes) }
    }
  }

  /// That was all: makes it whole and durable.
  func seal() throws(SnapshotFailure) {
    try perform { () throws(SnapshotFailure) in
      do throws(StateRestoreError) { try records.finish() } catch { throw .malformed(error) }
      try SnapshotFailure.of { () throws(StorageError) in try opened().seal() }
    }
  }

  private func opened() throws(StorageError) -> SnapshotWriter {
    if let writer { return writer }
    let made = try snapshots.create(metadata)
    writer = made
    return made
  }

  /// After the first failure there are others only, and no file.
  private func perform(_ body: () throws(SnapshotFailure) -> Void) throws(SnapshotFailure) {
    if let failure { throw failure }
    do throws(SnapshotFailure) {
      try body()
    } catch {
      failure = error
      cancel()
      throw error
    }
  }

  /// Gives it up, unless it has its name.
  func cancel() {
    writer?.cancel()
    writer = nil
  }

  /// Checks the sealed file and gives it its name, then puts its state in place of what `store` holds. From when the old
  /// state goes until this has returned, look-ups find none; if it throws in between, they never will.
  /// - Parameter isGoingOn: asked between two chunks; the node may be ending.
  /// - Returns: where the state says that its members are.
  func install(into store: KeyValueStore, isGoingOn: () -> Bool) throws(StorageError) -> [NodeID: String] {
    guard let writer else { preconditionFailure("what is installed was sealed") }
    try writer.verify()
    let stored = try writer.publish(keepsSpare: true)
    self.writer = nil
    store.beginLoading()
    let memberAddresses = try load(stored, into: store, isGoingOn)
    store.endLoading()
    return memberAddresses
  }

  private func load(
    _ stored: SnapshotStore.Stored, into store: KeyValueStore, _ isGoingOn: () -> Bool
  ) throws(StorageError) -> [NodeID: String] {
    let restore = StateRestore(into: store)
    do {
      try snapshots.reader(stored).forEachChunk { chunk in
        guard isGoingOn() else { throw StorageError.closed }
        try restore.append(unsafe chunk.withUnsafeBytes { unsafe [UInt8]($0) })
      }
      try restore.finish()
      return restore.memberAddresses
    } catch let error as StorageError {
      throw error
    } catch let error as FileError {
      throw .fileFailure(error)
    } catch {
      // It was a state when it arrived.
      throw .corrupted(.init(path: stored.path, offsetBytes: 0, reason: "it is no state any more: \(error)"))
    }
  }
}

/// Has an arriving state written to its file, on the snapshots' queue, and answers for each chunk once it is.
final class SnapshotFileSink: SnapshotSink {
  private weak var loop: NodeLoop?
  private let message: Message
  private let queue: DispatchQueue
  private let intake: Intake
  /// Nil once it was handed on, or given up.
  private var file: SnapshotArrivalFile?
  private var completions: [Completion] = []
  private var hasFailed = false

  init(_ loop: NodeLoop, _ message: Message, _ file: SnapshotArrivalFile, queue: DispatchQueue) {
    self.loop = loop
    self.message = message
    self.file = file
    self.queue = queue
    intake = loop.intake
  }

  // The file system may take its time to take a large file apart.
  deinit { abandon() }

  func append(_ chunk: [UInt8], completion: @escaping Completion) {
    perform(completion) { file throws(SnapshotFailure) in try file.append(chunk) }
  }

  func finish(completion: @escaping Completion) {
    perform(
      { [weak self] result in
        if case .success = result { self?.handOn() }
        completion(result)
      }) { file throws(SnapshotFailure) in try file.seal() }
  }

  private func perform(
    _ completion: @escaping Completion,
    _ work: @escaping @Sendable (SnapshotArrivalFile) throws(SnapshotFailure) -> Void
  ) {
    guard let file else { return completion(.failure(SnapshotFailure.storage(.closed))) }
    completions.append(completion)
    let intake = intake
    queue.async {
      let result = Result { () throws(SnapshotFailure) in try work(file) }
      // While something is under way this sink is what the loop receives with: its completions keep the transport's arrival,
      // and that keeps it.
      _ = intake.perform { ($0.receiving as? SnapshotFileSink)?.answer(result) }
    }
  }

  /// The oldest that is under way is done.
  private func answer(_ result: Result<Void, SnapshotFailure>) {
    guard !completions.isEmpty else { return }
    let completion = completions.removeFirst()
    if case .failure(let failure) = result, !hasFailed {
      hasFailed = true
      loop?.arrivalFailed(failure, of: message.snapshot?.metadata.index ?? 0)
    }
    completion(result.mapError { $0 as any Error })
  }

  private func handOn() {
    guard let file else { return }
    self.file = nil
    loop?.received(message, .file(file))
  }

  /// Gives it up; what is under way is not answered.
  func abandon() {
    completions.removeAll()
    guard let file else { return }
    self.file = nil
    queue.async { file.cancel() }
  }
}
