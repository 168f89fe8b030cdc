import Dispatch
import Synchronization

/// The queue on which the application's hooks run, in order, with a bound on what waits.
final class HookQueue: Sendable {
  let hooks: GossipHooks
  private let queue: DispatchQueue
  private let waiting = Atomic<Int>(0)
  private let dropped = Atomic<Int>(0)
  private let limit: Int

  init(hooks: GossipHooks, name: String, limit: Int) {
    self.hooks = hooks
    self.limit = max(1, limit)
    queue = DispatchQueue(label: "weir.gossip.hooks.\(name)")
  }

  /// Calls that were dropped because too many waited.
  var droppedCalls: Int { dropped.load(ordering: .relaxed) }

  /// Runs `call` later, unless too many wait already.
  ///
  /// - Returns: whether it will run. What must be answered whatever happens is answered by the caller if it will not.
  @discardableResult
  func call(_ call: @escaping @Sendable (GossipHooks) -> Void) -> Bool {
    guard waiting.add(1, ordering: .relaxed).newValue <= limit else {
      waiting.subtract(1, ordering: .relaxed)
      dropped.add(1, ordering: .relaxed)
      return false
    }
    queue.async { [self] in
      waiting.subtract(1, ordering: .relaxed)
      call(hooks)
    }
    return true
  }
}
