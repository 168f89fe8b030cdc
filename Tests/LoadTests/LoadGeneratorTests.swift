import Foundation
import Synchronization
import Testing

@testable import Load

/// A register for each key behind a lock, answered on the calling thread: for tests of the generator's threads.
final class LocalTarget: Target {
  let name = "local"
  private let values = Mutex<[UInt64: ValueID]>([:])
  private let sessions = Atomic<Int>(0)
  private let refusesSession: Int?

  init(refusesSession: Int? = nil) {
    self.refusesSession = refusesSession
  }

  var openSessions: Int { sessions.load(ordering: .relaxed) }

  func makeSession(worker: Int, readMode: ReadMode) throws -> any TargetSession {
    if worker == refusesSession { throw TargetError("no session for worker \(worker)") }
    sessions.add(1, ordering: .relaxed)
    return Session(target: self)
  }

  func counters() -> TargetCounters { TargetCounters(peerMessages: 0, elections: 0) }
  func replicaHashes(deadlineNanoseconds: UInt64) -> [ReplicaHash] { [] }
  func shutdown() {}

  final class Session: TargetSession {
    private let target: LocalTarget

    init(target: LocalTarget) { self.target = target }

    func submit(_ batch: Span<Submission>, completions: inout [Completion]) {
      let clock = MonotonicClock()
      for index in batch.indices {
        let operation = batch[index].operation
        let read = target.values.withLock { values -> ValueID? in
          switch operation.kind {
          case .get: return values[operation.keyNumber]
          case .set: values[operation.keyNumber] = operation.value
          case .delete: values[operation.keyNumber] = nil
          }
          return nil
        }
        completions.append(
          Completion(
            token: batch[index].token, status: .ok, readValue: read, doneNanoseconds: clock.nanoseconds()))
      }
    }

    func poll(into completions: inout [Completion], until deadlineNanoseconds: UInt64) {
      let now = MonotonicClock().nanoseconds()
      if deadlineNanoseconds > now { usleep(UInt32(min(1000, (deadlineNanoseconds - now) / 1000))) }
    }

    func close() { target.sessions.subtract(1, ordering: .relaxed) }
  }
}

@Suite("Load generator")
struct LoadGeneratorTests {
  static func plan(
    workers: Int, loop: LoopMode, seconds: Double = 30, operationLimit: UInt64? = nil, readPercent: Int = 50
  ) -> RunPlan {
    RunPlan(
      name: "test", workload: Workload(readPercent: readPercent, keys: 200), readMode: .lease, loop: loop,
      workers: workers, warmUpNanoseconds: 0, durationNanoseconds: UInt64(seconds * 1e9),
      operationLimit: operationLimit, seed: 4, client: 1)
  }

  static let budget = HistoryBudget(selection: HistorySelection(seed: 2), operations: 1 << 20)

  @Test("Workers on threads of their own send everything, and what they saw is linearizable", arguments: [1, 2, 4])
  func threads(workers: Int) throws {
    let target = LocalTarget()
    let result = try LoadGenerator.run(
      Self.plan(workers: workers, loop: .closed(outstanding: 64), operationLimit: 40_001), on: target,
      history: Self.budget)
    #expect(result.sent == 40_001)
    #expect(result.completed == 40_001)
    #expect(result.operations == 40_001)
    #expect(result.history.count == 40_001)
    #expect(Set(result.history.map(\.client)).count == workers)
    #expect(LinearizabilityVerdict.isLinearizable(result.history))
    #expect(result.errors == 0 && !result.wasStopped)
    #expect(target.openSessions == 0)
    #expect(result.messagesPerOperation == 0)
  }

  @Test("An open loop sends exactly what was intended in its window")
  func open() throws {
    let result = try LoadGenerator.run(
      Self.plan(
        workers: 2, loop: .open(ratePerSecond: 20_000, arrival: .uniform, outstandingLimit: 100_000), seconds: 0.5),
      on: LocalTarget(), history: Self.budget)
    #expect(result.offered + result.unsent == 10_000)
    #expect(result.completed == result.sent)
    #expect(result.reads.lag.count + result.writes.lag.count == result.operations)
    // The response time is the lag and the service time, operation by operation and so in sum.
    let sums = result.reads.lag.sumNanoseconds + result.reads.service.sumNanoseconds
    #expect(result.reads.response.sumNanoseconds == sums)
  }

  @Test("A session that cannot be made ends the run before anything is sent, and leaves no thread waiting")
  func refusedSession() {
    let target = LocalTarget(refusesSession: 1)
    #expect(throws: TargetError.self) {
      try LoadGenerator.run(
        Self.plan(workers: 3, loop: .closed(outstanding: 8)), on: target, history: Self.budget)
    }
    #expect(target.openSessions == 0)
  }

  @Test("A wish to stop ends a long run, which keeps what it has and says that it was stopped")
  func stopping() throws {
    let stop = StopRequest()
    let target = LocalTarget()
    let seen = Atomic<UInt64>(0)
    let result = try LoadGenerator.run(
      Self.plan(workers: 2, loop: .closed(outstanding: 8), seconds: 3600), on: target, history: Self.budget,
      stop: stop
    ) { progress in
      seen.store(progress.completed, ordering: .relaxed)
      if progress.completed > 1000 { stop.stop() }
    }
    #expect(result.wasStopped)
    #expect(result.completed > 1000)
    #expect(seen.load(ordering: .relaxed) > 1000)
    #expect(result.windowSeconds < 3000)
    #expect(target.openSessions == 0)
  }

  @Test("The generator alone is measured, and costs something")
  func headroom() throws {
    let headroom = try GeneratorHeadroom.measure(workers: 1, seconds: 0.5, keys: 1000)
    #expect(headroom.opsPerSecond > 0)
    #expect(headroom.cpuNanosecondsPerOperation > 0)
  }

  @Test("What each worker may have in flight, and send, adds up to the whole", arguments: [1, 2, 3, 5])
  func division(workers: Int) {
    let plan = Self.plan(workers: workers, loop: .closed(outstanding: 17), operationLimit: 1001)
    #expect((0..<workers).reduce(0) { $0 + plan.outstanding(ofWorker: $1) } == 17)
    #expect((0..<workers).reduce(0) { $0 + plan.operationLimit(ofWorker: $1) } == 1001)
  }
}
