import CWeir
import Glibc
import Synchronization

/// The right to run an event loop: whoever holds it may touch the loop's handler, and nobody else.
///
/// A lock that can be closed for good and that knows who holds it. Nobody may rely on getting it in turn.
///
/// Sendable: the words are atomic.
@safe
final class LoopToken: @unchecked Sendable {
  private static let free: UInt32 = 0
  private static let held: UInt32 = 1
  /// Held, and somebody sleeps until it is given back.
  private static let contended: UInt32 = 2
  private static let closed: UInt32 = 3

  /// On the heap at an address of its own, which the futex call needs.
  private let word: UnsafeMutablePointer<Atomic<UInt32>>
  /// The thread that holds it; 0: none. What is said of it can be relied on by that thread alone.
  private let owner = Atomic<UInt>(0)

  /// A token that is held from the beginning, by whoever calls `adopt`.
  init() {
    unsafe word = .allocate(capacity: 1)
    unsafe word.initialize(to: Atomic(Self.held))
  }

  deinit {
    unsafe word.deinitialize(count: 1)
    unsafe word.deallocate()
  }

  /// Makes the calling thread the one that holds a new token.
  func adopt() {
    precondition(isTaken, "a new token is adopted once")
    owned()
  }

  /// Whether somebody holds it at this moment, or for good.
  var isTaken: Bool { unsafe word.pointee.load(ordering: .sequentiallyConsistent) != Self.free }

  /// Takes it if it is free. Never from within a turn: that finds its own token taken.
  func tryTake() -> Bool {
    let result = unsafe word.pointee.compareExchange(
      expected: Self.free, desired: Self.held, ordering: .sequentiallyConsistent)
    guard result.exchanged else { return false }
    owned()
    return true
  }

  /// Takes it, looking a few times if need be, without sleeping.
  func tryTakeShortly() -> Bool {
    for _ in 0..<Self.spins {
      if unsafe word.pointee.load(ordering: .relaxed) == Self.free, tryTake() { return true }
    }
    return false
  }

  /// Takes it, and sleeps until that is possible. Only the loop's own thread calls it, which alone can close it.
  func take() {
    if tryTakeShortly() { return }
    precondition(owner.load(ordering: .relaxed) != pthread_self(), "the token is not taken twice")
    while true {
      // As contended: whether others sleep is not known.
      let result = unsafe word.pointee.compareExchange(
        expected: Self.free, desired: Self.contended, ordering: .sequentiallyConsistent)
      if result.exchanged { return owned() }
      precondition(result.original != Self.closed, "a closed token is not taken")
      if result.original == Self.held {
        _ = unsafe word.pointee.compareExchange(
          expected: Self.held, desired: Self.contended, ordering: .sequentiallyConsistent)
      }
      unsafe cweir_futex_wait(address, Self.contended, 1_000_000_000)
    }
  }

  func give() {
    precondition(owner.load(ordering: .relaxed) == pthread_self(), "who gives the token back holds it")
    owner.store(0, ordering: .relaxed)
    let before = unsafe word.pointee.exchange(Self.free, ordering: .sequentiallyConsistent)
    precondition(before == Self.held || before == Self.contended, "the token was taken before it is given back")
    if before == Self.contended { unsafe cweir_futex_wake(address) }
  }

  /// Nobody takes it any more.
  func close() {
    precondition(owner.load(ordering: .relaxed) == pthread_self(), "who closes the token holds it")
    unsafe word.pointee.store(Self.closed, ordering: .sequentiallyConsistent)
  }

  /// A few hundred nanoseconds: a holder that runs on another core may be about to finish.
  private static let spins = 200

  private func owned() {
    precondition(owner.load(ordering: .relaxed) == 0, "one thread holds the token")
    owner.store(pthread_self(), ordering: .relaxed)
  }

  @unsafe
  private var address: UnsafePointer<UInt32> {
    unsafe UnsafePointer(UnsafeRawPointer(word).assumingMemoryBound(to: UInt32.self))
  }
}
