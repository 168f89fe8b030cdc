import Synchronization

/// What a running node shows to other threads, without asking its queue.
final class PublishedState: Sendable {
  private struct State {
    var members: [Member]
    var local: Member
    var healthScore = 0
    var statistics = GossipStatistics()
    var subscribers: [Int: AsyncStream<MemberEvent>.Continuation] = [:]
    var lastSubscriber = 0
    var isFinished = false
  }

  private let state: Mutex<State>

  init(local: Member) {
    state = Mutex(State(members: [local], local: local))
  }

  var members: [Member] { state.withLock { $0.members } }
  var local: Member { state.withLock { $0.local } }
  var healthScore: Int { state.withLock { $0.healthScore } }
  var statistics: GossipStatistics { state.withLock { $0.statistics } }

  func update(members: [Member], local: Member) {
    state.withLock {
      $0.members = members
      $0.local = local
    }
  }

  func update(healthScore: Int) {
    state.withLock { $0.healthScore = healthScore }
  }

  func update(statistics: GossipStatistics) {
    state.withLock { $0.statistics = statistics }
  }

  func send(_ event: MemberEvent) {
    let subscribers = state.withLock { $0.subscribers }
    for subscriber in subscribers.values { subscriber.yield(event) }
  }

  /// A new sequence of the events from now on. It keeps `limit` events that are not yet consumed and drops later ones.
  func events(limit: Int) -> AsyncStream<MemberEvent> {
    let (stream, continuation) = AsyncStream.makeStream(
      of: MemberEvent.self, bufferingPolicy: .bufferingOldest(limit))
    let identifier = state.withLock { state -> Int? in
      guard !state.isFinished else { return nil }
      state.lastSubscriber += 1
      state.subscribers[state.lastSubscriber] = continuation
      return state.lastSubscriber
    }
    guard let identifier else {
      continuation.finish()
      return stream
    }
    continuation.onTermination = { [weak self] _ in
      _ = self?.state.withLock { $0.subscribers.removeValue(forKey: identifier) }
    }
    return stream
  }

  func finish() {
    let subscribers = state.withLock { state in
      state.isFinished = true
      return state.subscribers
    }
    for subscriber in subscribers.values { subscriber.finish() }
  }
}
