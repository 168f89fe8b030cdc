import CWeir
import Dispatch
import Synchronization
import WeirCore

/// The write-ahead log on a queue of its own, with group commit: everything that is submitted while a batch is being
/// made durable goes with the next one, by one write and one sync.
///
/// Submitting copies the entries into the batch that gathers, on the caller's thread, and never waits for the disk.
/// Completions are called in order of submission, on the log's queue or in `commitDeferred`; they only hand the news on
/// (to a mailbox).
public final class GroupCommitLog: Sendable {
  public typealias Completion = @Sendable (Result<Void, StorageError>) -> Void

  private struct Gathering {
    var waiting: [Completion] = []
    /// The queue has been asked to write what gathers, or somebody writes it in the queue's place.
    var isScheduled = false
    /// Something gathers that the queue has not been asked to write.
    var isDeferred = false
    var pace = CommitPace()
    var failure: StorageError?
    var counters = LogCounters()
    var spaceWarning: (@Sendable (FileError) -> Void)?
    var failureObserver: (@Sendable (StorageError) -> Void)?
  }

  /// A batch on its way, and who waits for it.
  private struct Taken {
    var staging: LogStaging?
    var waiting: [Completion]
  }

  public let options: LogOptions
  private let queue: DispatchQueue
  private let preparation: DispatchQueue
  /// Guarded by `gathering`.
  private let stager: LogStager
  private let gathering: Mutex<Gathering>
  /// Guarded by `turn`.
  private let worker: Worker
  /// Held by who writes: the queue, or who commits in its place.
  private let turn = Mutex(())

  /// What only who holds `turn` touches; that is why it may be referenced from everywhere.
  private final class Worker: @unchecked Sendable {
    var writer: LogWriter?
    /// A writer that has met a full disk. It writes no more, and keeps the directory locked until the log is closed.
    var retired: LogWriter?
    var isPreparing = false
    var isMarkScheduled = false
    var isDurableMarkScheduled = false
    /// Set once, before anything else runs; cancelling is allowed from any thread.
    var timer: (any DispatchSourceTimer)?

    init(writer: LogWriter) { self.writer = writer }
  }

  /// How long the log is idle before it makes its sync mark durable.
  private static var idleMarkDelay: DispatchTimeInterval { .seconds(1) }
  /// How long after a commit in the queue's place the sync mark is written.
  private static var markDelay: DispatchTimeInterval { .milliseconds(5) }
  /// What is larger is left to the queue, in bytes: it takes longer, and whoever has that much has more to do meanwhile.
  private static var maximumInlineBytes: Int { 16 << 10 }

  /// Puts an opened log on a queue. Nobody else uses `log` from here on.
  public convenience init(log: WriteAheadLog, label: String = "weir.log") {
    self.init(stager: log.stager, writer: log.writer, options: log.options, label: label)
  }

  private init(stager: LogStager, writer: LogWriter, options: LogOptions, label: String) {
    self.options = options
    self.stager = stager
    worker = Worker(writer: writer)
    gathering = Mutex(Gathering())
    queue = DispatchQueue(label: label)
    preparation = DispatchQueue(label: label + ".prepare", qos: .utility)
    if case .interval(let milliseconds) = options.sync {
      let timer = DispatchSource.makeTimerSource(queue: queue)
      timer.schedule(
        deadline: .now() + .milliseconds(milliseconds), repeating: .milliseconds(max(milliseconds, 1)),
        leeway: .milliseconds(1))
      worker.timer = timer
      timer.setEventHandler { [weak self] in self?.synchronizeNow() }
      timer.resume()
    }
  }

  deinit { worker.timer?.cancel() }

  /// Opens a log and puts it on a queue; `WriteAheadLog.open` says what that takes.
  public static func open(
    fileSystem: any FileSystem, directory: String, options: LogOptions = .init(), snapshot: SnapshotMetadata? = nil,
    feed: LogFeed? = nil, label: String = "weir.log"
  ) throws(StorageError) -> (log: GroupCommitLog, recovered: RecoveredState) {
    let (log, recovered) = try WriteAheadLog.open(
      fileSystem: fileSystem, directory: directory, options: options, snapshot: snapshot, feed: feed)
    return (GroupCommitLog(log: log, label: label), recovered)
  }

  /// Entries that replace the log from their first index on, and a hard state, durable together. `completion` is called
  /// once both are; under `SyncPolicy.interval` and `.off`, once both are written.
  ///
  /// After a failure every completion gets the error, this one included, and nothing is written any more. With neither
  /// entries nor a hard state nothing is written either: it is complete once everything submitted before it is.
  /// - Parameter isDeferred: the caller will say with `commitDeferred` when it is to be written.
  public func submit(
    _ entries: EntryBatch, hardState: HardState? = nil, isDeferred: Bool = false, completion: @escaping Completion
  ) {
    stage(completion, isDeferred: isDeferred) { stager in
      if !entries.isEmpty || hardState != nil { stager.append(entries, hardState: hardState) }
    }
  }

  /// A commit index, written with the next batch.
  public func updateCommit(_ commit: LogIndex) {
    gathering.withLock { _ in stager.updateCommit(commit) }
  }

  /// The entries up to and including `index` are not needed any more: a snapshot that holds them is durable.
  public func compact(through index: LogIndex, term: Term) {
    stage(nil) { $0.compact(through: index, term: term) }
  }

  /// The log is empty and continues behind a received snapshot, which is durable.
  public func reset(anchorIndex: LogIndex, anchorTerm: Term, completion: @escaping Completion) {
    stage(completion) { $0.reset(anchorIndex: anchorIndex, anchorTerm: anchorTerm) }
  }

  /// Writes what was submitted deferred, or has the queue write it. Where the log is idle, the batch is small and the disk
  /// has been fast, it is written here and now, on the caller's thread: handing a batch to another thread and the news
  /// back takes as long as half of the write itself, when the threads have to be woken. A slow disk must not hold up
  /// whoever calls this, so after one slow commit the queue does the next ones (`CommitPace`).
  /// - Parameter isInlineAllowed: false to have the queue write it in any case.
  /// - Returns: whether something was written here, whose completions have been called.
  @discardableResult
  public func commitDeferred(isInlineAllowed: Bool = true) -> Bool {
    let isHere: Bool? = gathering.withLock { state in
      guard state.isDeferred else { return nil }
      state.isDeferred = false
      guard !state.isScheduled, state.failure == nil else { return nil }
      state.isScheduled = true
      return isInlineAllowed && stager.stagedBytes <= Self.maximumInlineBytes && state.pace.isFast
    }
    guard let isHere else { return false }
    let isDone = isHere && turn.withLockIfAvailable { _ in commitHere() } ?? false
    let isMore = gathering.withLock { state in
      if isDone, state.failure == nil, !stager.hasStaged, state.waiting.isEmpty { state.isScheduled = false }
      return state.isScheduled
    }
    if isMore { queue.async { [self] in writeOne() } }
    return isDone
  }

  /// Bytes submitted and not being written yet: what a node watches to slow its clients down.
  public var waitingBytes: Int { gathering.withLock { _ in stager.stagedBytes } }

  /// What the log has done so far.
  public var counters: LogCounters { gathering.withLock { $0.counters } }

  /// The error that ended the log, if one did. `StorageError.diskFull` says that the log found no space to go on: nothing
  /// is taken any more, what it holds is whole, and every completion has told the truth.
  public var failure: StorageError? { gathering.withLock { $0.failure } }

  /// Called once, on the log's queue, when space for the next segment could not be prepared: the log goes on until the
  /// current segment is full. The node should stop taking writes now.
  public func onSpaceWarning(_ body: @escaping @Sendable (FileError) -> Void) {
    gathering.withLock { $0.spaceWarning = body }
  }

  /// Called when the log ends by itself, before any completion hears of it: it may fail while nobody waits for anything.
  /// Called where completions are.
  public func onFailure(_ body: @escaping @Sendable (StorageError) -> Void) {
    gathering.withLock { $0.failureObserver = body }
  }

  /// Writes and syncs what was submitted, then closes the log. `completion` is called last.
  public func close(completion: @escaping Completion) {
    worker.timer?.cancel()
    queue.async { [self] in completion(finish()) }
  }

  /// As `close(completion:)`, waiting for it. Not to be called on the log's queue.
  public func closeAndWait() throws(StorageError) {
    worker.timer?.cancel()
    switch queue.sync(execute: { finish() }) {
    case .success: return
    case .failure(let error): throw error
    }
  }

  // MARK: The caller's side

  private func stage(_ completion: Completion?, isDeferred: Bool = false, _ body: (LogStager) -> Void) {
    let failure: StorageError? = gathering.withLock { state in
      if let failure = state.failure { return failure }
      body(stager)
      if let completion { state.waiting.append(completion) }
      if isDeferred {
        state.isDeferred = true
      } else if !state.isScheduled {
        state.isScheduled = true
        queue.async { [self] in writeOne() }
      }
      return nil
    }
    if let failure, let completion { queue.async { completion(.failure(failure)) } }
  }

  // MARK: Writing, by who holds `turn`

  /// Takes what has gathered; nil if nothing has.
  private func take() -> Taken? {
    gathering.withLock { state in
      guard stager.hasStaged || !state.waiting.isEmpty else {
        state.isScheduled = false
        return nil
      }
      defer { state.waiting = [] }
      return Taken(staging: stager.hasStaged ? stager.take() : nil, waiting: state.waiting)
    }
  }

  /// Writes a batch, makes it durable if the policy says so, and tells who waits.
  private func commit(_ taken: Taken, _ writer: LogWriter) {
    if let staging = taken.staging {
      let begin = cweir_monotonic_nanoseconds()
      do throws(StorageError) {
        try writer.write(staging)
        if options.sync == .always || writer.hasUnneededSegments { try writer.synchronize() }
      } catch {
        return fail(error, taken.waiting)
      }
      let duration = cweir_monotonic_nanoseconds() - begin
      gathering.withLock { state in
        stager.giveBack(staging)
        state.counters = writer.counters
        state.pace.note(nanoseconds: duration)
      }
    }
    for completion in taken.waiting { completion(.success(())) }
    prepareSpareIfWanted(writer)
    removeUnneeded(writer)
  }

  /// Writes what has gathered in the queue's place, unless that takes a new segment.
  private func commitHere() -> Bool {
    guard let writer = worker.writer,
      gathering.withLock({ _ in writer.hasRoom(for: stager.paddedBytes) }),
      let taken = take()
    else { return false }
    commit(taken, writer)
    scheduleMark()
    return true
  }

  /// Writes what has gathered as one batch. It is queued again for the next one instead of looping, so that the timer
  /// and a prepared segment get their turn under load.
  private func writeOne() {
    turn.withLock { _ in
      guard let writer = worker.writer else { return }
      guard let taken = take() else { return becomeIdle(writer) }
      commit(taken, writer)
      queue.async { [self] in writeOne() }
    }
  }

  /// Nothing waits: the time to note how far the log is durable.
  private func becomeIdle(_ writer: LogWriter) {
    guard writer.isSynchronized, !writer.isMarked else { return }
    do throws(StorageError) {
      try writer.writeMark(durably: false)
    } catch {
      return fail(error, [])
    }
    guard !worker.isDurableMarkScheduled else { return }
    worker.isDurableMarkScheduled = true
    queue.asyncAfter(deadline: .now() + Self.idleMarkDelay) { [weak self] in self?.makeMarkDurable() }
  }

  /// The mark costs a write, which nobody who commits in the queue's place has to wait for.
  private func scheduleMark() {
    guard !worker.isMarkScheduled else { return }
    worker.isMarkScheduled = true
    queue.asyncAfter(deadline: .now() + Self.markDelay) { [weak self] in
      guard let self else { return }
      turn.withLock { _ in
        worker.isMarkScheduled = false
        if let writer = worker.writer { becomeIdle(writer) }
      }
    }
  }

  private func makeMarkDurable() {
    turn.withLock { _ in
      worker.isDurableMarkScheduled = false
      guard let writer = worker.writer else { return }
      do throws(StorageError) {
        if writer.isSynchronized { try writer.writeMark(durably: true) }
      } catch {
        fail(error, [])
      }
    }
  }

  private func synchronizeNow() {
    turn.withLock { _ in
      guard let writer = worker.writer else { return }
      do throws(StorageError) {
        try writer.synchronize()
        if !writer.isMarked { try writer.writeMark(durably: false) }
      } catch {
        return fail(error, [])
      }
      gathering.withLock { $0.counters = writer.counters }
    }
  }

  /// The log is at its end: nothing is written any more, and nobody is told of success.
  private func fail(_ error: StorageError, _ waiting: [Completion]) {
    var error = error
    if case .diskFull = error, let writer = worker.writer {
      // Nothing of the batch was written. What was before is whole, and is what a restart goes on from.
      do throws(StorageError) {
        try writer.synchronize()
        worker.retired = writer
      } catch let failure {
        error = failure
      }
    }
    worker.writer = nil
    let (rest, observer) = gathering.withLock { state in
      state.failure = error
      defer {
        state.waiting = []
        state.failureObserver = nil
      }
      return (state.waiting, state.failureObserver)
    }
    if error != .closed { observer?(error) }
    for completion in waiting + rest { completion(.failure(error)) }
  }

  private func finish() -> Result<Void, StorageError> {
    while turn.withLock({ _ in worker.writer != nil }), gathering.withLock({ stager.hasStaged || !$0.waiting.isEmpty })
    {
      writeOne()
    }
    // What goes on beside the writing is over before the directory is somebody else's.
    preparation.sync {}
    return turn.withLock { _ in
      worker.retired = nil
      guard let writer = worker.writer else { return .failure(failure ?? .closed) }
      writer.noteRemovalEnded()
      do throws(StorageError) {
        try writer.synchronize()
        try writer.removeDropped()
        try writer.writeMark(durably: true)
      } catch {
        fail(error, [])
        return .failure(error)
      }
      gathering.withLock { $0.counters = writer.counters }
      fail(.closed, [])
      return .success(())
    }
  }

  // MARK: Beside the writing

  private func prepareSpareIfWanted(_ writer: LogWriter) {
    guard writer.wantsSpare, !worker.isPreparing else { return }
    worker.isPreparing = true
    let preparer = writer.preparer
    let serial = writer.takeSerial()
    let capacity = writer.segmentCapacityBytes
    preparation.async { [weak self] in
      let result: Result<PreparedSegment, FileError>
      do throws(FileError) {
        result = .success(try preparer.prepare(serial: serial, capacityBytes: capacity))
      } catch {
        result = .failure(error)
      }
      guard let self else { return }
      queue.async { self.turn.withLock { _ in self.take(result) } }
    }
  }

  private func take(_ prepared: Result<PreparedSegment, FileError>) {
    switch prepared {
    case .success(let segment):
      worker.isPreparing = false
      worker.writer?.addSpare(segment)
    case .failure(let error) where !error.isDiskFull:
      fail(.fileFailure(error), [])
    case .failure(let error):
      // Stays "preparing": the next segment is tried once more when it is needed, not over and over before.
      let warn = gathering.withLock { state in
        defer { state.spaceWarning = nil }
        return state.spaceWarning
      }
      warn?(error)
    }
  }

  /// Lets go of the files of segments that are not needed any more, one after the other: making that durable, and taking a
  /// large file apart, may last as long as a hundred commits.
  private func removeUnneeded(_ writer: LogWriter) {
    guard let removal = writer.takeRemoval() else { return }
    preparation.async { [weak self] in
      let result: Result<[PreparedSegment], FileError>
      do throws(FileError) {
        result = .success(try removal.run())
      } catch {
        result = .failure(error)
      }
      guard let self else { return }
      queue.async { self.turn.withLock { _ in self.note(removal, result) } }
    }
  }

  private func note(_ removal: SegmentRemoval, _ result: Result<[PreparedSegment], FileError>) {
    guard let writer = worker.writer else { return }
    switch result {
    case .success(let kept): writer.noteRemoved(removal, kept: kept)
    case .failure(let error): return fail(.fileFailure(error), [])
    }
    removeUnneeded(writer)
  }
}

/// Whether the disk has lately been so fast that waiting for it holds nobody up.
struct CommitPace {
  /// A commit that takes longer counts as slow, in nanoseconds: a fiftieth of a node's tick.
  static var slowNanoseconds: UInt64 { 1_000_000 }
  /// How many commits in a row must have been fast.
  static var commits: Int { 8 }

  private var left = CommitPace.commits

  var isFast: Bool { left == 0 }

  mutating func note(nanoseconds: UInt64) {
    if nanoseconds > Self.slowNanoseconds { left = Self.commits } else { left = max(left - 1, 0) }
  }
}
