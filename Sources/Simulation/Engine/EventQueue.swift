/// What happens next, to whom.
enum EventKind: UInt8, Sendable {
  /// A node's clock ticks.
  case tick
  /// A message arrives; the argument is its slot.
  case deliver
  /// A node's disk has finished the oldest batch of writes.
  case diskDone
  /// A node's state machine has finished the oldest batch of entries.
  case applyDone
  /// A node goes on with what waits for it.
  case wake
  /// A client starts or retries an operation.
  case clientTurn
  /// A client's request arrives at a node; the argument is its slot.
  case request
  /// An answer arrives at a client; the argument is its slot.
  case answer
  /// A client gives up waiting; the argument is the attempt.
  case clientTimeout
  /// A fault of the plan begins; the argument is its position.
  case faultBegins
  /// A fault of the plan ends; the argument is its position.
  case faultEnds
  /// The network tells a node that a message or a snapshot did, or did not, get through; the argument is its slot.
  case report
  /// A crashed node starts again.
  case restart
  /// The phase of faults is over: everything heals.
  case healing
  /// The administrator looks after a membership change that is under way.
  case administration
  /// The run is over.
  case end
}

/// An event of the simulation, ordered by time and then by the order in which it was scheduled.
struct Event: Sendable {
  /// Virtual time in nanoseconds.
  var time: UInt64
  /// Breaks ties: the order of scheduling.
  var sequence: UInt64
  var argument: Int
  /// The node's life the event belongs to; void if the node has crashed since. 0 for events that survive crashes.
  var incarnation: UInt32
  /// Position of the node, or of the client.
  var subject: Int16
  var kind: EventKind
}

/// A binary heap of events. Its order is total, so it holds no choice of its own.
struct EventQueue: ~Copyable {
  private var heap: [Event] = []
  private var nextSequence: UInt64 = 0

  init(capacity: Int = 1024) { heap.reserveCapacity(capacity) }

  var count: Int { heap.count }

  /// Schedules an event at `time` nanoseconds.
  mutating func push(
    at time: UInt64, _ kind: EventKind, subject: Int = 0, argument: Int = 0, incarnation: UInt32 = 0
  ) {
    nextSequence += 1
    heap.append(
      Event(
        time: time, sequence: nextSequence, argument: argument, incarnation: incarnation, subject: Int16(subject),
        kind: kind))
    siftUp(heap.count - 1)
  }

  /// The next event, taken off the queue.
  mutating func pop() -> Event? {
    guard let first = heap.first else { return nil }
    let last = heap.removeLast()
    if !heap.isEmpty {
      heap[0] = last
      siftDown(0)
    }
    return first
  }

  @inline(__always)
  private static func precedes(_ left: Event, _ right: Event) -> Bool {
    left.time != right.time ? left.time < right.time : left.sequence < right.sequence
  }

  private mutating func siftUp(_ start: Int) {
    let event = heap[start]
    var position = start
    while position > 0 {
      let parent = (position - 1) / 2
      guard Self.precedes(event, heap[parent]) else { break }
      heap[position] = heap[parent]
      position = parent
    }
    heap[position] = event
  }

  private mutating func siftDown(_ start: Int) {
    let event = heap[start]
    var position = start
    while true {
      var child = 2 * position + 1
      guard child < heap.count else { break }
      if child + 1 < heap.count, Self.precedes(heap[child + 1], heap[child]) { child += 1 }
      guard Self.precedes(heap[child], event) else { break }
      heap[position] = heap[child]
      position = child
    }
    heap[position] = event
  }
}

/// Values that are under way, kept in numbered slots that are used again: an event carries only the number.
struct SlotPool<Value>: ~Copyable {
  private var values: [Value?] = []
  private var free: [Int] = []

  init() {}

  mutating func put(_ value: Value) -> Int {
    if let slot = free.popLast() {
      values[slot] = value
      return slot
    }
    values.append(value)
    return values.count - 1
  }

  /// The value in a slot, which is free from now on.
  mutating func take(_ slot: Int) -> Value? {
    guard values.indices.contains(slot), let value = values[slot] else { return nil }
    values[slot] = nil
    free.append(slot)
    return value
  }
}
