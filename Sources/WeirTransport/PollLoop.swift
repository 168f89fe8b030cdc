import CWeir
import Dispatch
import Glibc
import Synchronization

/// Readiness by epoll, in one long block on a serial Dispatch queue: six system calls a round trip where Dispatch
/// sources take about twenty, and no thread switch between readiness and handling.
///
/// **Who runs it.** Whoever holds `token`, and nobody else touches the handler or anything below "the token's". The loop's
/// own thread holds it whenever it is awake and gives it back for the time of each sleep. Then a caller may take it:
///
/// - for one turn, when it has just posted the first request to a loop that sleeps (`wakeOrDrive`): what would wake a
///   thread to send the request is done by the thread that has it;
/// - as a *guest* that waits for its answer inside of the loop (`host`): it polls the sockets itself and is awake
///   when the answer is, instead of being woken by the thread that was. One at a time, in a seat.
///
/// A thread that posts and finds the token taken goes away without waking anybody. So whoever gives the token back has to
/// look for work *afterwards*. Without that: the holder finds nothing and is about to give back; a caller posts, sees
/// the token taken and leaves; the holder gives back and sleeps; the request waits for the next tick. Both sides use
/// sequentially consistent operations (post, then take; give, then look), so one of them sees the other.
///
/// A caller's turn is bounded, and it never sleeps while it holds the token, but for what the handler does. It runs none
/// of the application's callbacks (`eventLoopCallerTurn`): one of them might want a lock that this caller holds.
///
/// Sendable: see above; before `start` everything belongs to whoever builds the loop, and the rest is immutable or atomic.
final class PollLoop: EventLoop, @unchecked Sendable {
  let queue: DispatchQueue
  let mechanism = ReadinessMechanism.pollLoop
  let callersDrive: Bool
  private let repollNanoseconds: UInt64
  let callerRepollNanoseconds: UInt64
  let epoll: Int32
  private let eventWaker: LoopWaker
  private let finished = DispatchSemaphore(value: 0)
  private var started = false

  let token = LoopToken()
  // The token's:
  var handler: (any EventLoopHandler)?
  private var channels: [Int: Channel] = [:]
  /// When the handler wants its next turn at the latest.
  var deadline: UInt64 = 0
  var ownSleep = OwnSleep.none
  /// Until when the guest sleeps.
  var guestSleepsUntil = UInt64.max
  /// Whether there was a guest since the loop's own thread last looked.
  var hadGuest = false
  /// Whether a wake-up was seen that may have been meant for the guest.
  var sawWakeup = false
  private var isRunning = false
  var callerTurns: UInt64 = 0
  var callerRepoll = AdaptiveRepoll()

  private struct Channel {
    let descriptor: Int32
    var interest: UInt32
  }

  /// How the loop's own thread sleeps; with the time at which it wakes by itself.
  enum OwnSleep {
    case none
    /// In epoll: woken by sockets.
    case polling(until: UInt64)
    /// Aside: a guest watches the sockets, or has just left and will most likely be back.
    case aside(until: UInt64)
  }

  let isSeatTaken = Atomic<Bool>(false)
  let aside = Aside()
  private let stopping = Atomic<Bool>(false)
  private let wakeupCount = Atomic<UInt64>(0)
  private let waitCount = Atomic<UInt64>(0)
  private let threadClock = Atomic<Int32>(0)
  let callerCPU = Atomic<UInt64>(0)

  static let maximumEvents = 64
  private static let wakeChannel = UInt64.max
  private static let readable = UInt32(CWEIR_READABLE)
  private static let writable = UInt32(CWEIR_WRITABLE)
  private static let failed = UInt32(CWEIR_FAILED)

  init(label: String, configuration: EventLoopConfiguration) throws(TransportError) {
    queue = DispatchQueue(label: label)
    repollNanoseconds = configuration.repollNanoseconds
    callersDrive = configuration.callersDrive
    callerRepollNanoseconds = configuration.callerRepollNanoseconds
    eventWaker = try LoopWaker()
    epoll = cweir_epoll_create()
    guard epoll >= 0 else { throw .systemCall("epoll_create", errno: errno) }
    // Edge-triggered: each write to the eventfd is one event, and nobody has to read it back.
    let added = cweir_epoll_add(
      epoll, eventWaker.descriptor, Self.readable | UInt32(CWEIR_EDGE_TRIGGERED), Self.wakeChannel)
    precondition(added == 0, "an eventfd can be waited for")
  }

  deinit {
    for channel in channels.values { Socket.close(channel.descriptor) }
    Socket.close(epoll)
  }

  func start(_ handler: sending any EventLoopHandler) {
    precondition(!started, "an event loop is started once")
    started = true
    nonisolated(unsafe) let handler = handler
    queue.async { [self] in
      token.adopt()
      unsafe self.handler = handler
      unsafe run(handler)
      finished.signal()
    }
  }

  func register(descriptor: Int32, channel: Int) {
    precondition(channels[channel] == nil, "channel \(channel) is taken")
    channels[channel] = Channel(descriptor: descriptor, interest: Self.readable)
    // Level-triggered: what one thread was told and did not read, the next is told again.
    let added = cweir_epoll_add(epoll, descriptor, Self.readable, UInt64(channel))
    precondition(added == 0, "the system waits for no more descriptors, or not for this kind: errno \(errno)")
  }

  func setWriteInterest(channel: Int, _ enabled: Bool) {
    setInterest(channel, Self.writable, enabled)
  }

  func setReadInterest(channel: Int, _ enabled: Bool) {
    setInterest(channel, Self.readable, enabled)
  }

  private func setInterest(_ channel: Int, _ event: UInt32, _ enabled: Bool) {
    guard var entry = channels[channel] else { return }
    entry.interest = enabled ? entry.interest | event : entry.interest & ~event
    channels[channel] = entry
    _ = cweir_epoll_change(epoll, entry.descriptor, entry.interest, UInt64(channel))
  }

  func close(channel: Int) {
    guard let entry = channels.removeValue(forKey: channel) else { return }
    _ = cweir_epoll_remove(epoll, entry.descriptor)
    Socket.close(entry.descriptor)
  }

  func wake() {
    // Taken: whoever holds it looks for work after giving it back.
    guard !token.isTaken else { return }
    wakeOwnThread()
  }

  /// Has the loop's own thread, or a guest, look at once.
  func wakeOwnThread() {
    if !aside.wake() { eventWaker.notify() }
  }

  func stop() {
    guard started else { return }
    stopping.store(true, ordering: .sequentiallyConsistent)
    _ = aside.wake()
    eventWaker.notify()
    finished.wait()
    finished.signal()
    // A guest that still sleeps finds the token closed.
    eventWaker.notify()
  }

  var isStopping: Bool { stopping.load(ordering: .sequentiallyConsistent) }

  var waker: LoopWaker? { callersDrive ? eventWaker : nil }

  var wakeups: UInt64 { wakeupCount.load(ordering: .relaxed) }

  var systemCalls: EventLoopSystemCalls? {
    EventLoopSystemCalls(
      waits: waitCount.load(ordering: .relaxed), notifications: eventWaker.notifications + aside.wakes)
  }

  /// Of callers' turns, one in sixteen is measured.
  var cpuNanoseconds: UInt64? {
    let clock = threadClock.load(ordering: .acquiring)
    guard clock != 0 else { return nil }
    var time = timespec()
    guard unsafe clock_gettime(clock, &time) == 0 else { return nil }
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec) + callerCPU.load(ordering: .relaxed)
  }

  // MARK: The loop's own thread

  private func run(_ handler: any EventLoopHandler) {
    var clock = clockid_t()
    if unsafe pthread_getcpuclockid(pthread_self(), &clock) == 0 {
      threadClock.store(clock, ordering: .releasing)
    }
    let events = UnsafeMutableBufferPointer<cweir_event>.allocate(capacity: Self.maximumEvents)
    defer { unsafe events.deallocate() }
    turn(handler)
    while !stopping.load(ordering: .relaxed) {
      let count = handler.eventLoopHasWork ? unsafe poll(events, timeout: 0) : unsafe sleep(events, handler)
      unsafe dispatch(events, count, to: handler)
      turn(handler)
    }
    token.close()
    // The thread goes back to Dispatch, which may end it: its clock means nothing from here on.
    threadClock.store(0, ordering: .releasing)
  }

  /// Polls again as long as the settings say, then sleeps until an event, a wake-up or `deadline`.
  @unsafe
  private func sleep(_ events: UnsafeMutableBufferPointer<cweir_event>, _ handler: any EventLoopHandler) -> Int {
    if repollNanoseconds > 0 {
      let end = min(deadline, cweir_monotonic_nanoseconds() + repollNanoseconds)
      repeat {
        if handler.eventLoopHasWork || stopping.load(ordering: .relaxed) { return 0 }
        let count = unsafe poll(events, timeout: 0)
        if count > 0 { return count }
      } while cweir_monotonic_nanoseconds() < end
    }
    let hasGuest = isSeatTaken.load(ordering: .relaxed)
    if hasGuest || (hadGuest && handler.eventLoopAwaited == 0) {
      unsafe stepAside(handler, forGuest: hasGuest)
      return isSeatTaken.load(ordering: .relaxed) ? 0 : unsafe poll(events, timeout: 0)
    }
    let now = cweir_monotonic_nanoseconds()
    if deadline <= now { return 0 }
    let timeout = min(deadline - now, 60_000_000_000)
    ownSleep = .polling(until: deadline)
    token.give()
    // What was posted while the token was taken came without a wake-up: look once more. Where another has taken the
    // token meanwhile, it looks afterwards.
    if handler.eventLoopHasWork || isStopping, token.tryTake() {
      ownSleep = .none
      return 0
    }
    let count = unsafe poll(events, timeout: Int64(timeout))
    noteWakeup()
    token.take()
    ownSleep = .none
    return count
  }

  /// Leaves the sockets to the guest. In the seat one thread alone polls: a second one would be woken beside it for
  /// every message. The guest that leaves wakes this thread only if somebody waits for the node, or it has to be
  /// up earlier; otherwise this looks again after a moment, in which the same guest has most likely come back.
  @unsafe
  private func stepAside(_ handler: any EventLoopHandler, forGuest hasGuest: Bool) {
    // A wake-up may have been meant for the guest. It is the only one that polls from here on.
    if hasGuest, sawWakeup { eventWaker.notify() }
    sawWakeup = false
    let now = cweir_monotonic_nanoseconds()
    // A guest that has been there all the time is not waited for: it wakes this thread when it leaves.
    let until = hasGuest && !hadGuest ? now + 60_000_000_000 : now + Self.asideNanoseconds
    hadGuest = false
    ownSleep = .aside(until: until)
    let number = aside.begin()
    token.give()
    if !(handler.eventLoopHasWork || isStopping) { unsafe aside.sleep(number, nanoseconds: until - now) }
    aside.end()
    noteWakeup()
    token.take()
    ownSleep = .none
  }

  /// How long the sockets are left alone at most after a guest has left and nobody waits for anything.
  private static let asideNanoseconds: UInt64 = 1_000_000

  private func noteWakeup() { wakeupCount.wrappingAdd(1, ordering: .relaxed) }

  // MARK: Whoever holds the token

  /// Asks for readiness. Without the token, by one thread in its turn to sleep.
  @unsafe
  func poll(_ events: UnsafeMutableBufferPointer<cweir_event>, timeout: Int64) -> Int {
    waitCount.wrappingAdd(1, ordering: .relaxed)
    let count = unsafe cweir_epoll_wait(epoll, events.baseAddress, Int32(events.count), timeout)
    return count > 0 ? Int(count) : 0
  }

  /// Hands events to the handler.
  /// - Returns: whether there was one of a socket.
  @unsafe
  @discardableResult
  func dispatch(
    _ events: UnsafeMutableBufferPointer<cweir_event>, _ count: Int, to handler: any EventLoopHandler
  ) -> Bool {
    var hasSocket = false
    precondition(!isRunning, "one thread runs the loop")
    isRunning = true
    for index in 0..<count {
      let event = unsafe events[index]
      if event.data == Self.wakeChannel {
        eventWaker.clear()
        sawWakeup = true
      } else {
        hasSocket = true
        dispatch(event, to: handler)
      }
    }
    precondition(isRunning, "one thread runs the loop")
    isRunning = false
    return hasSocket
  }

  private func dispatch(_ event: cweir_event, to handler: any EventLoopHandler) {
    let token = Int(event.data)
    // An earlier event of the same round may have closed it, or a turn since these events were taken from the system.
    guard channels[token] != nil else { return }
    if event.events & Self.writable != 0 { handler.eventLoopWritable(channel: token) }
    guard channels[token] != nil else { return }
    if event.events & (Self.readable | Self.failed) != 0 { handler.eventLoopReadable(channel: token) }
  }

  func turn(_ handler: any EventLoopHandler, byCaller: Bool = false) {
    precondition(!isRunning, "one thread runs the loop")
    isRunning = true
    deadline = byCaller ? handler.eventLoopCallerTurn() : handler.eventLoopTurn()
    precondition(isRunning, "one thread runs the loop")
    isRunning = false
  }

  /// Events that were taken from the system and are not handled: those of sockets are told again.
  @unsafe
  func drop(_ events: UnsafeMutableBufferPointer<cweir_event>, _ count: Int) {
    for index in 0..<count where unsafe events[index].data == Self.wakeChannel { eventWaker.clear() }
  }

  func noteGuestWakeup() { noteWakeup() }
  func notifyGuest() { eventWaker.notify() }
}
