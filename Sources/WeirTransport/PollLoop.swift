import CWeir
import Dispatch
import Glibc
import Synchronization

/// Readiness by epoll, in one long block on a serial Dispatch queue: six system calls a round trip where Dispatch
/// sources take about twenty, and no thread switch between readiness and handling.
///
/// Sendable: `descriptors`, `handler` and `events` belong to the queue (before `start`, to whoever builds the loop);
/// the rest is immutable or atomic.
final class PollLoop: EventLoop, @unchecked Sendable {
  let queue: DispatchQueue
  let mechanism = ReadinessMechanism.pollLoop
  private let repollNanoseconds: UInt64
  private let epoll: Int32
  private let event: Int32
  private let finished = DispatchSemaphore(value: 0)
  private var started = false
  private var descriptors: [Int: Int32] = [:]

  /// Whether the loop sleeps or is about to: only then does a wake-up need a system call.
  private let sleeping = Atomic<Bool>(false)
  private let stopping = Atomic<Bool>(false)
  private let wakeupCount = Atomic<UInt64>(0)
  private let waitCount = Atomic<UInt64>(0)
  private let notificationCount = Atomic<UInt64>(0)
  private let threadClock = Atomic<Int32>(0)

  private static let maximumEvents = 64
  private static let wakeChannel = UInt64.max
  private static let readable = UInt32(CWEIR_READABLE)
  private static let writable = UInt32(CWEIR_WRITABLE)
  private static let failed = UInt32(CWEIR_FAILED)

  init(label: String, repollNanoseconds: UInt64) throws(TransportError) {
    queue = DispatchQueue(label: label)
    self.repollNanoseconds = repollNanoseconds
    epoll = cweir_epoll_create()
    guard epoll >= 0 else { throw .systemCall("epoll_create", errno: errno) }
    event = cweir_eventfd()
    guard event >= 0 else {
      let code = errno
      Socket.close(epoll)
      throw .systemCall("eventfd", errno: code)
    }
    // Edge-triggered: each write to the eventfd is one event, and nobody has to read it back.
    let added = cweir_epoll_add(epoll, event, Self.readable | UInt32(CWEIR_EDGE_TRIGGERED), Self.wakeChannel)
    precondition(added == 0, "an eventfd can be waited for")
  }

  deinit {
    for descriptor in descriptors.values { Socket.close(descriptor) }
    Socket.close(event)
    Socket.close(epoll)
  }

  func start(_ handler: sending any EventLoopHandler) {
    precondition(!started, "an event loop is started once")
    started = true
    nonisolated(unsafe) let handler = handler
    queue.async { [self] in
      unsafe run(handler)
      finished.signal()
    }
  }

  func register(descriptor: Int32, channel: Int) {
    precondition(descriptors[channel] == nil, "channel \(channel) is taken")
    descriptors[channel] = descriptor
    let added = cweir_epoll_add(epoll, descriptor, Self.readable, UInt64(channel))
    precondition(added == 0, "the system waits for no more descriptors, or not for this kind: errno \(errno)")
  }

  func setWriteInterest(channel: Int, _ enabled: Bool) {
    guard let descriptor = descriptors[channel] else { return }
    _ = cweir_epoll_change(epoll, descriptor, enabled ? Self.readable | Self.writable : Self.readable, UInt64(channel))
  }

  func close(channel: Int) {
    guard let descriptor = descriptors.removeValue(forKey: channel) else { return }
    _ = cweir_epoll_remove(epoll, descriptor)
    Socket.close(descriptor)
  }

  func wake() {
    // Sequentially consistent, as in `run`: either this sees that the loop sleeps, or the loop sees the work.
    guard sleeping.load(ordering: .sequentiallyConsistent),
      sleeping.exchange(false, ordering: .sequentiallyConsistent)
    else { return }
    notify()
  }

  func stop() {
    guard started else { return }
    stopping.store(true, ordering: .sequentiallyConsistent)
    notify()
    finished.wait()
    finished.signal()
  }

  var wakeups: UInt64 { wakeupCount.load(ordering: .relaxed) }

  var systemCalls: EventLoopSystemCalls? {
    EventLoopSystemCalls(
      waits: waitCount.load(ordering: .relaxed), notifications: notificationCount.load(ordering: .relaxed))
  }

  var cpuNanoseconds: UInt64? {
    let clock = threadClock.load(ordering: .acquiring)
    guard clock != 0 else { return nil }
    var time = timespec()
    guard unsafe clock_gettime(clock, &time) == 0 else { return nil }
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  private func notify() {
    notificationCount.wrappingAdd(1, ordering: .relaxed)
    cweir_eventfd_notify(event)
  }

  private func run(_ handler: any EventLoopHandler) {
    var clock = clockid_t()
    if unsafe pthread_getcpuclockid(pthread_self(), &clock) == 0 {
      threadClock.store(clock, ordering: .releasing)
    }
    let events = UnsafeMutableBufferPointer<cweir_event>.allocate(capacity: Self.maximumEvents)
    defer { unsafe events.deallocate() }
    var deadline = handler.eventLoopTurn()
    while !stopping.load(ordering: .relaxed) {
      let count =
        handler.eventLoopHasWork
        ? unsafe poll(events, timeout: 0) : unsafe sleep(events, until: deadline, handler)
      var index = 0
      while index < count {
        unsafe dispatch(events[index], to: handler)
        index += 1
      }
      deadline = handler.eventLoopTurn()
    }
    // The thread goes back to Dispatch, which may end it: its clock means nothing from here on.
    threadClock.store(0, ordering: .releasing)
  }

  /// Polls again as long as the settings say, then sleeps until an event, a wake-up or `deadline`.
  @unsafe
  private func sleep(
    _ events: UnsafeMutableBufferPointer<cweir_event>, until deadline: UInt64, _ handler: any EventLoopHandler
  ) -> Int {
    if repollNanoseconds > 0 {
      let end = min(deadline, cweir_monotonic_nanoseconds() + repollNanoseconds)
      repeat {
        if handler.eventLoopHasWork || stopping.load(ordering: .relaxed) { return 0 }
        let count = unsafe poll(events, timeout: 0)
        if count > 0 { return count }
      } while cweir_monotonic_nanoseconds() < end
    }
    sleeping.store(true, ordering: .sequentiallyConsistent)
    defer { sleeping.store(false, ordering: .relaxed) }
    // Work posted before `sleeping` was seen as true came without a wake-up: look once more.
    if handler.eventLoopHasWork || stopping.load(ordering: .sequentiallyConsistent) { return 0 }
    let now = cweir_monotonic_nanoseconds()
    if deadline <= now { return 0 }
    let count = unsafe poll(events, timeout: Int64(min(deadline - now, 60_000_000_000)))
    wakeupCount.wrappingAdd(1, ordering: .relaxed)
    return count
  }

  @unsafe
  private func poll(_ events: UnsafeMutableBufferPointer<cweir_event>, timeout: Int64) -> Int {
    // One writer: no locked instruction is needed.
    waitCount.store(waitCount.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
    let count = unsafe cweir_epoll_wait(epoll, events.baseAddress, Int32(events.count), timeout)
    return count > 0 ? Int(count) : 0
  }

  private func dispatch(_ event: cweir_event, to handler: any EventLoopHandler) {
    if event.data == Self.wakeChannel { return }
    let token = Int(event.data)
    // An earlier event of the same round may have closed it.
    guard descriptors[token] != nil else { return }
    if event.events & Self.writable != 0 { handler.eventLoopWritable(channel: token) }
    guard descriptors[token] != nil else { return }
    if event.events & (Self.readable | Self.failed) != 0 { handler.eventLoopReadable(channel: token) }
  }
}
