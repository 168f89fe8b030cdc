import Synchronization
import WeirCore
import WeirTransport

/// The node's mailbox: what other threads leave for its queue, and the one flag that says whether to look.
///
/// Each lane has an inbox of its own, so that producers do not meet each other; what they share is the flag, and only
/// the first one after the node has looked has to wake it.
final class Intake: Sendable {
  private struct State {
    var newLanes: [Lane] = []
    var requests: [@Sendable (NodeLoop) -> Void] = []
    var isClosed = false
  }

  private let state = Mutex(State())
  let hasWork = Atomic<Bool>(false)
  private let loop: any EventLoop
  /// Whether a turn may write to a disk: then only those run one for what they have posted who will wait for it anyway.
  private let isDurable: Bool

  init(loop: any EventLoop, isDurable: Bool) {
    self.loop = loop
    self.isDurable = isDurable
  }

  /// Says that there is something to look at. Many may say it; one wakes the queue.
  func post() {
    guard !hasWork.load(ordering: .relaxed) || !hasWork.load(ordering: .sequentiallyConsistent) else { return }
    if !hasWork.exchange(true, ordering: .sequentiallyConsistent) { loop.wake() }
  }

  /// Says that a lane has something. Where the node sleeps, the calling thread may do what there is to do.
  func post(_ lane: Lane) {
    lane.isDirty.store(true, ordering: .sequentiallyConsistent)
    guard !hasWork.load(ordering: .sequentiallyConsistent) else { return }
    guard !hasWork.exchange(true, ordering: .sequentiallyConsistent) else { return }
    if isDurable, lane.callsOut {
      loop.wake()
    } else {
      loop.wakeOrDrive(isResident: lane.isResident.load(ordering: .relaxed))
    }
  }

  /// Has a lane served from the next turn on. Returns whether the node still runs.
  func register(_ lane: Lane) -> Bool {
    let isOpen = state.withLock { state in
      guard !state.isClosed else { return false }
      state.newLanes.append(lane)
      return true
    }
    if isOpen { post() }
    return isOpen
  }

  func takeNewLanes() -> [Lane] {
    state.withLock { state in
      guard !state.newLanes.isEmpty else { return [] }
      let lanes = state.newLanes
      state.newLanes.removeAll()
      return lanes
    }
  }

  /// Has `request` run on the node's queue. Returns whether the node still runs.
  func perform(_ request: @escaping @Sendable (NodeLoop) -> Void) -> Bool {
    let isOpen = state.withLock { state in
      guard !state.isClosed else { return false }
      state.requests.append(request)
      return true
    }
    if isOpen { post() }
    return isOpen
  }

  var hasRequests: Bool { state.withLock { !$0.requests.isEmpty } }

  func takeRequests() -> [@Sendable (NodeLoop) -> Void] {
    state.withLock { state in
      guard !state.requests.isEmpty else { return [] }
      let requests = state.requests
      state.requests.removeAll()
      return requests
    }
  }

  /// Takes nothing more.
  func close() { state.withLock { $0.isClosed = true } }

  var isClosed: Bool { state.withLock { $0.isClosed } }
}
