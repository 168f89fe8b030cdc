/// How operations follow each other.
public enum LoopMode: Sendable, Equatable {
  /// The next operation starts when an earlier one ends. Right for peak throughput; its latency is that of a target
  /// which is never asked more than it can do.
  case closed(outstanding: Int)
  /// Operations start at times fixed beforehand. What cannot start on time waits, and the waiting counts.
  case open(ratePerSecond: Double, arrival: Arrival, outstandingLimit: Int)

  /// Most operations in flight at once, over all workers.
  public var outstanding: Int {
    switch self {
    case .closed(let outstanding): outstanding
    case .open(_, _, let limit): limit
    }
  }

  public var isOpen: Bool {
    if case .open = self { true } else { false }
  }
}

/// One run of the generator against one target.
public struct RunPlan: Sendable, Equatable {
  public var name: String
  public var workload: Workload
  public var readMode: ReadMode
  public var loop: LoopMode
  public var workers: Int
  /// Operations are sent but not measured for this long at the start.
  public var warmUpNanoseconds: UInt64
  public var durationNanoseconds: UInt64
  /// Ends the run after this many operations of all workers together, however long it takes.
  public var operationLimit: UInt64?
  public var seed: UInt64
  /// Names the values that this run writes: different in each run of a process, and not 0.
  public var client: UInt32
  /// An operation that starts later than this after its intended time counts as late.
  public var lateNanoseconds: UInt64 = 10_000_000
  /// How long after the end answers are still waited for; what is still in flight then has an unknown outcome.
  public var drainNanoseconds: UInt64 = 10_000_000_000
  /// Most operations that are handed to a session at once.
  public var batchLimit = 64

  public init(
    name: String, workload: Workload, readMode: ReadMode, loop: LoopMode, workers: Int,
    warmUpNanoseconds: UInt64, durationNanoseconds: UInt64, operationLimit: UInt64? = nil, seed: UInt64,
    client: UInt32
  ) {
    self.name = name
    self.workload = workload
    self.readMode = readMode
    self.loop = loop
    self.workers = workers
    self.warmUpNanoseconds = warmUpNanoseconds
    self.durationNanoseconds = durationNanoseconds
    self.operationLimit = operationLimit
    self.seed = seed
    self.client = client
  }

  /// What one worker may have in flight.
  func outstanding(ofWorker worker: Int) -> Int {
    // The remainder goes to the first workers, so that the sum is what was asked for.
    max(1, loop.outstanding / workers + (worker < loop.outstanding % workers ? 1 : 0))
  }

  /// How many operations one worker sends at most.
  func operationLimit(ofWorker worker: Int) -> UInt64 {
    guard let operationLimit else { return .max }
    return operationLimit / UInt64(workers) + (UInt64(worker) < operationLimit % UInt64(workers) ? 1 : 0)
  }
}

/// Where the generator takes the time from; the tests give it a clock that they move themselves.
public protocol LoadClock: Sendable {
  func nanoseconds() -> UInt64
}
