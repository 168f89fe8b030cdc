import CWeir
import Dispatch

/// How readiness of sockets reaches a node's queue.
///
/// The poll loop is the default. Measured with the whole node (3 nodes in one process, 128-byte values, memory log, on two
/// cores that many builds shared; everything pinned to one core, which is the placement that varies least):
///
/// | one operation in flight | poll loop | Dispatch sources |
/// | --- | --- | --- |
/// | write, p50 / CPU an operation | 57 µs / 60 µs | 109 µs / 124 µs |
/// | Safe read, p50 / CPU an operation | 50 µs / 51 µs | 83 µs / 96 µs |
///
/// With 1024 in flight the batches hide most of the difference (write: 1.1 µs against 2.6 µs of CPU). Polling again for
/// 30 µs before sleeping took the Safe read to 26 µs with Dispatch sources on two cores, and made everything on one core
/// two to three times as slow, which is why it is off. `bench sweep --mechanism poll|dispatch --repoll N` shows the
/// figures of another machine.
public enum ReadinessMechanism: String, Sendable, CaseIterable, Codable {
  /// Dispatch read sources that target the node's queue.
  case dispatchSources = "dispatch"
  /// An epoll loop that runs as one long block on the node's queue.
  case pollLoop = "poll"
}

/// What an event loop drives. All calls come from the loop's serial queue, one at a time.
public protocol EventLoopHandler: AnyObject {
  /// The descriptor registered as `channel` has something to read, or an error to report.
  func eventLoopReadable(channel: Int)
  /// The descriptor registered as `channel` can take more.
  func eventLoopWritable(channel: Int)
  /// Everything that was ready has been handed over: act on it. Called after each wake-up, also one without an event.
  /// - Returns: when to be called again at the latest, in nanoseconds of CLOCK_MONOTONIC.
  func eventLoopTurn() -> UInt64
  /// Whether something waits that did not come through a descriptor. Asked while polling again before sleeping.
  var eventLoopHasWork: Bool { get }
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
  /// Forgets `channel` and closes its descriptor once nothing refers to it.
  func close(channel: Int)
  /// Has `eventLoopTurn` called soon. Cheap where the loop is awake already.
  func wake()
  /// Ends the loop and waits until nothing of it runs any more. Not from the loop's queue.
  func stop()
  /// Times that the loop went from sleeping to running.
  var wakeups: UInt64 { get }
  /// CPU time of the thread that runs the loop, where it is always the same thread.
  var cpuNanoseconds: UInt64? { get }
}

/// Settings of an event loop.
public struct EventLoopConfiguration: Sendable, Hashable {
  public var mechanism: ReadinessMechanism
  /// How long to poll again before sleeping, in nanoseconds. 0: sleep at once. Shortens round trips several times where
  /// nodes have cores to themselves, and takes the cores from each other where they have not.
  public var repollNanoseconds: UInt64

  public init(mechanism: ReadinessMechanism = .pollLoop, repollNanoseconds: UInt64 = 0) {
    self.mechanism = mechanism
    self.repollNanoseconds = repollNanoseconds
  }

  /// An event loop of the configured kind, on a new serial queue named `label`.
  /// - Throws: `TransportError.systemCall` if the system has no descriptors left.
  public func makeLoop(label: String) throws(TransportError) -> any EventLoop {
    switch mechanism {
    case .pollLoop: try PollLoop(label: label, repollNanoseconds: repollNanoseconds)
    case .dispatchSources: DispatchSourceLoop(label: label, repollNanoseconds: repollNanoseconds)
    }
  }
}
