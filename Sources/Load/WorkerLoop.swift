import CWeir
import Linearizability
import Measure
import Synchronization

/// What a worker shares with whoever started it: the wish to stop, and how far it is.
final class WorkerSignals: Sendable {
  let isStopped = Atomic<Bool>(false)
  let completed = Atomic<UInt64>(0)
  let errors = Atomic<UInt64>(0)
}

/// The loop of one worker: hands operations to its session in batches, takes answers, and keeps three clocks for each
/// operation: when it was meant to start, when it was sent, and when the worker had the answer.
///
/// A structure that is used by one thread alone, so that none of its state is guarded, counted or shared. The clock
/// is read three times a batch, not three times an operation.
struct WorkerLoop<Clock: LoadClock>: ~Copyable {
  /// One operation in flight.
  private struct InFlight {
    var intended: UInt64 = 0
    var sent: UInt64 = 0
    var key: UInt64 = 0
    var sequence: UInt64 = 0
    var kind = OperationKind.get
    var isActive = false
    /// Whether it was sent within the measured window.
    var isMeasured = false
  }

  private let plan: RunPlan
  private let stream: OperationStream
  private let worker: Int
  private let clock: Clock
  private let signals: WorkerSignals
  private let limit: Int
  private let isOpen: Bool
  private let start: UInt64
  private let windowStart: UInt64
  private let windowEnd: UInt64
  /// Until when an open loop that is behind may still send what it was meant to.
  private let sendingEnd: UInt64

  private var table: [InFlight]
  private var freeTokens: [UInt32]
  private var inFlightCount = 0
  private var batch: [Submission] = []
  private var completions: [Completion] = []
  private var nextIndex: UInt64
  private var remaining: UInt64
  private var schedule: ArrivalSchedule
  private var accountedUntil: UInt64
  private var interval: IntervalMeasurement
  private var intervalEnd: UInt64
  private var history: HistoryRecorder
  private var result = WorkerResult()
  private var cpuAtStart: UInt64 = 0
  private var isInWindow = false

  static var intervalNanoseconds: UInt64 { 1_000_000_000 }
  static var binNanoseconds: UInt64 { 100_000_000 }

  /// - Parameter startNanoseconds: the run's start, the same for all workers.
  init(
    plan: RunPlan, stream: OperationStream, worker: Int, clock: Clock, signals: WorkerSignals,
    startNanoseconds: UInt64, history: HistorySelection, historyCapacity: Int
  ) {
    self.plan = plan
    self.stream = stream
    self.worker = worker
    self.clock = clock
    self.signals = signals
    limit = plan.outstanding(ofWorker: worker)
    isOpen = plan.loop.isOpen
    start = startNanoseconds
    windowStart = startNanoseconds + plan.warmUpNanoseconds
    windowEnd = windowStart + plan.durationNanoseconds
    sendingEnd = isOpen ? windowEnd + 1_000_000_000 : windowEnd
    table = [InFlight](repeating: InFlight(), count: limit)
    freeTokens = (0..<UInt32(limit)).reversed()
    nextIndex = UInt64(worker)
    remaining = plan.operationLimit(ofWorker: worker)
    var ratePerSecond = 1.0
    var arrival = Arrival.uniform
    if case .open(let rate, let kind, _) = plan.loop {
      ratePerSecond = rate
      arrival = kind
    }
    schedule = ArrivalSchedule(
      arrival: arrival, ratePerSecond: ratePerSecond, worker: worker, workers: plan.workers, seed: plan.seed)
    accountedUntil = startNanoseconds
    interval = IntervalMeasurement(startSeconds: 0, lengthSeconds: 1)
    intervalEnd = windowStart + Self.intervalNanoseconds
    self.history = HistoryRecorder(selection: history, capacity: historyCapacity)
    batch.reserveCapacity(plan.batchLimit)
    completions.reserveCapacity(max(limit, plan.batchLimit))
    let bins = plan.durationNanoseconds / Self.binNanoseconds + 1
    result.completionsPerBin = [UInt32](repeating: 0, count: Int(min(bins, 1_000_000)))
  }

  /// Drives the session until the plan is done or the run is stopped.
  consuming func run(_ session: any TargetSession) -> WorkerResult {
    var now = clock.nanoseconds()
    // Before the start there is nothing to do but wait for it.
    while now < start, !signals.isStopped.load(ordering: .relaxed) {
      session.poll(into: &completions, until: start)
      now = clock.nanoseconds()
    }
    enterWindow(now)
    while !signals.isStopped.load(ordering: .relaxed), remaining > 0 {
      now = clock.nanoseconds()
      if now >= windowEnd, isOver(now) { break }
      enterWindow(now)
      fill(now)
      if !batch.isEmpty { submit(session) }
      collect(session)
      take()
    }
    leaveWindow()
    if !signals.isStopped.load(ordering: .relaxed), remaining > 0 { countUnsent() }
    drain(session)
    let end = min(max(clock.nanoseconds(), windowStart), windowEnd)
    result.windowNanoseconds = end - windowStart
    return finish(end)
  }

  private func isOver(_ now: UInt64) -> Bool {
    guard isOpen else { return true }
    return start + schedule.nextNanoseconds >= windowEnd || now >= sendingEnd
  }

  // MARK: Sending

  private mutating func fill(_ now: UInt64) {
    let room = min(plan.batchLimit, limit - inFlightCount)
    if isOpen {
      var intended = start + schedule.nextNanoseconds
      while batch.count < room, intended <= now, intended < windowEnd, remaining > 0 {
        add(intended: intended)
        schedule.advance()
        intended = start + schedule.nextNanoseconds
      }
    } else {
      let count = min(room, Int(clamping: remaining))
      for _ in 0..<count { add(intended: 0) }
    }
  }

  @inline(__always)
  private mutating func add(intended: UInt64) {
    guard let token = freeTokens.popLast() else { return }
    let operation = stream.operation(at: nextIndex)
    nextIndex &+= UInt64(plan.workers)
    remaining -= 1
    inFlightCount += 1
    table[Int(token)] = InFlight(
      intended: intended, sent: 0, key: operation.keyNumber, sequence: operation.value.sequence,
      kind: operation.kind, isActive: true, isMeasured: false)
    batch.append(Submission(token: token, operation: operation))
  }

  private mutating func submit(_ session: any TargetSession) {
    let sent = clock.nanoseconds()
    account(sent, inFlight: inFlightCount - batch.count)
    var offered: UInt64 = 0
    var late: UInt64 = 0
    for submission in batch {
      let slot = Int(submission.token)
      table[slot].sent = sent
      if !isOpen { table[slot].intended = sent }
      let intended = table[slot].intended
      let isMeasured = intended >= windowStart && intended < windowEnd
      table[slot].isMeasured = isMeasured
      guard isMeasured else { continue }
      offered += 1
      if sent - intended > plan.lateNanoseconds { late += 1 }
    }
    result.sent += UInt64(batch.count)
    result.offered += offered
    result.late += late
    interval.offered += offered
    interval.late += late
    // Out of `self` for the call, which also writes to `self.completions`; the swaps move a pointer.
    var outgoing: [Submission] = []
    swap(&outgoing, &batch)
    session.submit(outgoing.span, completions: &completions)
    outgoing.removeAll(keepingCapacity: true)
    swap(&outgoing, &batch)
  }

  // MARK: Answers

  /// Waits for answers, but no longer than until there is something to send.
  private mutating func collect(_ session: any TargetSession) {
    if !completions.isEmpty, inFlightCount == completions.count { return }
    var deadline: UInt64 = 0
    if completions.isEmpty {
      if inFlightCount == limit || remaining == 0 {
        deadline = sendingEnd
      } else if isOpen {
        deadline = min(start + schedule.nextNanoseconds, sendingEnd)
      }
    }
    session.poll(into: &completions, until: deadline)
  }

  private mutating func take() {
    guard !completions.isEmpty else { return }
    let now = clock.nanoseconds()
    account(now, inFlight: inFlightCount)
    if now >= intervalEnd { rotate(now) }
    var completedWell: UInt64 = 0
    var errors: UInt64 = 0
    for completion in completions {
      let slot = Int(completion.token)
      guard slot < table.count, table[slot].isActive else {
        result.strayCompletions += 1
        continue
      }
      table[slot].isActive = false
      freeTokens.append(completion.token)
      inFlightCount -= 1
      let operation = table[slot]
      record(operation, completion, now)
      if completion.status == .ok { completedWell += 1 } else { errors += 1 }
    }
    completions.removeAll(keepingCapacity: true)
    result.completed += completedWell + errors
    interval.errors += errors
    if now >= windowStart, now < windowEnd {
      result.completedInWindow += completedWell
      let bin = Int((now - windowStart) / Self.binNanoseconds)
      if bin < result.completionsPerBin.count { result.completionsPerBin[bin] += UInt32(completedWell) }
    }
    signals.completed.store(result.completed, ordering: .relaxed)
    if errors > 0 { signals.errors.add(errors, ordering: .relaxed) }
  }

  @inline(__always)
  private mutating func record(_ operation: InFlight, _ completion: Completion, _ now: UInt64) {
    if operation.isMeasured {
      let response = now - operation.intended
      if completion.status != .ok {
        recordError(operation, completion.status, response)
      } else if isOpen {
        let service = now - operation.sent
        let lag = operation.sent - operation.intended
        if operation.kind == .get {
          interval.reads.record(response)
          result.reads.service.record(service)
          result.reads.lag.record(lag)
        } else {
          interval.writes.record(response)
          result.writes.service.record(service)
          result.writes.lag.record(lag)
        }
      } else if operation.kind == .get {
        interval.reads.record(response)
      } else {
        interval.writes.record(response)
      }
    }
    guard history.selection.keeps(operation.key) else { return }
    history.append(
      HistoryOperation(
        client: UInt32(worker + 1), kind: Self.historyKind(operation.kind), key: operation.key,
        value: historyValue(operation, completion), callNanoseconds: operation.sent,
        returnNanoseconds: returnTime(operation, completion, now), outcome: Self.outcome(completion.status)))
  }

  private mutating func recordError(_ operation: InFlight, _ status: OperationStatus, _ response: UInt64) {
    func add(to measurement: inout OperationMeasurement) {
      measurement.errorResponse.record(response)
      if status == .failed { measurement.failed += 1 } else { measurement.unknown += 1 }
    }
    if operation.kind == .get { add(to: &result.reads) } else { add(to: &result.writes) }
  }

  // MARK: History

  private func historyValue(_ operation: InFlight, _ completion: Completion) -> UInt64 {
    switch operation.kind {
    case .get: completion.readValue?.historyValue ?? HistoryOperation.noValue
    case .set: ValueID(client: stream.client, sequence: operation.sequence).historyValue
    case .delete: HistoryOperation.noValue
    }
  }

  /// The target knows best when the operation was over: later than that is true, but lets a stale read pass.
  private func returnTime(_ operation: InFlight, _ completion: Completion, _ now: UInt64) -> UInt64 {
    let done = completion.doneNanoseconds
    return done >= operation.sent && done <= now ? done : now
  }

  private static func historyKind(_ kind: OperationKind) -> HistoryOperationKind {
    switch kind {
    case .get: .get
    case .set: .set
    case .delete: .delete
    }
  }

  private static func outcome(_ status: OperationStatus) -> HistoryOutcome {
    switch status {
    case .ok: .ok
    case .failed: .failed
    case .unknown: .unknown
    }
  }

  // MARK: Bookkeeping

  /// Adds to the integral of the operations in flight, of which `inFlight` were so since the last time.
  @inline(__always)
  private mutating func account(_ now: UInt64, inFlight: Int) {
    let from = max(accountedUntil, windowStart)
    let until = min(now, windowEnd)
    accountedUntil = max(accountedUntil, now)
    guard until > from else { return }
    result.inFlightNanoseconds += Double(until - from) * Double(inFlight)
    guard isOpen, inFlight == limit else { return }
    // Held back only from when the next operation was due.
    let due = max(from, start + schedule.nextNanoseconds)
    if until > due { result.atLimitNanoseconds += until - due }
  }

  /// Closes the interval, and any that passed without an answer.
  private mutating func rotate(_ now: UInt64) {
    while now >= intervalEnd, intervalEnd < windowEnd {
      closeInterval()
      intervalEnd += Self.intervalNanoseconds
    }
  }

  private mutating func closeInterval() {
    interval.inFlight = UInt64(inFlightCount)
    result.reads.response.merge(interval.reads)
    result.writes.response.merge(interval.writes)
    let next = interval.startSeconds + 1
    result.intervals.append(interval)
    interval = IntervalMeasurement(startSeconds: next, lengthSeconds: 1)
  }

  private mutating func enterWindow(_ now: UInt64) {
    guard !isInWindow, now >= windowStart else { return }
    isInWindow = true
    cpuAtStart = cweir_thread_cpu_nanoseconds()
  }

  private mutating func leaveWindow() {
    guard isInWindow else { return }
    result.cpuNanoseconds = cweir_thread_cpu_nanoseconds() - cpuAtStart
  }

  private mutating func countUnsent() {
    guard isOpen else { return }
    while start + schedule.nextNanoseconds < windowEnd {
      if start + schedule.nextNanoseconds >= windowStart { result.unsent += 1 }
      schedule.advance()
    }
  }

  /// Waits for what is in flight. What does not come has an unknown outcome.
  private mutating func drain(_ session: any TargetSession) {
    let deadline = clock.nanoseconds() + plan.drainNanoseconds
    while inFlightCount > 0 {
      session.poll(into: &completions, until: deadline)
      take()
      if inFlightCount > 0, clock.nanoseconds() >= deadline { break }
    }
    let now = clock.nanoseconds()
    for slot in table.indices where table[slot].isActive {
      completions.append(Completion(token: UInt32(slot), status: .unknown, doneNanoseconds: now))
    }
    take()
  }

  private consuming func finish(_ end: UInt64) -> WorkerResult {
    let length = Double(end - windowStart) / 1e9 - interval.startSeconds
    if length > 0 || !interval.reads.isEmpty || !interval.writes.isEmpty {
      interval.lengthSeconds = max(length, 0)
      closeInterval()
    }
    if !isOpen {
      // One and the same in a closed loop, where an operation is meant to start when it is sent.
      result.reads.service = result.reads.response
      result.writes.service = result.writes.response
    }
    result.history = history.operations
    result.historySelection = history.selection
    return result
  }
}
