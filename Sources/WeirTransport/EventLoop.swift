import CWeir
import Dispatch

/// How readiness of sockets reaches a node's queue.
///
/// The poll loop is the default. Measured with the whole node: 3 nodes and the load generator in one process, 128-byte
/// values, memory log, loopback TCP, two cores of an AMD EPYC. "Loaded": two other programs that never sleep. "One
/// core": everything pinned to one.
///
/// Write, p50 with one operation in flight / operations a second and CPU of one with 1024 in flight:
///
/// | | poll loop | and 30 µs re-poll | Dispatch sources | and 30 µs re-poll |
/// | --- | --- | --- | --- | --- |
/// | quiet, two cores | 108 µs / 1.91 M, 0.80 µs | 52 µs / 1.36 M, 1.21 µs | 125 µs / 1.11 M, 1.31 µs | 77 µs / 1.42 M, 1.05 µs |
/// | quiet, one core | 58 µs / 1.34 M, 0.75 µs | 140 µs / 1.05 M, 0.93 µs | 85 µs / 1.09 M, 0.92 µs | 134 µs / 1.09 M, 0.92 µs |
/// | loaded, two cores | 99 µs / 1.03 M, 0.81 µs | 63 µs / 0.80 M, 1.12 µs | 89 µs / 0.64 M, 1.30 µs | 155 µs / 0.76 M, 1.12 µs |
/// | loaded, one core | 58 µs / 0.85 M, 0.79 µs | 142 µs / 1.11 M, 0.86 µs | 73 µs / 0.90 M, 0.93 µs | 130 µs / 0.70 M, 1.08 µs |
///
/// Safe read, the same:
///
/// | | poll loop | and 30 µs re-poll | Dispatch sources | and 30 µs re-poll |
/// | --- | --- | --- | --- | --- |
/// | quiet, two cores | 91 µs / 2.75 M, 0.61 µs | 71 µs / 2.27 M, 0.80 µs | 111 µs / 2.86 M, 0.54 µs | 20 µs / 2.00 M, 0.84 µs |
/// | quiet, one core | 48 µs / 3.29 M, 0.30 µs | 137 µs / 2.18 M, 0.46 µs | 78 µs / 3.22 M, 0.31 µs | 125 µs / 1.61 M, 0.62 µs |
/// | loaded, two cores | 66 µs / 1.63 M, 0.52 µs | 73 µs / 1.15 M, 0.74 µs | 104 µs / 1.28 M, 0.66 µs | 32 µs / 1.04 M, 0.89 µs |
/// | loaded, one core | 52 µs / 1.91 M, 0.37 µs | 149 µs / 1.68 M, 0.58 µs | 77 µs / 2.16 M, 0.46 µs | 132 µs / 1.15 M, 0.74 µs |
///
/// One run of half a second each, so differences of a tenth mean nothing. What lasts: the poll loop takes a third less
/// CPU for a lone operation (49 and 58 µs against 77 and 88 µs on one core) and is never far behind. Polling again
/// shortens a lone operation where nodes have cores to themselves (up to five times with Dispatch sources, whose
/// wake-up costs most), costs throughput even there, and more than doubles everything where nodes share a core, which is
/// why it is off. `bench sweep --mechanism poll|dispatch --repoll N --outstanding 1,1024` measures another machine; every
/// result names the mechanism that it was measured with.
///
/// The table was taken before callers drove the loop (`EventLoopConfiguration.callersDrive`, on by default). What that does
/// to a lone write, p50 in µs of rounds of half a second in turn with those of the loop without it, two cores that were
/// rarely quiet:
///
/// | | by itself | driven by callers | and 30 µs caller re-poll (the default) |
/// | --- | --- | --- | --- |
/// | two cores | 120, 141, 128 | 78, 79, 93 | 43, 41, 46 |
/// | one core | 67, 67, 68 | 56, 48, 58 | 56, 56, 56 |
///
/// Of the four sleeps and wake-ups of a write two are left: the follower's, and that of the caller, which wakes in the
/// leader's poll.
public enum ReadinessMechanism: String, Sendable, CaseIterable, Codable {
  /// Dispatch read sources that target the node's queue.
  case dispatchSources = "dispatch"
  /// An epoll loop that runs as one long block on the node's queue.
  case pollLoop = "poll"
}

/// What an event loop drives. All calls but that of `eventLoopHasWork` come one at a time and in an order that every thread
/// agrees on: from the loop's serial queue, or where callers drive the loop, from a caller while that queue rests.
public protocol EventLoopHandler: AnyObject {
  /// The descriptor registered as `channel` has something to read, or an error to report.
  func eventLoopReadable(channel: Int)
  /// The descriptor registered as `channel` can take more.
  func eventLoopWritable(channel: Int)
  /// Everything that was ready has been handed over: act on it. Called after each wake-up, also one without an event.
  /// - Returns: when to be called again at the latest, in nanoseconds of CLOCK_MONOTONIC.
  func eventLoopTurn() -> UInt64
  /// The same on the thread of a caller that has posted something while the loop slept. It takes up what lies in the
  /// mailbox and sends what has to be sent, and runs nothing of the application's: that thread may hold any lock.
  func eventLoopCallerTurn() -> UInt64
  /// Whether something waits that did not come through a descriptor. Asked on any thread.
  var eventLoopHasWork: Bool { get }
  /// How many operations callers wait for.
  var eventLoopAwaited: Int { get }
}

extension EventLoopHandler {
  public func eventLoopCallerTurn() -> UInt64 { eventLoopTurn() }
  public var eventLoopAwaited: Int { 0 }
}

/// The readiness of a node's sockets, its timer and its wake-ups from other threads, on one serial Dispatch queue.
///
/// `wake`, `stop` and the counters may be called from any thread, the rest only from the loop's own queue or before
/// `start`.
public protocol EventLoop: AnyObject, Sendable {
  /// The serial queue that everything runs on.
  var queue: DispatchQueue { get }
  var mechanism: ReadinessMechanism { get }
  /// Begins to drive `handler`, which the loop holds until it has stopped.
  func start(_ handler: sending any EventLoopHandler)
  /// Reports readiness of `descriptor` as `channel` from now on.
  func register(descriptor: Int32, channel: Int)
  /// Whether to report that `channel` can take more; off at first.
  func setWriteInterest(channel: Int, _ enabled: Bool)
  /// Whether to report that `channel` has something to read; on at first. Off, the other side is held back once the system's
  /// buffers are full. An error or the end of both directions is reported in any case, as something to read.
  func setReadInterest(channel: Int, _ enabled: Bool)
  /// Forgets `channel` and closes its descriptor once nothing refers to it.
  func close(channel: Int)
  /// Has `eventLoopTurn` called soon. Cheap where the loop is awake already.
  func wake()
  /// Whether callers may run the loop.
  var callersDrive: Bool { get }
  /// Has what was just posted looked at: by a turn on the calling thread if callers drive the loop, it sleeps and nobody
  /// waits for anything yet; else like `wake`.
  /// - Parameter isResident: whether the calling thread was hosted the last time that it waited.
  func wakeOrDrive(isResident: Bool)
  /// Lets the calling thread wait for an answer inside of the loop, which it runs meanwhile, until `isWaiting` says no or
  /// the deadline (CLOCK_MONOTONIC) has passed, or somebody else runs it. Whoever ends the waiting calls `waker`.
  /// - Returns: false if the thread has to wait by itself: another one runs the loop, or others wait as well.
  func host(untilNanoseconds deadline: UInt64, while isWaiting: () -> Bool) -> Bool
  /// What wakes a thread that is being hosted; nil where none ever is.
  var waker: LoopWaker? { get }
  /// Ends the loop and waits until nothing of it runs any more. Not from the loop's queue.
  func stop()
  /// Times that the loop went from sleeping to running.
  var wakeups: UInt64 { get }
  /// System calls that wait for readiness, and that wake the loop from another thread; nil where libdispatch makes them
  /// and does not say how many.
  var systemCalls: EventLoopSystemCalls? { get }
  /// CPU time of running the loop, where it is always the same thread that does, or a caller.
  var cpuNanoseconds: UInt64? { get }
}

extension EventLoop {
  public var callersDrive: Bool { false }
  public func wakeOrDrive(isResident: Bool) { wake() }
  public func host(untilNanoseconds deadline: UInt64, while isWaiting: () -> Bool) -> Bool { false }
  public var waker: LoopWaker? { nil }
}

/// What a loop has asked of the kernel since it started, beside reading and writing.
public struct EventLoopSystemCalls: Sendable, Hashable {
  /// Waits for readiness, those that only look among them.
  public var waits: UInt64
  /// Wake-ups of a sleeping loop by another thread.
  public var notifications: UInt64

  public static let none = EventLoopSystemCalls(waits: 0, notifications: 0)
}

/// Settings of an event loop.
public struct EventLoopConfiguration: Sendable, Hashable {
  public var mechanism: ReadinessMechanism
  /// How long to poll again before sleeping, in nanoseconds. 0: sleep at once. Shortens round trips several times where
  /// nodes have cores to themselves, and takes the cores from each other where they have not.
  public var repollNanoseconds: UInt64
  /// Whether a thread that asks something of a sleeping loop, or waits for the only answer under way, runs the loop itself
  /// instead of waking another thread to do so. Poll loops only.
  public var callersDrive: Bool
  /// How long a caller that runs the loop while it waits polls again before it sleeps, giving the processor away each time; 0:
  /// not at all. It leaves off by itself where that does not pay.
  public var callerRepollNanoseconds: UInt64

  public init(
    mechanism: ReadinessMechanism = .pollLoop, repollNanoseconds: UInt64 = 0, callersDrive: Bool = true,
    callerRepollNanoseconds: UInt64 = 30_000
  ) {
    self.mechanism = mechanism
    self.repollNanoseconds = repollNanoseconds
    self.callersDrive = callersDrive
    self.callerRepollNanoseconds = callerRepollNanoseconds
  }

  /// Whether callers drive the loop that this makes.
  public var isDrivenByCallers: Bool { callersDrive && mechanism == .pollLoop }

  /// An event loop of the configured kind, on a new serial queue named `label`.
  /// - Throws: `TransportError.systemCall` if the system has no descriptors left.
  public func makeLoop(label: String) throws(TransportError) -> any EventLoop {
    switch mechanism {
    case .pollLoop: try PollLoop(label: label, configuration: self)
    case .dispatchSources: DispatchSourceLoop(label: label, repollNanoseconds: repollNanoseconds)
    }
  }
}
