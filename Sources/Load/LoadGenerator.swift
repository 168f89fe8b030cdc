import CWeir
import Foundation
import Synchronization

/// CLOCK_MONOTONIC.
struct MonotonicClock: LoadClock {
  @inline(__always)
  func nanoseconds() -> UInt64 { cweir_monotonic_nanoseconds() }
}

/// A wish to stop that may be uttered on any thread.
public final class StopRequest: Sendable {
  private let flag = Atomic<Bool>(false)

  public init() {}

  public func stop() { flag.store(true, ordering: .relaxed) }
  public var isStopped: Bool { flag.load(ordering: .relaxed) }
}

/// How far a run is; reported about ten times a second.
public struct RunProgress: Sendable {
  public var name: String
  public var elapsedSeconds: Double
  public var totalSeconds: Double
  public var completed: UInt64
  public var errors: UInt64
}

/// How much history a run keeps.
public struct HistoryBudget: Sendable {
  public var selection: HistorySelection
  /// Operations in all, over the run's workers.
  public var operations: Int

  public init(selection: HistorySelection, operations: Int) {
    self.selection = selection
    self.operations = operations
  }
}

/// Runs plans: starts the workers, each a thread of its own, and merges what they bring home.
public enum LoadGenerator {
  /// - Returns: when the run is over and every worker's session is closed.
  /// - Throws: what a session throws when it is made; nothing has been sent then.
  public static func run(
    _ plan: RunPlan, on target: any Target, history: HistoryBudget, stop: StopRequest = StopRequest(),
    progress: ((RunProgress) -> Void)? = nil
  ) throws -> RunResult {
    let stream = OperationStream(plan.workload, seed: plan.seed, client: plan.client)
    let crew = Crew(plan: plan, stream: stream, target: target, history: history)
    defer { crew.end() }
    try crew.waitUntilReady()
    let start = cweir_monotonic_nanoseconds() + 2_000_000
    crew.go(startNanoseconds: start)
    var result = RunResult(plan: plan)
    result.startNanoseconds = start
    observe(crew, start: start, stop: stop, progress: progress, into: &result)
    let workers = crew.join()
    for worker in workers { result.merge(worker) }
    result.finish(workers)
    result.wasStopped = stop.isStopped
    return result
  }

  /// Sits beside the workers: reads CPU time and the target's counters at both ends of the measured window, reports
  /// progress, and passes on a wish to stop.
  private static func observe(
    _ crew: Crew, start: UInt64, stop: StopRequest, progress: ((RunProgress) -> Void)?, into result: inout RunResult
  ) {
    let plan = result.plan
    let windowStart = start + plan.warmUpNanoseconds
    let windowEnd = windowStart + plan.durationNanoseconds
    crew.wait(until: windowStart) { stop.isStopped }
    let countersAtStart = crew.target.counters()
    let cpuAtStart = cweir_process_cpu_nanoseconds()
    while cweir_monotonic_nanoseconds() < windowEnd, !crew.isFinished, !stop.isStopped {
      crew.wait(until: min(windowEnd, cweir_monotonic_nanoseconds() + 100_000_000)) { stop.isStopped }
      guard let progress else { continue }
      let elapsed = Double(cweir_monotonic_nanoseconds()) - Double(start)
      progress(
        RunProgress(
          name: plan.name, elapsedSeconds: elapsed / 1e9, totalSeconds: Double(windowEnd - start) / 1e9,
          completed: crew.completed, errors: crew.errors))
    }
    result.processCPUNanoseconds = cweir_process_cpu_nanoseconds() - cpuAtStart
    result.counters = crew.target.counters().since(countersAtStart)
    result.processCPUNanoseconds += result.counters.otherProcessCPUNanoseconds ?? 0
    if stop.isStopped { crew.stop() }
    // A stop during the drain must get through too.
    while !crew.isFinished {
      crew.wait(until: cweir_monotonic_nanoseconds() + 100_000_000) { stop.isStopped }
      if stop.isStopped { crew.stop() }
    }
  }
}

/// The threads of one run.
private final class Crew: Sendable {
  let target: any Target
  private let plan: RunPlan
  private let stream: OperationStream
  private let history: HistoryBudget
  private let signals: [WorkerSignals]
  private let state: Mutex<State>
  private let condition = NSCondition()

  private struct State {
    var ready = 0
    var start: UInt64?
    var isCancelled = false
    var results: [(worker: Int, result: WorkerResult)] = []
    var ended = 0
    var error: (any Error)?
  }

  init(plan: RunPlan, stream: OperationStream, target: any Target, history: HistoryBudget) {
    self.plan = plan
    self.stream = stream
    self.target = target
    self.history = history
    signals = (0..<plan.workers).map { _ in WorkerSignals() }
    state = Mutex(State())
    for worker in 0..<plan.workers {
      let thread = Thread { self.work(worker) }
      thread.name = "load-\(worker)"
      thread.start()
    }
  }

  var isFinished: Bool { state.withLock { $0.ended == plan.workers } }
  var completed: UInt64 { signals.reduce(0) { $0 + $1.completed.load(ordering: .relaxed) } }
  var errors: UInt64 { signals.reduce(0) { $0 + $1.errors.load(ordering: .relaxed) } }

  func stop() {
    for signal in signals { signal.isStopped.store(true, ordering: .relaxed) }
  }

  /// Blocks until every worker has its session.
  func waitUntilReady() throws {
    condition.lock()
    defer { condition.unlock() }
    while true {
      let (ready, error) = state.withLock { ($0.ready, $0.error) }
      if let error { throw error }
      if ready == plan.workers { return }
      condition.wait()
    }
  }

  func go(startNanoseconds: UInt64) {
    change { $0.start = startNanoseconds }
  }

  /// Sleeps until the time, until all workers have ended, or until `isOver` says so (asked ten times a second).
  func wait(until nanoseconds: UInt64, _ isOver: () -> Bool) {
    condition.lock()
    defer { condition.unlock() }
    while !isFinished, !isOver() {
      let now = cweir_monotonic_nanoseconds()
      guard now < nanoseconds else { return }
      let seconds = min(0.1, Double(nanoseconds - now) / 1e9)
      _ = condition.wait(until: Date(timeIntervalSinceNow: seconds))
    }
  }

  func join() -> [WorkerResult] {
    wait(until: .max) { false }
    return state.withLock { $0.results.sorted { $0.worker < $1.worker }.map(\.result) }
  }

  /// Makes sure that no worker is left waiting for a start that will not come.
  func end() {
    stop()
    change { $0.isCancelled = true }
    wait(until: .max) { false }
  }

  private func change(_ body: (inout sending State) -> Void) {
    condition.lock()
    state.withLock { body(&$0) }
    condition.broadcast()
    condition.unlock()
  }

  // MARK: On the worker's thread

  private func work(_ worker: Int) {
    cweir_set_timer_slack_nanoseconds(1)
    defer { change { $0.ended += 1 } }
    let session: any TargetSession
    do {
      session = try target.makeSession(worker: worker, readMode: plan.readMode)
    } catch {
      change { $0.error = $0.error ?? error }
      return
    }
    defer { session.close() }
    change { $0.ready += 1 }
    guard let start = waitForStart() else { return }
    let loop = WorkerLoop(
      plan: plan, stream: stream, worker: worker, clock: MonotonicClock(), signals: signals[worker],
      startNanoseconds: start, history: history.selection, historyCapacity: history.operations / plan.workers)
    let result = loop.run(session)
    change { $0.results.append((worker, result)) }
  }

  private func waitForStart() -> UInt64? {
    condition.lock()
    defer { condition.unlock() }
    while true {
      let (start, isCancelled) = state.withLock { ($0.start, $0.isCancelled) }
      if isCancelled { return nil }
      if let start { return start }
      condition.wait()
    }
  }
}
