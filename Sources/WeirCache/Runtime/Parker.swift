import CWeir
import Glibc
import Synchronization
import WeirTransport

/// Lets one thread sleep until another has something for it. A notification that comes before the sleep is not lost.
///
/// Sendable: the word is atomic and lives as long as the object; `lastWaker` belongs to the thread that parks.
@safe
public final class Parker: @unchecked Sendable {
  private static let empty: UInt32 = 0
  private static let notified: UInt32 = 1
  private static let parked: UInt32 = 2
  /// Sleeps inside of an event loop, which it runs meanwhile: with the place of the loop's waker above these bits.
  private static let hosted: UInt32 = 3

  /// On the heap at an address of its own, which the futex call needs.
  private let word: UnsafeMutablePointer<Atomic<UInt32>>

  /// What wakes the loops that this parker has slept in. They are kept for as long as somebody may still call them: a waker
  /// that has just been read from the word.
  private let wakers = Mutex<[LoopWaker]>([])
  /// The owner's: where it slept last.
  private var lastWaker: (waker: ObjectIdentifier, word: UInt32)?
  private static let maximumWakers = 64
  /// The thread that sleeps inside of a loop, set before the word says that it does.
  private let hostedThread = Atomic<UInt>(0)

  private static let sleepCount = Atomic<UInt64>(0)
  private static let wakeCount = Atomic<UInt64>(0)

  /// What all parkers of this process have asked of the kernel: sleeps, and wake-ups of a sleeper. Counted where a system
  /// call is made anyway.
  public static var systemCalls: (sleeps: UInt64, wakes: UInt64) {
    (sleepCount.load(ordering: .relaxed), wakeCount.load(ordering: .relaxed))
  }

  public init() {
    unsafe word = .allocate(capacity: 1)
    unsafe word.initialize(to: Atomic(Self.empty))
  }

  deinit {
    unsafe word.deinitialize(count: 1)
    unsafe word.deallocate()
  }

  /// Wakes the sleeper, or keeps the next sleep from beginning. A system call only if somebody sleeps.
  public func notify() {
    let before = unsafe word.pointee.exchange(Self.notified, ordering: .sequentiallyConsistent)
    guard before >= Self.parked else { return }
    if before & 3 == Self.hosted {
      // A guest that runs the loop itself is awake; what it was called for it finds in the word.
      guard hostedThread.load(ordering: .relaxed) != pthread_self() else { return }
      return wakers.withLock { $0[Int(before >> 2)] }.notify()
    }
    Self.wakeCount.wrappingAdd(1, ordering: .relaxed)
    unsafe cweir_futex_wake(address)
  }

  /// Sleeps until notified, or until `deadlineNanoseconds` (CLOCK_MONOTONIC), whichever is first. One thread at a time.
  public func park(untilNanoseconds deadline: UInt64) {
    if unsafe word.pointee.exchange(Self.empty, ordering: .acquiringAndReleasing) == Self.notified { return }
    let begun = unsafe word.pointee.compareExchange(
      expected: Self.empty, desired: Self.parked, ordering: .acquiringAndReleasing)
    guard begun.exchanged else {
      unsafe word.pointee.store(Self.empty, ordering: .releasing)
      return
    }
    while unsafe word.pointee.load(ordering: .acquiring) == Self.parked {
      let now = cweir_monotonic_nanoseconds()
      guard now < deadline else { break }
      Self.sleepCount.wrappingAdd(1, ordering: .relaxed)
      unsafe cweir_futex_wait(address, Self.parked, min(deadline - now, 1_000_000_000))
    }
    _ = unsafe word.pointee.exchange(Self.empty, ordering: .acquiringAndReleasing)
  }

  /// The same inside of `loop`, which this thread runs meanwhile if it may.
  /// - Returns: whether it did.
  func park(untilNanoseconds deadline: UInt64, in loop: any EventLoop) -> Bool {
    guard let waker = loop.waker, let hosted = hostedWord(waker) else {
      park(untilNanoseconds: deadline)
      return false
    }
    hostedThread.store(pthread_self(), ordering: .relaxed)
    let begun = unsafe word.pointee.compareExchange(
      expected: Self.empty, desired: hosted, ordering: .sequentiallyConsistent)
    guard begun.exchanged else {
      unsafe word.pointee.store(Self.empty, ordering: .releasing)
      return true
    }
    let wasHosted = loop.host(untilNanoseconds: deadline) {
      unsafe word.pointee.load(ordering: .sequentiallyConsistent) == hosted
    }
    let isNotified = unsafe word.pointee.exchange(Self.empty, ordering: .acquiringAndReleasing) == Self.notified
    if !wasHosted, !isNotified { park(untilNanoseconds: deadline) }
    return wasHosted
  }

  private func hostedWord(_ waker: LoopWaker) -> UInt32? {
    if let lastWaker, lastWaker.waker == ObjectIdentifier(waker) { return lastWaker.word }
    let place = wakers.withLock { wakers -> Int? in
      if let place = wakers.firstIndex(where: { $0 === waker }) { return place }
      guard wakers.count < Self.maximumWakers else { return nil }
      wakers.append(waker)
      return wakers.count - 1
    }
    guard let place else { return nil }
    let hosted = UInt32(place) << 2 | Self.hosted
    lastWaker = (ObjectIdentifier(waker), hosted)
    return hosted
  }

  /// Takes a waiting notification away, if there is one.
  public func clear() { _ = unsafe word.pointee.exchange(Self.empty, ordering: .acquiringAndReleasing) }

  @unsafe
  private var address: UnsafePointer<UInt32> {
    unsafe UnsafePointer(UnsafeRawPointer(word).assumingMemoryBound(to: UInt32.self))
  }
}
