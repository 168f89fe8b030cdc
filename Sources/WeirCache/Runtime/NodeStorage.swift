import Dispatch
import Synchronization
import WeirCore
import WeirStorage

/// Where a node keeps its log.
public enum NodeStorage: Sendable, Hashable {
  /// In memory only: a node that ends has forgotten everything, and must not come back under its id.
  case memory
  /// In a write-ahead log and snapshots in a directory of its own.
  case files(directory: String, sync: SyncPolicy)
}

/// The durable side of a node: its write-ahead log on a queue of its own, its snapshots, and what of both is under way.
///
/// The core hands out what is to be stored as messages and goes on; the answers that depend on it are held here until the
/// log says that it is durable. So the leader's own fsync runs beside the replication, and while one runs, the next
/// batch gathers.
///
/// Confined to the node's queue, but for the completions of the log, which count up and wake that queue.
final class DurableStorage {
  /// What the log's queue tells the node's.
  private final class Progress: Sendable {
    let completed = Atomic<UInt64>(0)
    let failure = Mutex<StorageError?>(nil)
    let wake: @Sendable () -> Void

    init(wake: @escaping @Sendable () -> Void) { self.wake = wake }

    func note(_ result: Result<Void, StorageError>) {
      if case .failure(let error) = result { failure.withLock { $0 = $0 ?? error } }
      completed.wrappingAdd(1, ordering: .releasing)
      wake()
    }
  }

  let log: GroupCommitLog
  let snapshots: SnapshotStore
  private let progress: Progress
  private let snapshotQueue = DispatchQueue(label: "weir.snapshots", qos: .utility)
  /// The answers that wait for each write under way, oldest first.
  private var waiting: [[Message]] = []
  private var handled: UInt64 = 0
  private var vote: NodeID
  private var term: Term
  /// Bytes of entries since the last snapshot began.
  private(set) var bytesSinceSnapshot = 0

  init(log: GroupCommitLog, snapshots: SnapshotStore, hardState: HardState, wake: @escaping @Sendable () -> Void) {
    self.log = log
    self.snapshots = snapshots
    term = hardState.term
    vote = hardState.vote
    progress = Progress(wake: wake)
  }

  /// Why the log has ended, if it has: the node must end too.
  var failure: StorageError? { progress.failure.withLock { $0 } }

  // MARK: Writing

  /// Stores what a message to the append thread says. Its answers come from `finished`.
  /// - Returns: answers that wait for nothing.
  func store(_ message: Message) -> [Message] {
    let hardState =
      message.term == 0 && message.vote == 0 && message.commit == 0
      ? nil : HardState(term: message.term, vote: message.vote, commit: message.commit)
    let isPromise = hardState.map { $0.term != term || $0.vote != vote } ?? false
    if let hardState {
      term = hardState.term
      vote = hardState.vote
    }
    guard !message.entries.isEmpty || isPromise else {
      // A commit index alone may be lost: it is learned again. Not worth a sync.
      if let hardState { log.updateCommit(hardState.commit) }
      guard !waiting.isEmpty else { return message.responses }
      waiting[waiting.count - 1].append(contentsOf: message.responses)
      return []
    }
    bytesSinceSnapshot += message.entries.byteCount
    waiting.append(message.responses)
    let progress = progress
    log.submit(message.entries, hardState: hardState) { progress.note($0) }
    return []
  }

  /// The log continues behind a snapshot that was received and is durable.
  func reset(_ metadata: SnapshotMetadata, responses: [Message]) {
    waiting.append(responses)
    bytesSinceSnapshot = 0
    let progress = progress
    log.reset(anchorIndex: metadata.index, anchorTerm: metadata.term) { progress.note($0) }
  }

  /// The answers of writes that are durable by now, in order.
  func finished(_ body: ([Message]) -> Void) {
    let completed = progress.completed.load(ordering: .acquiring)
    while handled < completed, failure == nil {
      handled += 1
      body(waiting.removeFirst())
    }
  }

  // MARK: Snapshots

  /// Writes a captured state on another queue; `completion` is called there.
  func write(
    _ capture: StateCapture, _ metadata: SnapshotMetadata,
    _ completion: @escaping @Sendable (Result<Void, StorageError>) -> Void
  ) {
    bytesSinceSnapshot = 0
    // Handed over: nobody else uses the capture from here on.
    nonisolated(unsafe) let capture = capture
    let snapshots = snapshots
    snapshotQueue.async {
      do throws(StorageError) {
        unsafe try Self.write(capture, metadata, to: snapshots)
        completion(.success(()))
      } catch {
        completion(.failure(error))
      }
    }
  }

  static func write(
    _ capture: StateCapture, _ metadata: SnapshotMetadata, to snapshots: SnapshotStore
  ) throws(StorageError) {
    let writer = try snapshots.create(metadata)
    do throws(StorageError) {
      while let chunk = capture.nextChunk() { unsafe try writer.append(chunk.span.bytes) }
      _ = try writer.finish()
    } catch {
      writer.cancel()
      throw error
    }
  }

  /// Writes and syncs what is left, and closes. Not on the log's queue.
  func close() {
    snapshotQueue.sync {}
    try? log.closeAndWait()
  }
}

/// What a node starts from.
struct RecoveredNode {
  var storage: DurableStorage
  var recovered: RecoveredState
  var snapshot: SnapshotMetadata?
  /// Whether the directory was empty before: nothing was promised to anybody.
  var isNew = false
  /// Where the snapshot says that its members are.
  var memberAddresses: [NodeID: String] = [:]

  /// Opens a node's directory and brings its state machine to where the newest snapshot is.
  /// - Parameter start: what the node starts from if the directory is new; nil: from nothing.
  static func open(
    directory: String, sync: SyncPolicy, owner: NodeID, start: SnapshotMetadata?, store: KeyValueStore,
    wake: @escaping @Sendable () -> Void
  ) throws -> RecoveredNode {
    let fileSystem = RealFileSystem()
    try fileSystem.createDirectory(directory)
    let snapshots = try SnapshotStore.open(fileSystem: fileSystem, directory: directory + "/snapshots")
    var newest = try snapshots.newest()
    var isNew = false
    if newest == nil, try isEmpty(directory + "/log", fileSystem) {
      isNew = true
      // What the members of a new cluster start from, see `NodeLoop.bootstrap`. Whole before the log is made.
      if let start { newest = try snapshots.create(start).finish() }
    }
    var memberAddresses: [NodeID: String] = [:]
    if let newest {
      let restore = StateRestore(into: store)
      try snapshots.reader(newest).forEachChunk { chunk in
        try restore.append(unsafe chunk.withUnsafeBytes { unsafe [UInt8]($0) })
      }
      try restore.commit()
      memberAddresses = restore.memberAddresses
    }
    let (log, recovered) = try GroupCommitLog.open(
      fileSystem: fileSystem, directory: directory + "/log", options: LogOptions(owner: owner, sync: sync),
      snapshot: newest?.metadata, label: "weir.log.\(owner)")
    let storage = DurableStorage(log: log, snapshots: snapshots, hardState: recovered.hardState, wake: wake)
    return RecoveredNode(
      storage: storage, recovered: recovered, snapshot: newest?.metadata, isNew: isNew,
      memberAddresses: memberAddresses)
  }

  private static func isEmpty(_ directory: String, _ fileSystem: any FileSystem) throws(FileError) -> Bool {
    try fileSystem.createDirectory(directory)
    return try fileSystem.list(directory).isEmpty
  }
}
