import Linearizability
import Measure

/// What was measured of one kind of operation.
public struct OperationMeasurement: Sendable {
  /// From the intended start (open loop) or the sending (closed loop) to the answer being in the worker's hands.
  public var response = LatencyHistogram()
  /// From the sending to the answer.
  public var service = LatencyHistogram()
  /// From the intended start to the sending. Empty in a closed loop.
  public var lag = LatencyHistogram()
  /// Operations that failed or whose outcome is unknown, at the time they took; not part of `response`.
  public var errorResponse = LatencyHistogram()
  public var failed: UInt64 = 0
  public var unknown: UInt64 = 0

  public init() {}

  public var errors: UInt64 { failed + unknown }

  mutating func merge(_ other: OperationMeasurement) {
    response.merge(other.response)
    service.merge(other.service)
    lag.merge(other.lag)
    errorResponse.merge(other.errorResponse)
    failed += other.failed
    unknown += other.unknown
  }
}

/// One second of one run.
public struct IntervalMeasurement: Sendable {
  /// Seconds since the start of the measured window.
  public var startSeconds: Double
  public var lengthSeconds: Double
  public var reads = LatencyHistogram()
  public var writes = LatencyHistogram()
  public var errors: UInt64 = 0
  public var late: UInt64 = 0
  /// Operations whose intended (or, in a closed loop, actual) start lies in the interval.
  public var offered: UInt64 = 0
  /// In flight at the interval's end.
  public var inFlight: UInt64 = 0

  public init(startSeconds: Double, lengthSeconds: Double) {
    self.startSeconds = startSeconds
    self.lengthSeconds = lengthSeconds
  }

  mutating func merge(_ other: IntervalMeasurement) {
    reads.merge(other.reads)
    writes.merge(other.writes)
    errors += other.errors
    late += other.late
    offered += other.offered
    inFlight += other.inFlight
  }
}

/// What one worker brings home.
struct WorkerResult: Sendable {
  var reads = OperationMeasurement()
  var writes = OperationMeasurement()
  var intervals: [IntervalMeasurement] = []
  /// Answers in each tenth of a second of the measured window.
  var completionsPerBin: [UInt32] = []
  /// Operations in the whole run, warm-up included.
  var sent: UInt64 = 0
  var completed: UInt64 = 0
  /// Intended within the measured window.
  var offered: UInt64 = 0
  var late: UInt64 = 0
  var unsent: UInt64 = 0
  /// Answered well within the measured window, whenever they were sent.
  var completedInWindow: UInt64 = 0
  /// ∫ operations in flight dt over the measured window.
  var inFlightNanoseconds: Double = 0
  /// How long the limit on operations in flight held the worker back, within the measured window.
  var atLimitNanoseconds: UInt64 = 0
  /// How long the measured window was in the end: a run may be stopped, or limited by operations.
  var windowNanoseconds: UInt64 = 0
  var cpuNanoseconds: UInt64 = 0
  /// Completions that named no operation in flight: a fault of the target.
  var strayCompletions: UInt64 = 0
  var history: [HistoryOperation] = []
  var historySelection = HistorySelection(seed: 0)
}
