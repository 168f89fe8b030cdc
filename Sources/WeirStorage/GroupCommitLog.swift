import Dispatch
import Synchronization
import WeirCore

/// The write-ahead log on a queue of its own, with group commit: everything that is submitted while a batch is being
/// made durable goes with the next one, by one write and one sync.
///
/// Submitting copies the entries into the batch that gathers, on the caller's thread, and never waits for the disk.
/// Completions are called on the log's queue, in order of submission; they only hand the news on (to a mailbox).
public final class GroupCommitLog: Sendable {
  public typealias Completion = @Sendable (Result<Void, StorageError>) -> Void

  private struct Gathering {
    var waiting: [Completion] = []
    var isScheduled = false
    var failure: StorageError?
    var counters = LogCounters()
    var spaceWarning: (@Sendable (FileError) -> Void)?
    var failureObserver: (@Sendable (StorageError) -> Void)?
  }

  public let options: LogOptions
  private let queue: DispatchQueue
  private let preparation: DispatchQueue
  /// Guarded by `gathering`.
  private let stager: LogStager
  private let gathering: Mutex<Gathering>
  /// Used on `queue` only.
  private let worker: Worker

  /// What only the log's queue touches; that is why it may be referenced from everywhere.
  private final class Worker: @unchecked Sendable {
    var writer: LogWriter?
    var isPreparing = false
    var isMarkScheduled = false
    /// Set once, before anything else runs; cancelling is allowed from any thread.
    var timer: (any DispatchSourceTimer)?

    init(writer: LogWriter) { self.writer = writer }
  }

  /// How long the log is idle before it makes its sync mark durable.
  private static var idleMarkDelay: DispatchTimeInterval { .seconds(1) }

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
  public func submit(_ entries: EntryBatch, hardState: HardState? = nil, completion: @escaping Completion) {
    stage(completion) { stager in
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

  /// Bytes submitted and not being written yet: what a node watches to slow its clients down.
  public var waitingBytes: Int { gathering.withLock { _ in stager.stagedBytes } }

  /// What the log has done so far.
  public var counters: LogCounters { gathering.withLock { $0.counters } }

  /// The error that ended the log, if one did.
  public var failure: StorageError? { gathering.withLock { $0.failure } }

  /// Called once, on the log's queue, when space for the next segment could not be prepared: the log goes on until the
  /// current segment is full. The node should stop taking writes now.
  public func onSpaceWarning(_ body: @escaping @Sendable (FileError) -> Void) {
    gathering.withLock { $0.spaceWarning = body }
  }

  /// Called on the log's queue when the log ends by itself, before any completion hears of it: it may fail while nobody
  /// waits for anything.
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

  private func stage(_ completion: Completion?, _ body: (LogStager) -> Void) {
    let failure: StorageError? = gathering.withLock { state in
      if let failure = state.failure { return failure }
      body(stager)
      if let completion { state.waiting.append(completion) }
      if !state.isScheduled {
        state.isScheduled = true
        queue.async { [self] in writeOne() }
      }
      return nil
    }
    if let failure, let completion { queue.async { completion(.failure(failure)) } }
  }

  // MARK: The queue's side

  /// Writes what has gathered as one batch. It is queued again for the next one instead of looping, so that the timer
  /// and a prepared segment get their turn under load.
  private func writeOne() {
    guard let writer = worker.writer else { return }
    let taken: (staging: LogStaging?, waiting: [Completion])? = gathering.withLock { state in
      guard stager.hasStaged || !state.waiting.isEmpty else {
        state.isScheduled = false
        return nil
      }
      let waiting = state.waiting
      state.waiting = []
      return (stager.hasStaged ? stager.take() : nil, waiting)
    }
    guard let taken else { return becomeIdle(writer) }
    if let staging = taken.staging {
      do throws(StorageError) {
        try writer.write(staging)
        if options.sync == .always || writer.hasUnneededSegments { try writer.synchronize() }
      } catch {
        return fail(error, taken.waiting)
      }
      gathering.withLock { state in
        stager.giveBack(staging)
        state.counters = writer.counters
      }
    }
    for completion in taken.waiting { completion(.success(())) }
    prepareSpareIfWanted(writer)
    removeUnneeded(writer)
    queue.async { [self] in writeOne() }
  }

  /// Nothing waits: the time to note how far the log is durable.
  private func becomeIdle(_ writer: LogWriter) {
    guard writer.isSynchronized, !writer.isMarked else { return }
    do throws(StorageError) {
      try writer.writeMark(durably: false)
    } catch {
      return fail(error, [])
    }
    guard !worker.isMarkScheduled else { return }
    worker.isMarkScheduled = true
    queue.asyncAfter(deadline: .now() + Self.idleMarkDelay) { [weak self] in self?.makeMarkDurable() }
  }

  private func makeMarkDurable() {
    worker.isMarkScheduled = false
    guard let writer = worker.writer else { return }
    do throws(StorageError) {
      if writer.isSynchronized { try writer.writeMark(durably: true) }
    } catch {
      fail(error, [])
    }
  }

  private func synchronizeNow() {
    guard let writer = worker.writer else { return }
    do throws(StorageError) {
      try writer.synchronize()
      if !writer.isMarked { try writer.writeMark(durably: false) }
    } catch {
      return fail(error, [])
    }
    gathering.withLock { $0.counters = writer.counters }
  }

  /// The log is at its end: nothing is written any more, and nobody is told of success.
  private func fail(_ error: StorageError, _ waiting: [Completion]) {
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
    while worker.writer != nil, gathering.withLock({ stager.hasStaged || !$0.waiting.isEmpty }) { writeOne() }
    // What goes on beside the writing is over before the directory is somebody else's.
    preparation.sync {}
    guard let writer = worker.writer else { return .failure(failure ?? .closed) }
    writer.noteRemoved()
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
      queue.async { self.take(result) }
    }
  }

  /// Removes the files of segments that were let go, one after the other and beside the writing: taking a large file
  /// apart, and making that durable, may last as long as a hundred commits.
  private func removeUnneeded(_ writer: LogWriter) {
    guard let removal = writer.takeRemoval() else { return }
    preparation.async { [weak self] in
      let result: Result<Void, FileError>
      do throws(FileError) {
        result = .success(try removal.run())
      } catch {
        result = .failure(error)
      }
      guard let self else { return }
      queue.async { self.noteRemoval(result) }
    }
  }

  private func noteRemoval(_ result: Result<Void, FileError>) {
    guard let writer = worker.writer else { return }
    writer.noteRemoved()
    if case .failure(let error) = result { return fail(StorageError(error), []) }
    removeUnneeded(writer)
  }

  private func take(_ prepared: Result<PreparedSegment, FileError>) {
    switch prepared {
    case .success(let segment):
      worker.isPreparing = false
      worker.writer?.spare = segment
    case .failure(let error) where !error.isDiskFull:
      fail(StorageError(error), [])
    case .failure(let error):
      // Stays "preparing": the next segment is tried once more when it is needed, not over and over before.
      let warn = gathering.withLock { state in
        defer { state.spaceWarning = nil }
        return state.spaceWarning
      }
      warn?(error)
    }
  }
}
