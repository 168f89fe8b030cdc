import CWeir
import Synchronization

/// Where a loop's own thread sleeps while somebody else watches its sockets.
///
/// Sendable: the words are atomic and live as long as the object.
@safe
final class Aside: @unchecked Sendable {
  /// Odd while the thread sleeps or is about to; on the heap at an address of its own, which the futex call needs.
  private let word: UnsafeMutablePointer<Atomic<UInt32>>
  private let wakeCount = Atomic<UInt64>(0)

  init() {
    unsafe word = .allocate(capacity: 1)
    unsafe word.initialize(to: Atomic(0))
  }

  deinit {
    unsafe word.deinitialize(count: 1)
    unsafe word.deallocate()
  }

  /// Says that the thread is about to sleep. Before the token is given back: a wake-up from then on is not lost.
  func begin() -> UInt32 {
    let number = unsafe word.pointee.wrappingAdd(1, ordering: .sequentiallyConsistent).newValue
    precondition(number & 1 == 1, "one thread stands aside, once")
    return number
  }

  /// Sleeps unless `wake` was called since `begin`.
  @unsafe
  func sleep(_ number: UInt32, nanoseconds: UInt64) {
    let pointer = unsafe UnsafePointer<UInt32>(UnsafeRawPointer(word).assumingMemoryBound(to: UInt32.self))
    let end = cweir_monotonic_nanoseconds() &+ nanoseconds
    while unsafe word.pointee.load(ordering: .acquiring) == number {
      let now = cweir_monotonic_nanoseconds()
      guard now < end else { return }
      unsafe cweir_futex_wait(pointer, number, end - now)
    }
  }

  func end() {
    let number = unsafe word.pointee.load(ordering: .relaxed)
    if number & 1 == 1 {
      _ = unsafe word.pointee.compareExchange(
        expected: number, desired: number &+ 1, ordering: .sequentiallyConsistent)
    }
    precondition(unsafe word.pointee.load(ordering: .relaxed) & 1 == 0, "who stood aside is back")
  }

  /// Wakes the thread. Returns whether it stood aside.
  func wake() -> Bool {
    let number = unsafe word.pointee.load(ordering: .sequentiallyConsistent)
    guard number & 1 == 1,
      unsafe word.pointee.compareExchange(
        expected: number, desired: number &+ 1, ordering: .sequentiallyConsistent
      ).exchanged
    else { return number & 1 == 1 }
    wakeCount.wrappingAdd(1, ordering: .relaxed)
    unsafe cweir_futex_wake(UnsafePointer(UnsafeRawPointer(word).assumingMemoryBound(to: UInt32.self)))
    return true
  }

  var wakes: UInt64 { wakeCount.load(ordering: .relaxed) }
}
