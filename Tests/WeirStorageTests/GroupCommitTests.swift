import Dispatch
import Foundation
import Synchronization
import Testing
import WeirCore

@testable import WeirStorage

@Suite("Group commit")
struct GroupCommitTests {
  /// What completions report, from the log's queue.
  private final class Outcomes: Sendable {
    private let state = Mutex<[(number: Int, error: StorageError?)]>([])
    private let signal = DispatchSemaphore(value: 0)

    func completion(_ number: Int) -> GroupCommitLog.Completion {
      { result in
        self.state.withLock { state in
          switch result {
          case .success: state.append((number, nil))
          case .failure(let error): state.append((number, error))
          }
        }
        self.signal.signal()
      }
    }

    func wait(for count: Int) {
      for _ in 0..<count { #expect(signal.wait(timeout: .now() + .seconds(60)) == .success) }
    }

    var all: [(number: Int, error: StorageError?)] { state.withLock { $0 } }
  }

  @Test("submissions complete in order, many with one sync, and are there after a power cut")
  func inOrder() throws {
    let disk = SimulatedFileSystem()
    let (log, _) = try GroupCommitLog.open(fileSystem: disk, directory: "/log", options: .small())
    let outcomes = Outcomes()
    for number in 1...2000 {
      log.submit(makeEntries(from: UInt64(number), count: 1, term: 1), completion: outcomes.completion(number))
    }
    outcomes.wait(for: 2000)
    #expect(outcomes.all.map(\.number) == Array(1...2000))
    #expect(outcomes.all.allSatisfy { $0.error == nil })
    let counters = log.counters
    #expect(counters.entries == 2000)
    #expect(counters.syncs == counters.writes)
    #expect(counters.syncs < 2000)
    disk.crash(survivalPerMille: 0)
    #expect(try openLog(disk, .small()).entries.count == 2000)
  }

  @Test("submitters on several threads: each batch is whole")
  func manyThreads() throws {
    let disk = SimulatedFileSystem()
    let (log, _) = try GroupCommitLog.open(fileSystem: disk, directory: "/log", options: .small())
    let outcomes = Outcomes()
    let next = Mutex<UInt64>(1)
    DispatchQueue.concurrentPerform(iterations: 4) { _ in
      for _ in 0..<200 {
        next.withLock { first in
          log.submit(makeEntries(from: first, count: 3, term: 1), completion: outcomes.completion(Int(first)))
          first += 3
        }
      }
    }
    outcomes.wait(for: 800)
    #expect(outcomes.all.map(\.number) == (0..<800).map { $0 * 3 + 1 })
    disk.crash(survivalPerMille: 0)
    #expect(try openLog(disk, .small()).entries.map(\.index) == Array(1...2400))
  }

  @Test("with nothing to write a submission completes behind what was submitted before it, and writes nothing")
  func empty() throws {
    let disk = SimulatedFileSystem()
    let (log, _) = try GroupCommitLog.open(fileSystem: disk, directory: "/log", options: .small())
    let outcomes = Outcomes()
    log.submit(EntryBatch(), completion: outcomes.completion(0))
    outcomes.wait(for: 1)
    #expect(log.counters.batches == 0)
    for number in 1...200 {
      let entries = number % 2 == 0 ? EntryBatch() : makeEntries(from: UInt64(number + 1) / 2, count: 1, term: 1)
      log.submit(entries, completion: outcomes.completion(number))
    }
    outcomes.wait(for: 200)
    #expect(outcomes.all.map(\.number) == Array(0...200))
    #expect(outcomes.all.allSatisfy { $0.error == nil })
    log.submit(EntryBatch(), completion: outcomes.completion(201))
    try log.closeAndWait()
    outcomes.wait(for: 1)
    #expect(outcomes.all.last?.error == nil)
    #expect(try openLog(disk, .small()).entries.count == 100)
    log.submit(EntryBatch(), completion: outcomes.completion(202))
    outcomes.wait(for: 1)
    #expect(outcomes.all.last?.error == .closed)
  }

  @Test("after a failed write or sync nobody is told of success any more")
  func failureIsFinal() throws {
    let disk = SimulatedFileSystem()
    let (log, _) = try GroupCommitLog.open(fileSystem: disk, directory: "/log", options: .small())
    let outcomes = Outcomes()
    log.submit(makeEntries(from: 1, count: 1, term: 1), completion: outcomes.completion(1))
    outcomes.wait(for: 1)
    disk.faults.failedSyncsPerMillion = 1_000_000
    log.submit(makeEntries(from: 2, count: 1, term: 1), completion: outcomes.completion(2))
    outcomes.wait(for: 1)
    disk.faults = .init()
    for number in 3...10 {
      log.submit(makeEntries(from: UInt64(number), count: 1, term: 1), completion: outcomes.completion(number))
    }
    outcomes.wait(for: 8)
    #expect(outcomes.all.map { $0.error == nil } == [true] + Array(repeating: false, count: 9))
    let failure = try #require(log.failure)
    #expect(outcomes.all.dropFirst().allSatisfy { $0.error == failure })
    #expect(throws: failure) { try log.closeAndWait() }
  }

  @Test("interval: acknowledged once written, synced by and by", .timeLimit(.minutes(1)))
  func interval() async throws {
    let disk = SimulatedFileSystem()
    let options = LogOptions.small(sync: .interval(milliseconds: 5))
    let (log, _) = try GroupCommitLog.open(fileSystem: disk, directory: "/log", options: options)
    let outcomes = Outcomes()
    for number in 1...50 {
      log.submit(makeEntries(from: UInt64(number), count: 1, term: 1), completion: outcomes.completion(number))
    }
    outcomes.wait(for: 50)
    while log.counters.syncs == 0 || disk.pendingWrites.contains(where: { $0.path.hasSuffix(".wal") }) {
      try await Task.sleep(for: .milliseconds(2))
    }
    disk.crash(survivalPerMille: 0)
    #expect(try openLog(disk, options).entries.count == 50)
  }

  @Test("off: never synced, lost with the power, but not with the process")
  func off() throws {
    let disk = SimulatedFileSystem()
    let options = LogOptions.small(sync: .off)
    let outcomes = Outcomes()
    let (log, _) = try GroupCommitLog.open(fileSystem: disk, directory: "/log", options: options)
    // Each in a batch of its own, on a machine that is busy, these take 13 segments: below the number at which the
    // log syncs in order not to keep too many files open.
    for number in 1...200 {
      log.submit(
        makeEntries(from: UInt64(number), count: 1, term: 1, payloadBytes: 200), completion: outcomes.completion(number)
      )
    }
    outcomes.wait(for: 200)
    #expect(log.counters.syncs == 0)
    let killed = disk.copy()
    disk.crash(survivalPerMille: 0)
    #expect(try openLog(killed, options).entries.count == 200)
    #expect(try openLog(disk, options).entries.isEmpty)
  }

  @Test("a reset and a compaction on the queue")
  func resetAndCompact() throws {
    let disk = SimulatedFileSystem()
    let (log, _) = try GroupCommitLog.open(fileSystem: disk, directory: "/log", options: .small())
    let outcomes = Outcomes()
    log.submit(makeEntries(from: 1, count: 5, term: 1), completion: outcomes.completion(1))
    log.reset(anchorIndex: 100, anchorTerm: 3, completion: outcomes.completion(2))
    log.submit(makeEntries(from: 101, count: 5, term: 3), completion: outcomes.completion(3))
    log.compact(through: 102, term: 3)
    log.updateCommit(104)
    log.submit(EntryBatch(), hardState: HardState(term: 4, vote: 2, commit: 104), completion: outcomes.completion(4))
    outcomes.wait(for: 4)
    try log.closeAndWait()
    let recovered = try openLog(disk, .small(), snapshot: SnapshotMetadata(index: 102, term: 3))
    #expect(recovered.entries.map(\.index) == [103, 104, 105])
    #expect(recovered.hardState == HardState(term: 4, vote: 2, commit: 104))
  }

  @Test("space runs out: a warning while there is room in the segment, then refusals; nothing acknowledged is lost")
  func spaceWarning() throws {
    let disk = SimulatedFileSystem()
    let options = LogOptions.small(segmentBytes: 32 << 10)
    let (log, _) = try GroupCommitLog.open(fileSystem: disk, directory: "/log", options: options)
    let warned = Mutex<FileError?>(nil)
    let warning = DispatchSemaphore(value: 0)
    log.onSpaceWarning { error in
      warned.withLock { $0 = error }
      warning.signal()
    }
    disk.faults.capacityBytes = 40 << 10
    let outcomes = Outcomes()
    var number = 0
    while outcomes.all.last?.error == nil, number < 1000 {
      number += 1
      log.submit(
        makeEntries(from: UInt64(number), count: 1, term: 1, payloadBytes: 300), completion: outcomes.completion(number)
      )
      outcomes.wait(for: 1)
    }
    let acknowledged = outcomes.all.filter { $0.error == nil }.count
    #expect(acknowledged > 30)
    // Preparing runs beside writing, so the news may come after the segment is full.
    #expect(warning.wait(timeout: .now() + .seconds(60)) == .success)
    #expect(warned.withLock { $0?.isDiskFull } == true)
    guard case .diskFull = log.failure else {
      Issue.record("\(String(describing: log.failure))")
      return
    }
    disk.crash(survivalPerMille: 0)
    #expect(try openLog(disk, options).entries.count == acknowledged)
  }

  @Test("no space for the segment that a batch needs: the batch is refused whole, and what was before is made durable")
  func diskFullAtTheWriter() throws {
    let disk = SimulatedFileSystem()
    // Nobody prepares a segment here: the one that is to be made ahead, whose number is drawn before the writer's, is held
    // up until it is too late.
    let isHeldUp = DispatchSemaphore(value: 0)
    let intercepted = InterceptedFileSystem(disk) { (operation, path) throws(FileError) in
      guard operation == .create, path.contains("/spare-"), !path.hasSuffix("/spare-0.tmp") else { return }
      if path.hasSuffix("/spare-2.tmp") { isHeldUp.wait() }
      throw FileError(operation: .create, path: path, code: 28)
    }
    let options = LogOptions.small(segmentBytes: 8 << 10, sync: .interval(milliseconds: 3_600_000))
    let (log, _) = try GroupCommitLog.open(fileSystem: intercepted, directory: "/log", options: options)
    let outcomes = Outcomes()
    var number = 0
    while outcomes.all.last?.error == nil, number < 100 {
      number += 1
      log.submit(
        makeEntries(from: UInt64(number), count: 1, term: 1, payloadBytes: 300), completion: outcomes.completion(number)
      )
      outcomes.wait(for: 1)
    }
    guard case .diskFull = outcomes.all.last?.error, case .diskFull = log.failure else {
      isHeldUp.signal()
      Issue.record("\(String(describing: log.failure))")
      return
    }
    // Nobody else may use the directory while the node that owns it is still there.
    #expect(throws: StorageError.locked(path: "/log")) { try openLog(disk, options) }
    // The policy would have synced an hour later.
    #expect(!disk.pendingWrites.contains { $0.path.hasSuffix(".wal") })
    isHeldUp.signal()
    #expect(throws: StorageError.self) { try log.closeAndWait() }
    disk.crash(survivalPerMille: 0)
    #expect(try openLog(disk, options).entries.count == number - 1)
  }

  /// Which thread wrote a batch.
  private final class WriterWatch: Sendable {
    private let state = Mutex(
      (threads: [UInt](), slowMicroseconds: UInt32(0), slowThread: UInt?.none, error: FileError?.none))

    var threads: [UInt] { state.withLock { $0.threads } }
    /// Each write takes so long from now on, or only those of one thread.
    func slowDown(microseconds: UInt32, onlyOn thread: UInt? = nil) {
      state.withLock { ($0.slowMicroseconds, $0.slowThread) = (microseconds, thread) }
    }
    func fail(_ error: FileError) { state.withLock { $0.error = error } }

    func intercept(_ operation: FileError.Operation, _ path: String) throws(FileError) {
      guard operation == .write, !path.hasSuffix("synced") else { return }
      let (pause, error) = state.withLock { state in
        state.threads.append(UInt(pthread_self()))
        let isSlow = state.slowThread.map { $0 == UInt(pthread_self()) } ?? true
        return (isSlow ? state.slowMicroseconds : 0, state.error)
      }
      if pause > 0 { usleep(pause) }
      if let error { throw error }
    }
  }

  /// A log that has made enough fast commits to trust its disk.
  private func openWatched(_ watch: WriterWatch, _ disk: SimulatedFileSystem, _ sync: SyncPolicy) throws -> (
    GroupCommitLog, Outcomes
  ) {
    let intercepted = InterceptedFileSystem(disk) { (operation, path) throws(FileError) in
      try watch.intercept(operation, path)
    }
    let (log, _) = try GroupCommitLog.open(
      fileSystem: intercepted, directory: "/log", options: .small(segmentBytes: 256 << 10, sync: sync))
    return (log, Outcomes())
  }

  /// Submits one entry at a time, deferred, until one of them was committed here.
  /// - Returns: how many it took.
  private func commitUntilHere(_ log: GroupCommitLog, _ outcomes: Outcomes, from first: Int) throws -> Int {
    for count in 1...2000 {
      let number = first + count - 1
      log.submit(
        makeEntries(from: UInt64(number), count: 1, term: 1), isDeferred: true, completion: outcomes.completion(number))
      let isHere = log.commitDeferred()
      outcomes.wait(for: 1)
      if isHere { return count }
    }
    throw NeverTrusted()
  }

  private struct NeverTrusted: Error {}

  @Test(
    "deferred: written where it is committed once the disk has been fast, one batch after the other",
    arguments: [SyncPolicy.always, .interval(milliseconds: 1), .off])
  func committedHere(sync: SyncPolicy) throws {
    let watch = WriterWatch()
    let disk = SimulatedFileSystem()
    let (log, outcomes) = try openWatched(watch, disk, sync)
    // On a busy machine any number of commits may be slow; none is trusted before eight were fast.
    let count = try commitUntilHere(log, outcomes, from: 1)
    #expect(count > CommitPace.commits && count < 2000)
    #expect(watch.threads.last == UInt(pthread_self()))
    #expect(outcomes.all.map(\.number) == Array(1...count))
    #expect(outcomes.all.allSatisfy { $0.error == nil })
    // Nothing happens without being asked for, nothing twice.
    #expect(!log.commitDeferred())
    log.submit(makeEntries(from: UInt64(count + 1), count: 1, term: 1), completion: outcomes.completion(count + 1))
    outcomes.wait(for: 1)
    #expect(watch.threads.last != UInt(pthread_self()), "what is not deferred is the queue's")
    if sync == .always { disk.crash(survivalPerMille: 0) } else { try log.closeAndWait() }
    #expect(try openLog(disk, .small(segmentBytes: 256 << 10)).entries.count == count + 1)
  }

  @Test("deferred: what is large, and what comes behind a slow commit, is left to the queue")
  func committedElsewhere() throws {
    let watch = WriterWatch()
    let disk = SimulatedFileSystem()
    let (log, outcomes) = try openWatched(watch, disk, .always)
    var next = try commitUntilHere(log, outcomes, from: 1) + 1
    log.submit(
      makeEntries(from: UInt64(next), count: 1, term: 1, payloadBytes: 20_000), isDeferred: true,
      completion: outcomes.completion(next))
    #expect(!log.commitDeferred())
    outcomes.wait(for: 1)
    next += 1
    // At first only here: on a busy machine the large one may have been slow by itself, and the disk has to be trusted
    // once more before it can lose that.
    watch.slowDown(microseconds: 3000, onlyOn: UInt(pthread_self()))
    next += try commitUntilHere(log, outcomes, from: next)
    watch.slowDown(microseconds: 3000)
    // The one that was slow was the last that was trusted.
    for number in next..<next + 20 {
      log.submit(
        makeEntries(from: UInt64(number), count: 1, term: 1), isDeferred: true, completion: outcomes.completion(number))
      #expect(!log.commitDeferred())
      outcomes.wait(for: 1)
      #expect(watch.threads.last != UInt(pthread_self()))
    }
    watch.slowDown(microseconds: 0)
    #expect(try commitUntilHere(log, outcomes, from: next + 20) > CommitPace.commits)
    #expect(outcomes.all.allSatisfy { $0.error == nil })
    try log.closeAndWait()
  }

  @Test("deferred: a write that fails where it is committed ends the log, and nobody is told of success any more")
  func failedHere() throws {
    let watch = WriterWatch()
    let disk = SimulatedFileSystem()
    let (log, outcomes) = try openWatched(watch, disk, .always)
    let count = try commitUntilHere(log, outcomes, from: 1)
    let failure = FileError(operation: .write, path: "", code: 5)
    watch.fail(failure)
    for number in count + 1...count + 3 {
      log.submit(
        makeEntries(from: UInt64(number), count: 1, term: 1), isDeferred: true, completion: outcomes.completion(number))
      log.commitDeferred()
      outcomes.wait(for: 1)
    }
    #expect(outcomes.all.suffix(3).allSatisfy { $0.error == .fileFailure(failure) })
    #expect(log.failure == .fileFailure(failure))
    #expect(watch.threads.last == UInt(pthread_self()))
    disk.crash(survivalPerMille: 0)
    #expect(try openLog(disk, .small(segmentBytes: 256 << 10)).entries.count == count)
  }

  @Test("deferred and not, from several threads at once: each completes once, in the order of its thread")
  func deferredUnderLoad() throws {
    let disk = SimulatedFileSystem()
    let (log, _) = try GroupCommitLog.open(
      fileSystem: disk, directory: "/log", options: .small(segmentBytes: 64 << 10))
    let outcomes = Outcomes()
    let turn = Mutex(UInt64(0))
    DispatchQueue.concurrentPerform(iterations: 4) { thread in
      for round in 0..<300 {
        // Entries have to come in the order of their indexes.
        turn.withLock { last in
          last += 1
          log.submit(
            makeEntries(from: last, count: 1, term: 1), isDeferred: thread > 1,
            completion: outcomes.completion(Int(last))
          )
          if round % 50 == 49 { log.compact(through: last, term: 1) }
        }
        if thread > 1 { log.commitDeferred() }
      }
    }
    outcomes.wait(for: 1200)
    #expect(outcomes.all.map(\.number).sorted() == Array(1...1200))
    #expect(outcomes.all.allSatisfy { $0.error == nil })
    try log.closeAndWait()
    disk.crash(survivalPerMille: 0)
    #expect(try reopen(disk, .small(segmentBytes: 64 << 10)).log.lastIndex == 1200)
  }

  @Test("segments are prepared ahead and used again, under load", .timeLimit(.minutes(2)))
  func preparedSegments() throws {
    let disk = SimulatedFileSystem()
    let options = LogOptions.small(segmentBytes: 16 << 10)
    let (log, _) = try GroupCommitLog.open(fileSystem: disk, directory: "/log", options: options)
    let outcomes = Outcomes()
    for number in 1...3000 {
      log.submit(
        makeEntries(from: UInt64(number), count: 1, term: 1, payloadBytes: 400), completion: outcomes.completion(number)
      )
      if number % 50 == 0 {
        outcomes.wait(for: 50)
        log.compact(through: UInt64(number - 20), term: 1)
      }
    }
    try log.closeAndWait()
    #expect(log.counters.segments > 20)
    #expect(log.counters.recycledSegments > 10)
    #expect(try disk.list("/log").filter { $0.hasSuffix(".wal") }.count < 8)
    let recovered = try openLog(disk, options, snapshot: SnapshotMetadata(index: 2980, term: 1))
    #expect(recovered.entries.map(\.index) == Array(2981...3000))
  }
}
