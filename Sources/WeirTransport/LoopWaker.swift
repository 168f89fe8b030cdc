import CWeir
import Glibc
import Synchronization

/// Ends a sleep in an event loop's poll, from any thread. Outlives the loop where somebody may still call it, so that the
/// number of a descriptor that is used for something else by then is never written to.
public final class LoopWaker: Sendable {
  let descriptor: Int32
  /// Whether a wake-up has been written that nobody has seen yet: one is enough.
  private let isPending = Atomic<Bool>(false)
  private let count = Atomic<UInt64>(0)

  init() throws(TransportError) {
    descriptor = cweir_eventfd()
    guard descriptor >= 0 else { throw .systemCall("eventfd", errno: errno) }
  }

  deinit { Socket.close(descriptor) }

  /// Has whoever polls the loop, or does so next, come back at once.
  public func notify() {
    guard !isPending.exchange(true, ordering: .sequentiallyConsistent) else { return }
    count.wrappingAdd(1, ordering: .relaxed)
    cweir_eventfd_notify(descriptor)
  }

  /// The wake-up has been seen. Before looking at what it was for: what comes later writes another.
  func clear() { isPending.store(false, ordering: .sequentiallyConsistent) }

  var notifications: UInt64 { count.load(ordering: .relaxed) }
}
