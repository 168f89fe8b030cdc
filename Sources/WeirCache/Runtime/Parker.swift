import CWeir
import Synchronization

/// Lets one thread sleep until another has something for it. A notification that comes before the sleep is not lost.
///
/// Sendable: the word is atomic and lives as long as the object.
@safe
public final class Parker: @unchecked Sendable {
  private static let empty: UInt32 = 0
  private static let notified: UInt32 = 1
  private static let parked: UInt32 = 2

  /// On the heap at an address of its own, which the futex call needs.
  private let word: UnsafeMutablePointer<Atomic<UInt32>>

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
    guard unsafe word.pointee.exchange(Self.notified, ordering: .acquiringAndReleasing) == Self.parked else { return }
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

  /// Takes a waiting notification away, if there is one.
  public func clear() { _ = unsafe word.pointee.exchange(Self.empty, ordering: .acquiringAndReleasing) }

  @unsafe
  private var address: UnsafePointer<UInt32> {
    unsafe UnsafePointer(UnsafeRawPointer(word).assumingMemoryBound(to: UInt32.self))
  }
}
