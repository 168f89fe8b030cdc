/// Something that a membership has to do at a known time.
struct Deadline: Equatable {
  /// What is due. The identifier beside it says for whom, and a stale one is recognised and ignored when it
  /// fires, so nothing is ever searched for in the queue.
  enum Kind: UInt8 {
    /// Start the next probe.
    case probe
    /// Gossip to a few members.
    case gossip
    /// Exchange full state with one member.
    case pushPull
    /// The first wait of a probe is over; identifier = its sequence number.
    case probeTimeout
    /// The whole probe is over; identifier = its sequence number.
    case probeEnd
    /// A probe made for somebody else got no answer; identifier = its local sequence number.
    case relayTimeout
    /// A suspicion may have run out; identifier = the suspicion's own number.
    case suspicion
    /// A ping asked for by the application is over; identifier = its sequence number.
    case userPingTimeout
    /// A leave or an update has waited long enough; identifier = its number.
    case announcementTimeout
    /// Try to reach a remembered peer.
    case rejoin
  }

  var timeNanoseconds: UInt64
  var order: UInt64
  var identifier: UInt64
  var kind: Kind
}

/// A binary heap of deadlines, earliest first; those of one instant leave in the order in which they came.
///
/// The order of arrival matters: a probe that ends at the very tick at which the next begins must end first, or
/// every second tick would find the failure detector busy.
struct DeadlineQueue {
  private var heap: [Deadline] = []
  private var nextOrder: UInt64 = 0

  var count: Int { heap.count }

  /// The earliest time at which something is due, or `UInt64.max`.
  var earliestNanoseconds: UInt64 { heap.first?.timeNanoseconds ?? .max }

  mutating func add(_ kind: Deadline.Kind, identifier: UInt64 = 0, atNanoseconds time: UInt64) {
    heap.append(Deadline(timeNanoseconds: time, order: nextOrder, identifier: identifier, kind: kind))
    nextOrder &+= 1
    siftUp(from: heap.count - 1)
  }

  /// Removes and returns the earliest deadline if it is due.
  mutating func takeDue(nowNanoseconds now: UInt64) -> Deadline? {
    guard let first = heap.first, first.timeNanoseconds <= now else { return nil }
    let last = heap.removeLast()
    if !heap.isEmpty {
      heap[0] = last
      siftDown()
    }
    return first
  }

  private func isBefore(_ a: Deadline, _ b: Deadline) -> Bool {
    a.timeNanoseconds != b.timeNanoseconds ? a.timeNanoseconds < b.timeNanoseconds : a.order < b.order
  }

  private mutating func siftUp(from start: Int) {
    var child = start
    let moved = heap[child]
    while child > 0 {
      let parent = (child - 1) / 2
      guard isBefore(moved, heap[parent]) else { break }
      heap[child] = heap[parent]
      child = parent
    }
    heap[child] = moved
  }

  private mutating func siftDown() {
    let moved = heap[0]
    var parent = 0
    while true {
      var child = 2 * parent + 1
      guard child < heap.count else { break }
      if child + 1 < heap.count, isBefore(heap[child + 1], heap[child]) { child += 1 }
      guard isBefore(heap[child], moved) else { break }
      heap[parent] = heap[child]
      parent = child
    }
    heap[parent] = moved
  }
}
