import CWeir
import Dispatch
import Foundation
import Synchronization
import TestSupport
import Testing

@testable import WeirTransport

/// The rule by which threads run a loop in turn: one at a time, and nothing that was posted is left lying.
@Suite struct CallerDrivenLoopTests {
  /// Counts what was posted, with words that only the rule protects.
  private final class Counting: EventLoopHandler, @unchecked Sendable {
    let hasWork = Atomic<Bool>(false)
    let posted = Atomic<Int>(0)
    let seen = Atomic<Int>(0)
    let callerTurns = Atomic<Int>(0)
    let awaited = Atomic<Int>(0)
    private var isInside = false
    private var plain = 0

    var eventLoopHasWork: Bool { hasWork.load(ordering: .sequentiallyConsistent) }
    var eventLoopAwaited: Int { awaited.load(ordering: .relaxed) }
    func eventLoopReadable(channel: Int) {}
    func eventLoopWritable(channel: Int) {}

    func eventLoopTurn() -> UInt64 {
      precondition(!isInside, "two threads are in the loop")
      isInside = true
      hasWork.store(false, ordering: .sequentiallyConsistent)
      plain = posted.load(ordering: .sequentiallyConsistent)
      seen.store(plain, ordering: .sequentiallyConsistent)
      isInside = false
      // Far away: who is not woken is not saved by the clock.
      return cweir_monotonic_nanoseconds() + 3_600_000_000_000
    }

    func eventLoopCallerTurn() -> UInt64 {
      callerTurns.wrappingAdd(1, ordering: .relaxed)
      return eventLoopTurn()
    }

    func post(_ loop: any EventLoop, drives: Bool) {
      posted.wrappingAdd(1, ordering: .sequentiallyConsistent)
      guard !hasWork.exchange(true, ordering: .sequentiallyConsistent) else { return }
      if drives { loop.wakeOrDrive(isResident: false) } else { loop.wake() }
    }
  }

  private func makeLoop(_ mechanism: ReadinessMechanism, callersDrive: Bool = true) throws -> (any EventLoop, Counting)
  {
    let loop = try EventLoopConfiguration(mechanism: mechanism, callersDrive: callersDrive).makeLoop(
      label: "test.drive")
    let handler = Counting()
    nonisolated(unsafe) let started: any EventLoopHandler = handler
    loop.start(started)
    return (loop, handler)
  }

  @Test(arguments: ReadinessMechanism.allCases, [true, false])
  func nothingThatIsPostedIsLeftLying(mechanism: ReadinessMechanism, callersDrive: Bool) throws {
    let (loop, handler) = try makeLoop(mechanism, callersDrive: callersDrive)
    defer { loop.stop() }
    for round in 1...40 {
      onThreads(6) { number in
        for step in 0..<50 {
          handler.post(loop, drives: number % 3 != 0)
          if step % 16 == number { usleep(50) }
        }
      }
      #expect(eventually { handler.seen.load(ordering: .sequentiallyConsistent) == round * 300 })
    }
    if mechanism == .pollLoop, callersDrive {
      #expect(handler.callerTurns.load(ordering: .relaxed) > 0)
    } else {
      #expect(handler.callerTurns.load(ordering: .relaxed) == 0)
    }
  }

  private final class Flag: Sendable {
    let isSet = Atomic<Bool>(true)
    let stays = Atomic<Int>(0)
  }

  /// A guest is let out by whoever has its answer, whichever thread that is, and the loop goes on when it has left.
  @Test func aGuestIsLetOutAndTheLoopGoesOn() throws {
    let (loop, handler) = try makeLoop(.pollLoop)
    defer { loop.stop() }
    let waker = try #require(loop.waker)
    let stays = Atomic<Int>(0)
    for round in 1...300 {
      let flag = Flag()
      handler.awaited.store(1, ordering: .relaxed)
      let done = DispatchSemaphore(value: 0)
      Thread {
        // Early, in the middle, or late: also before it has begun to wait.
        usleep(UInt32(round % 7) * 20)
        handler.post(loop, drives: round % 2 == 0)
        flag.isSet.store(false, ordering: .sequentiallyConsistent)
        waker.notify()
        done.signal()
      }.start()
      let deadline = cweir_monotonic_nanoseconds() + 60_000_000_000
      while flag.isSet.load(ordering: .sequentiallyConsistent) {
        if loop.host(
          untilNanoseconds: deadline, while: { flag.isSet.load(ordering: .sequentiallyConsistent) })
        {
          stays.wrappingAdd(1, ordering: .relaxed)
        }
        sched_yield()
      }
      #expect(cweir_monotonic_nanoseconds() < deadline)
      done.wait()
      handler.awaited.store(0, ordering: .relaxed)
      #expect(eventually { handler.seen.load(ordering: .sequentiallyConsistent) == round })
    }
    #expect(stays.load(ordering: .relaxed) > 0)
  }

  @Test func oneGuestAtATimeAndOnlyOneThatWaitsAlone() throws {
    let (loop, handler) = try makeLoop(.pollLoop)
    defer { loop.stop() }
    let now = cweir_monotonic_nanoseconds()
    for awaited in [0, 2] {
      handler.awaited.store(awaited, ordering: .relaxed)
      #expect(!loop.host(untilNanoseconds: now + 60_000_000_000, while: { true }))
    }
    handler.awaited.store(1, ordering: .relaxed)
    let flag = Flag()
    let left = DispatchSemaphore(value: 0)
    Thread {
      while flag.isSet.load(ordering: .sequentiallyConsistent) {
        _ = loop.host(
          untilNanoseconds: now + 600_000_000_000,
          while: {
            flag.stays.store(1, ordering: .sequentiallyConsistent)
            return flag.isSet.load(ordering: .sequentiallyConsistent)
          })
      }
      left.signal()
    }.start()
    #expect(eventually { flag.stays.load(ordering: .sequentiallyConsistent) == 1 })
    #expect(!loop.host(untilNanoseconds: now + 60_000_000_000, while: { true }))
    // The seat's owner takes up what others post.
    handler.post(loop, drives: false)
    #expect(eventually { handler.seen.load(ordering: .sequentiallyConsistent) == 1 })
    flag.isSet.store(false, ordering: .sequentiallyConsistent)
    loop.waker?.notify()
    left.wait()
  }

  /// Threads go on driving and waiting while the loop is stopped: `stop` returns, and so do they, and nothing runs after it.
  @Test func aLoopIsStoppedUnderItsCallers() throws {
    for round in 0..<60 {
      let (loop, handler) = try makeLoop(.pollLoop)
      handler.awaited.store(round % 2, ordering: .relaxed)
      let flag = Flag()
      let started = DispatchSemaphore(value: 0)
      let ended = DispatchGroup()
      for number in 0..<4 {
        ended.enter()
        Thread {
          started.signal()
          while flag.isSet.load(ordering: .sequentiallyConsistent) {
            if number < 2 {
              handler.post(loop, drives: true)
            } else {
              _ = loop.host(
                untilNanoseconds: cweir_monotonic_nanoseconds() + 60_000_000_000,
                while: { flag.isSet.load(ordering: .sequentiallyConsistent) })
            }
          }
          ended.leave()
        }.start()
      }
      for _ in 0..<4 { started.wait() }
      usleep(UInt32(round) * 10)
      loop.stop()
      let seen = handler.seen.load(ordering: .sequentiallyConsistent)
      usleep(100)
      #expect(handler.seen.load(ordering: .sequentiallyConsistent) == seen)
      flag.isSet.store(false, ordering: .sequentiallyConsistent)
      ended.wait()
    }
  }

  @Test func pollingAgainIsLeftOffWhereItBringsNothing() {
    var repoll = AdaptiveRepoll()
    var tries = 0
    for _ in 0..<1000 where repoll.isDue() {
      tries += 1
      repoll.note(succeeded: false)
    }
    #expect(tries < 30)
    while !repoll.isDue() {}
    repoll.note(succeeded: true)
    for _ in 0..<1000 {
      let isDue = repoll.isDue()
      #expect(isDue)
      repoll.note(succeeded: true)
    }
  }
}
