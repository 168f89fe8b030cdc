import Synchronization

@testable import Load

/// A clock that only the test's target moves.
final class VirtualClock: LoadClock {
  private let time = Atomic<UInt64>(0)

  func nanoseconds() -> UInt64 { time.load(ordering: .relaxed) }
  func advance(to nanoseconds: UInt64) {
    if nanoseconds > self.nanoseconds() { time.store(nanoseconds, ordering: .relaxed) }
  }
}

/// One server with a queue, in virtual time: each operation takes `serviceNanoseconds`, and during a stall nothing
/// is served. What it keeps is a register for each key, so that its histories can be checked.
final class VirtualSession: TargetSession {
  /// How the server misbehaves.
  enum Fault {
    case none
    /// Every n-th operation is never answered.
    case drops(every: Int)
    /// Every n-th answer is given twice.
    case repeats(every: Int)
    /// Every n-th operation is refused.
    case refuses(every: Int)
    /// Every n-th read returns what the key held before its newest value.
    case stale(every: Int)
  }

  private struct Answer {
    var time: UInt64
    var completion: Completion
  }

  let clock: VirtualClock
  let serviceNanoseconds: @Sendable (Int) -> UInt64
  let stall: Range<UInt64>?
  let fault: Fault
  private(set) var received: [Operation] = []
  private var queue: [Answer] = []
  private var head = 0
  private var freeAt: UInt64 = 0
  private var values: [UInt64: (newest: ValueID, before: ValueID?)] = [:]

  init(
    clock: VirtualClock, stall: Range<UInt64>? = nil, fault: Fault = .none,
    serviceNanoseconds: @escaping @Sendable (Int) -> UInt64
  ) {
    self.clock = clock
    self.serviceNanoseconds = serviceNanoseconds
    self.stall = stall
    self.fault = fault
  }

  func submit(_ batch: Span<Submission>, completions: inout [Completion]) {
    for index in batch.indices {
      let number = received.count
      received.append(batch[index].operation)
      let start = afterStall(max(clock.nanoseconds(), freeAt))
      let end = afterStall(start + serviceNanoseconds(number), from: start)
      freeAt = end
      answer(batch[index], number, at: end)
    }
  }

  private func answer(_ submission: Submission, _ number: Int, at time: UInt64) {
    var completion = Completion(token: submission.token, status: .ok, doneNanoseconds: time)
    var copies = 1
    switch fault {
    case .drops(let every) where number % every == every - 1: copies = 0
    case .repeats(let every) where number % every == every - 1: copies = 2
    case .refuses(let every) where number % every == every - 1: completion.status = .failed
    default: break
    }
    if completion.status == .ok { apply(submission.operation, number, &completion) }
    for _ in 0..<copies { queue.append(Answer(time: time, completion: completion)) }
  }

  private func apply(_ operation: Operation, _ number: Int, _ completion: inout Completion) {
    let held = values[operation.keyNumber]
    switch operation.kind {
    case .get:
      completion.readValue = held?.newest
      if case .stale(let every) = fault, number % every == every - 1 { completion.readValue = held?.before }
    case .set: values[operation.keyNumber] = (operation.value, held?.newest)
    case .delete: values[operation.keyNumber] = nil
    }
  }

  private func afterStall(_ time: UInt64) -> UInt64 {
    guard let stall, stall.contains(time) else { return time }
    return stall.upperBound
  }

  /// An operation that the stall interrupts ends later by the rest of the stall.
  private func afterStall(_ end: UInt64, from start: UInt64) -> UInt64 {
    guard let stall, start < stall.lowerBound, end > stall.lowerBound else { return end }
    return end + UInt64(stall.count)
  }

  func poll(into completions: inout [Completion], until deadlineNanoseconds: UInt64) {
    if head < queue.count, queue[head].time <= max(deadlineNanoseconds, clock.nanoseconds()) {
      clock.advance(to: queue[head].time)
    } else {
      clock.advance(to: deadlineNanoseconds)
    }
    while head < queue.count, queue[head].time <= clock.nanoseconds() {
      completions.append(queue[head].completion)
      head += 1
    }
  }

  func close() {}
}

/// Runs the generator's loop in virtual time, on the calling thread: nothing in it can depend on the machine.
enum VirtualRun {
  static func plan(
    readPercent: Int = 0, keys: Int = 1000, loop: LoopMode, workers: Int = 1, seconds: Double,
    operationLimit: UInt64? = nil, seed: UInt64 = 1
  ) -> RunPlan {
    RunPlan(
      name: "virtual", workload: Workload(readPercent: readPercent, keys: keys), readMode: .safe, loop: loop,
      workers: workers, warmUpNanoseconds: 0, durationNanoseconds: UInt64(seconds * 1e9),
      operationLimit: operationLimit, seed: seed, client: 1)
  }

  static func run(
    _ plan: RunPlan, stall: Range<UInt64>? = nil, fault: VirtualSession.Fault = .none, worker: Int = 0,
    historyCapacity: Int = 1 << 20, serviceNanoseconds: @escaping @Sendable (Int) -> UInt64
  ) -> (result: RunResult, received: [Operation]) {
    let clock = VirtualClock()
    let session = VirtualSession(
      clock: clock, stall: stall, fault: fault, serviceNanoseconds: serviceNanoseconds)
    let loop = WorkerLoop(
      plan: plan, stream: OperationStream(plan.workload, seed: plan.seed, client: plan.client), worker: worker,
      clock: clock, signals: WorkerSignals(), startNanoseconds: 1000,
      history: HistorySelection(seed: 5), historyCapacity: historyCapacity)
    let worker = loop.run(session)
    var result = RunResult(plan: plan)
    result.merge(worker)
    result.finish([worker])
    return (result, session.received)
  }
}
