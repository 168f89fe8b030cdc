import Dispatch
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
    #expect(try disk.list("/log").filter { $0.hasSuffix(".wal") }.count < 8)
    let recovered = try openLog(disk, options, snapshot: SnapshotMetadata(index: 2980, term: 1))
    #expect(recovered.entries.map(\.index) == Array(2981...3000))
  }
}
