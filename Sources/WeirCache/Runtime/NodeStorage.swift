import CWeir
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
    let isClosing = Atomic<Bool>(false)
    /// Set once; read on the path of every proposal.
    let isShortOfSpace = Atomic<Bool>(false)
    /// The log has found no space to go on. Set behind the last success that `completed` counts.
    let isFull = Atomic<Bool>(false)
    let shortage = Mutex<FileError?>(nil)
    /// The node's queue is committing, and looks at what has completed when it is through: it need not be woken.
    let isAttended = Atomic<Bool>(false)
    let wake: @Sendable () -> Void

    init(wake: @escaping @Sendable () -> Void) { self.wake = wake }

    func noteShortage(_ error: FileError) {
      shortage.withLock { $0 = $0 ?? error }
      isShortOfSpace.store(true, ordering: .releasing)
      wake()
    }

    /// The log has ended. That it found no space is no failure.
    func noteEnd(_ error: StorageError) {
      guard case .diskFull(let shortage) = error else { return noteFailure(error) }
      isFull.store(true, ordering: .releasing)
      noteShortage(shortage)
    }

    func noteFailure(_ error: StorageError) {
      failure.withLock { $0 = $0 ?? error }
      wake()
    }

    func note(_ result: Result<Void, StorageError>) {
      if case .failure(let error) = result { return noteEnd(error) }
      // Sequentially consistent, as in `commit`: either this sees that nobody attends, or the node's queue sees the count.
      completed.wrappingAdd(1, ordering: .sequentiallyConsistent)
      if !isAttended.load(ordering: .sequentiallyConsistent) { wake() }
    }
  }

  let log: GroupCommitLog
  let snapshots: SnapshotStore
  private let progress: Progress
  let snapshotQueue = DispatchQueue(label: "weir.snapshots", qos: .utility)
  /// The answers that wait for each write under way, oldest first.
  private var waiting: [(answers: [Message], lastIndex: LogIndex)] = []
  /// The last entry of the newest write that is durable.
  private(set) var durableIndex: LogIndex = 0
  private var handled: UInt64 = 0
  /// Something was submitted that the log has not been told to write.
  private(set) var hasDeferred = false
  /// Entries among it.
  private(set) var deferredEntries = 0
  private var vote: NodeID
  private var term: Term
  /// When the next snapshot is due.
  private(set) var schedule: SnapshotSchedule
  /// A received snapshot that is being put in place; what is to be stored behind it waits in `held`.
  private var installing: SnapshotMetadata?
  private var held: [Message] = []

  init(
    log: GroupCommitLog, snapshots: SnapshotStore, hardState: HardState, schedule: SnapshotSchedule,
    wake: @escaping @Sendable () -> Void
  ) {
    self.log = log
    self.snapshots = snapshots
    self.schedule = schedule
    term = hardState.term
    vote = hardState.vote
    let progress = Progress(wake: wake)
    self.progress = progress
    log.onSpaceWarning { progress.noteShortage($0) }
    log.onFailure { progress.noteEnd($0) }
  }

  /// Why the log has failed, if it has: the node must end too.
  var failure: StorageError? { progress.failure.withLock { $0 } }

  /// Why there is no space for the log to go on, if there is none: the node must take nothing more.
  var spaceWarning: FileError? {
    progress.isShortOfSpace.load(ordering: .acquiring) ? progress.shortage.withLock { $0 } : nil
  }

  /// The log has found no space to go on, and everything that it made durable before has been handed out by `finished`:
  /// what is not durable by now never will be in this life.
  var isFull: Bool {
    progress.isFull.load(ordering: .acquiring) && progress.completed.load(ordering: .acquiring) == handled
  }

  // MARK: Writing

  /// Writes what was stored in this turn, or has it written: see `GroupCommitLog.commitDeferred`.
  /// - Returns: whether `finished` has something now, which nobody else will say.
  func commit(isInlineAllowed: Bool) -> Bool {
    guard hasDeferred else { return false }
    hasDeferred = false
    deferredEntries = 0
    progress.isAttended.store(true, ordering: .sequentiallyConsistent)
    log.commitDeferred(isInlineAllowed: isInlineAllowed)
    progress.isAttended.store(false, ordering: .sequentiallyConsistent)
    return progress.completed.load(ordering: .sequentiallyConsistent) != handled
  }

  /// Stores what a message to the append thread says. Its answers come from `finished`.
  /// - Returns: answers that wait for nothing.
  func store(_ message: Message) -> [Message] {
    guard installing == nil else {
      held.append(message)
      return []
    }
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
      waiting[waiting.count - 1].answers.append(contentsOf: message.responses)
      return []
    }
    schedule.stored(bytes: message.entries.byteCount, entries: message.entries.count)
    waiting.append((message.responses, message.entries.isEmpty ? 0 : message.entries.lastIndex))
    let progress = progress
    hasDeferred = true
    deferredEntries += message.entries.count
    log.submit(message.entries, hardState: hardState, isDeferred: true) { progress.note($0) }
    return []
  }

  /// Puts a received snapshot in place on another queue, durably; `completion` is called there with where its members are,
  /// and has `finishInstall` called on the node's. Until then everything else that is to be stored waits: the log cannot hold
  /// what comes behind a snapshot before it knows of it. A crash in between finds the snapshot, or not yet, and a log that
  /// ends before it, which recovery knows.
  /// - Parameter message: asks for it; what else it wants stored is stored behind the snapshot.
  func install(
    _ file: SnapshotArrivalFile, _ metadata: SnapshotMetadata, for message: Message, into store: KeyValueStore,
    _ completion: @escaping @Sendable (Result<[NodeID: String], StorageError>) -> Void
  ) {
    precondition(installing == nil, "one snapshot is installed at a time")
    installing = metadata
    held.append(message)
    schedule.begin(inTurn: false)
    let progress = progress
    snapshotQueue.async {
      completion(
        Result { () throws(StorageError) in
          try file.install(into: store) { !progress.isClosing.load(ordering: .relaxed) }
        })
    }
  }

  /// The received snapshot is durable and in place: the log continues behind it, with what waited.
  /// - Parameter body: is given answers that wait for nothing.
  func finishInstall(_ body: ([Message]) -> Void) {
    guard let metadata = installing else { return }
    installing = nil
    waiting.append(([], metadata.index))
    let progress = progress
    log.reset(anchorIndex: metadata.index, anchorTerm: metadata.term) { progress.note($0) }
    let messages = held
    held.removeAll()
    for message in messages { body(store(message)) }
  }

  /// The answers of writes that are durable by now, in order.
  func finished(_ body: ([Message]) -> Void) {
    let completed = progress.completed.load(ordering: .acquiring)
    while handled < completed, failure == nil {
      handled += 1
      let (answers, lastIndex) = waiting.removeFirst()
      if lastIndex > 0 { durableIndex = lastIndex }
      body(answers)
    }
  }

  // MARK: Snapshots

  /// A snapshot of this node's own begins, because it was due or because somebody asked for it.
  func beginSnapshot(isDue: Bool) { schedule.begin(inTurn: isDue) }

  /// Writes a captured state on another queue, no faster than `bytesPerSecond`; `completion` is called there, with the
  /// oldest snapshot that is retained now.
  func write(
    _ capture: StateCapture, _ metadata: SnapshotMetadata, bytesPerSecond: Int,
    _ completion: @escaping @Sendable (Result<SnapshotMetadata, SnapshotFailure>) -> Void
  ) {
    // Handed over: nobody else uses the capture from here on.
    nonisolated(unsafe) let capture = capture
    let snapshots = snapshots
    let progress = progress
    snapshotQueue.async {
      do throws(SnapshotFailure) {
        completion(
          .success(unsafe try Self.write(capture, metadata, to: snapshots, bytesPerSecond: bytesPerSecond, progress)))
      } catch {
        completion(.failure(error))
      }
    }
  }

  /// How much of the state is put into bytes at a time: about 50 µs of work. A core is not taken away from the node's own
  /// threads for longer than that, where larger pieces showed in the writes' tail.
  private static let pieceBytes = 32 << 10

  private static func write(
    _ capture: StateCapture, _ metadata: SnapshotMetadata, to snapshots: SnapshotStore, bytesPerSecond: Int,
    _ progress: Progress
  ) throws(SnapshotFailure) -> SnapshotMetadata {
    let writer = try SnapshotFailure.of { () throws(StorageError) in try snapshots.create(metadata) }
    var pace = Pace(bytesPerSecond: bytesPerSecond, nowNanoseconds: cweir_monotonic_nanoseconds())
    do throws(SnapshotFailure) {
      while let chunk = try SnapshotFailure.of(capture, nextBytes: pieceBytes) {
        // Nobody waits for the rest when the node ends.
        if progress.isClosing.load(ordering: .relaxed) { throw .storage(.closed) }
        try SnapshotFailure.of { () throws(StorageError) in unsafe try writer.append(chunk.span.bytes) }
        let now = cweir_monotonic_nanoseconds()
        let pause = pace.pauseNanoseconds(after: chunk.count, nowNanoseconds: now)
        // Where much is overwritten meanwhile, memory is what is short.
        if !capture.isPressed { cweir_sleep_until_nanoseconds(now + pause) }
      }
      return try SnapshotFailure.of { () throws(StorageError) in
        _ = try writer.finish(keepsSpare: true)
        return try snapshots.oldest()?.metadata ?? metadata
      }
    } catch {
      writer.cancel()
      throw error
    }
  }

  /// Writes and syncs what is left, and closes. Not on the log's queue.
  func close() {
    progress.isClosing.store(true, ordering: .relaxed)
    snapshotQueue.sync {}
    try? log.closeAndWait()
  }
}

/// Why a snapshot was not written.
enum SnapshotFailure: Error, CustomStringConvertible {
  case storage(StorageError)
  /// The state was overwritten faster than it could be written, see `StateCaptureError.outgrown`.
  case outgrown
  /// What a leader sent is no state.
  case malformed(StateRestoreError)

  var description: String {
    switch self {
    case .storage(.diskFull(let error)): "the disk is full (\(error))"
    case .storage(let error): error.description
    case .outgrown: "it was overwritten faster than the disk took it"
    case .malformed(let error): "it is no state: \(error)"
    }
  }

  /// What the node has to end for; nil where nothing that it has is in doubt, and another attempt may succeed.
  var fatalError: StorageError? {
    switch self {
    case .storage(.diskFull), .outgrown, .malformed: nil
    case .storage(let error): error
    }
  }

  static func of<Value>(_ body: () throws(StorageError) -> Value) throws(SnapshotFailure) -> Value {
    do throws(StorageError) {
      return try body()
    } catch {
      throw .storage(error)
    }
  }

  static func of(_ capture: StateCapture, nextBytes: Int) throws(SnapshotFailure) -> [UInt8]? {
    do throws(StateCaptureError) {
      return try capture.nextChunk(targetBytes: nextBytes)
    } catch {
      throw .outgrown
    }
  }
}

/// Spreads a stretch of work over time: how long to rest after each piece so that no more than so many bytes are done in
/// a second. Pure: the clock comes in.
struct Pace {
  private let bytesPerSecond: Int
  private let startNanoseconds: UInt64
  private var doneBytes = 0

  /// The longest rest at a time: a clock that jumps must not stop a snapshot.
  static let longestPauseNanoseconds: UInt64 = 100_000_000

  init(bytesPerSecond: Int, nowNanoseconds: UInt64) {
    self.bytesPerSecond = max(bytesPerSecond, 1)
    startNanoseconds = nowNanoseconds
  }

  mutating func pauseNanoseconds(after byteCount: Int, nowNanoseconds: UInt64) -> UInt64 {
    doneBytes += byteCount
    guard bytesPerSecond < .max else { return 0 }
    let due = Double(doneBytes) / Double(bytesPerSecond) * 1e9
    let elapsed = Double(nowNanoseconds &- startNanoseconds)
    return due > elapsed ? min(UInt64(due - elapsed), Self.longestPauseNanoseconds) : 0
  }
}

/// What a node starts from.
struct RecoveredNode {
  var storage: DurableStorage
  var recovered: RecoveredState
  /// Where the state machine is, as if a snapshot had been taken there; nil: it is empty, and so is the log.
  var snapshot: SnapshotMetadata?
  /// The last change of the configuration in it, as far as that is known.
  var configurationIndex: LogIndex = 0
  /// Whether the directory was empty before: nothing was promised to anybody.
  var isNew = false
  /// Where the state says that its members are.
  var memberAddresses: [NodeID: String] = [:]

  /// Opens a node's directory and brings its state machine to where the newest snapshot is.
  /// - Parameter start: what the node starts from if the directory is new; nil: from nothing.
  static func open(
    _ configuration: NodeConfiguration, directory: String, sync: SyncPolicy, start: SnapshotMetadata?,
    store: KeyValueStore,
    wake: @escaping @Sendable () -> Void
  ) throws -> RecoveredNode {
    let fileSystem = configuration.fileSystem
    try fileSystem.createDirectory(directory)
    let snapshots = try SnapshotStore.open(
      fileSystem: fileSystem, directory: directory + "/snapshots", retained: configuration.retainedSnapshots)
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
      try restore.finish()
      memberAddresses = restore.memberAddresses
    }
    var options = configuration.logOptions
    options.owner = configuration.id
    options.sync = sync
    // A node without a snapshot holds nothing that could be committed, but for one that joins and got its log from the
    // first entry on.
    let origin = newest?.metadata ?? SnapshotMetadata()
    let recovery = LogRecovery(
      store: store, snapshot: origin, memberAddresses: memberAddresses, log: configuration.log)
    let feed = LogFeed(behind: origin, retainedBytes: configuration.trailingLogBytes) { recovery.apply($0) }
    let (log, recovered) = try GroupCommitLog.open(
      fileSystem: fileSystem, directory: directory + "/log", options: options, snapshot: newest?.metadata, feed: feed,
      label: "weir.log.\(configuration.id)")
    if let cut = recovered.report.cut {
      configuration.log.warning(
        "node \(configuration.id) cut a torn tail: \(cut.path) ends at byte \(cut.offsetBytes) (\(cut.reason)). What was behind it was never durable, and nobody was told of it"
      )
    }
    // The phase in which this node writes its snapshots goes on where it was.
    let schedule = SnapshotSchedule(
      afterBytes: configuration.snapshotAfterBytes, afterEntries: configuration.snapshotAfterEntries,
      bytes: recovery.appliedBytes, entries: Int(feed.takenIndex - origin.index), isFirst: origin.index <= 1)
    let storage = DurableStorage(
      log: log, snapshots: snapshots, hardState: recovered.hardState, schedule: schedule, wake: wake)
    let isEmpty = newest == nil && feed.takenIndex == 0
    return RecoveredNode(
      storage: storage, recovered: recovered,
      snapshot: isEmpty
        ? nil
        : SnapshotMetadata(index: feed.takenIndex, term: feed.takenTerm, configuration: recovery.configuration),
      configurationIndex: recovery.configurationIndex, isNew: isNew, memberAddresses: recovery.memberAddresses)
  }

  private static func isEmpty(_ directory: String, _ fileSystem: any FileSystem) throws(FileError) -> Bool {
    try fileSystem.createDirectory(directory)
    return try fileSystem.list(directory).isEmpty
  }
}
