import CWeir
import Glibc
import Synchronization

/// The loop run by threads that ask something of it; `PollLoop` says by which rule.
extension PollLoop {
  func wakeOrDrive(isResident: Bool) {
    guard callersDrive else { return wake() }
    // Taken: whoever holds it looks for work after giving it back. That includes this very thread, within a callback.
    guard token.tryTake() else { return }
    // Only the first request that waits: under load the loop's own thread takes whole batches, and guests do their part.
    if let handler, !isStopping, handler.eventLoopAwaited == 0 {
      withMeasuredCPU { turn(handler, byCaller: true) }
    }
    giveBack(isResident: isResident)
  }

  func host(untilNanoseconds end: UInt64, while isWaiting: () -> Bool) -> Bool {
    guard callersDrive, token.tryTake() else { return false }
    // One that waits alone: with more of them, one thread's answer would be another's delay.
    guard let handler, !isStopping, handler.eventLoopAwaited == 1,
      !isSeatTaken.exchange(true, ordering: .sequentiallyConsistent)
    else {
      giveBack(isResident: false)
      return false
    }
    hadGuest = true
    withMeasuredCPU { serve(handler, untilNanoseconds: end, while: isWaiting) }
    return true
  }

  /// The guest's part, with the token at first and without it at the end.
  private func serve(_ handler: any EventLoopHandler, untilNanoseconds end: UInt64, while isWaiting: () -> Bool) {
    unsafe withUnsafeTemporaryAllocation(of: cweir_event.self, capacity: Self.maximumEvents) { events in
      while isWaiting(), !isStopping {
        let now = cweir_monotonic_nanoseconds()
        if handler.eventLoopHasWork || deadline <= now {
          turn(handler)
          continue
        }
        if now >= end { break }
        guestSleepsUntil = min(end, deadline)
        let timeout = min(guestSleepsUntil - now, 60_000_000_000)
        let isRepolling = callerRepollNanoseconds > 0 && callerRepoll.isDue()
        token.give()
        var count = 0
        var isAsleep = false
        // Posted while the token was taken, without a wake-up.
        if !handler.eventLoopHasWork, isWaiting() {
          if isRepolling { count = unsafe pollAgain(events, while: isWaiting) }
          isAsleep = count == 0 && !handler.eventLoopHasWork
          if isAsleep {
            count = unsafe poll(events, timeout: Int64(timeout))
            noteGuestWakeup()
          }
        }
        guard token.tryTakeShortly() else {
          // Another thread runs the loop, and goes on: this one does not wait for it. What it was told of the sockets
          // the next one is told again; what a wake-up was for, the loop's own thread shall see.
          unsafe drop(events, count)
          isSeatTaken.store(false, ordering: .sequentiallyConsistent)
          return wakeOwnThread()
        }
        if isRepolling { callerRepoll.note(succeeded: !isAsleep) }
        if unsafe dispatch(events, count, to: handler) { turn(handler) }
        sawWakeup = false
      }
      isSeatTaken.store(false, ordering: .sequentiallyConsistent)
      giveBack(isResident: true)
    }
  }

  /// Polls for a bounded time. Between two looks the processor goes to whoever wants it: on one core that is the follower
  /// whose answer is waited for.
  @unsafe
  private func pollAgain(_ events: UnsafeMutableBufferPointer<cweir_event>, while isWaiting: () -> Bool) -> Int {
    let end = cweir_monotonic_nanoseconds() + callerRepollNanoseconds
    repeat {
      let count = unsafe poll(events, timeout: 0)
      if count > 0 || !isWaiting() { return count }
      sched_yield()
    } while cweir_monotonic_nanoseconds() < end
    return 0
  }

  /// Gives the token back for good, and leaves nobody asleep who has to be awake.
  /// - Parameter isResident: whether this thread was a guest the last time that it waited, and will be again.
  private func giveBack(isResident: Bool) {
    let mustWake = needsWakeup(isResident: isResident)
    let handler = handler
    token.give()
    // Posted while the token was taken, without a wake-up. If it is taken by now, its holder looks.
    if mustWake { wakeOwnThread() } else if handler?.eventLoopHasWork ?? false { wake() }
    // The wake-up that says so may have come to this thread.
    if isStopping { wakeOwnThread() }
  }

  /// Whether those who watch the sockets and the clock sleep too long for what has happened.
  private func needsWakeup(isResident: Bool) -> Bool {
    if isSeatTaken.load(ordering: .relaxed) {
      if deadline < guestSleepsUntil { notifyGuest() }
      return false
    }
    switch ownSleep {
    case .none: return false
    case .polling(let until): return deadline < until
    case .aside(let until):
      return deadline < until || (handler?.eventLoopAwaited ?? 0) > (isResident ? 1 : 0)
    }
  }

  /// The CPU time of callers' turns is the loop's. The thread's clock is a system call, so every sixteenth counts for all.
  private func withMeasuredCPU(_ body: () -> Void) {
    callerTurns &+= 1
    guard callerTurns & 15 == 0 else { return body() }
    let before = Self.threadNanoseconds
    body()
    callerCPU.wrappingAdd((Self.threadNanoseconds &- before) &* 16, ordering: .relaxed)
  }

  private static var threadNanoseconds: UInt64 {
    var time = timespec()
    guard unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0 else { return 0 }
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
