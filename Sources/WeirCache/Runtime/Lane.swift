import Synchronization
import WeirCore

/// One client's way into a node and back: proposals and read requests in, completions out.
///
/// The node drains all lanes each time its loop turns, proposes what it finds as it lies there, and answers all of a
/// lane's completions together. What a producer shares with the node's queue is one short lock for each *batch*; the
/// commands were framed before, outside of it. Many producers, one consumer.
///
/// Reads carry no keys into the node: a lane asks for tickets, the node confirms "every read up to ticket t may be
/// answered from the state machine as it is now", and whoever asked looks the keys up on its own thread.
public class Lane: @unchecked Sendable {
  // Sendable: the inbox lies under its lock, the counters are atomic, `slot` and `inFlight` belong to the node's queue.

  struct Inbox {
    var batches: [EntryBatch] = []
    var tokens: [UInt32] = []
    var byteCount = 0
  }

  let inbox = Mutex(Inbox())
  /// Whether there is something in the inbox, or a ticket that the node has not seen.
  let isDirty = Atomic<Bool>(false)
  let isClosed = Atomic<Bool>(false)
  /// Whether its node has stopped: no read that it still asks for is confirmed.
  let isOrphan = Atomic<Bool>(false)
  /// Whether its owner ran the node's loop the last time that it waited: it does most likely so again.
  let isResident = Atomic<Bool>(false)
  /// The last ticket asked for.
  let requestedTicket = Atomic<UInt64>(0)
  /// Reads up to this ticket are settled.
  let settledTicket = Atomic<UInt64>(0)
  /// Settled reads up to this ticket must not be answered: the node could not confirm them.
  let failedTicket = Atomic<UInt64>(0)

  /// The lane's number at its node; -1 while it has none.
  var slot = -1
  /// Proposals in the node's hands.
  var inFlight = 0
  /// The last ticket that the node has put into a round.
  var roundedTicket: UInt64 = 0
  /// Whether something was delivered since the owner was last notified.
  var hasNews = false

  init() {}

  /// Hands proposals over: `tokens` has one for each entry of `batch`, in order.
  /// - Returns: whether the lane took them; not if more than `maximumBytes` would wait.
  func enqueue(_ batch: EntryBatch, tokens: [UInt32], maximumBytes: Int) -> Bool {
    precondition(tokens.count == batch.count, "a token for each proposal")
    return inbox.withLock { inbox in
      guard inbox.byteCount + batch.byteCount <= maximumBytes || inbox.batches.isEmpty else { return false }
      inbox.batches.append(batch)
      inbox.tokens.append(contentsOf: tokens)
      inbox.byteCount += batch.byteCount
      return true
    }
  }

  /// Takes back what waits, if the node has not taken it. Returns whether there was something.
  func withdraw() -> Bool {
    inbox.withLock { inbox in
      let hadBatches = !inbox.batches.isEmpty
      inbox = Inbox()
      return hadBatches
    }
  }

  /// Moves what waits to the node: batches, and a token for each entry. On the node's queue, with empty arrays.
  func takeInbox(into batches: inout [EntryBatch], tokens: inout [UInt32]) {
    inbox.withLock { inbox in
      swap(&inbox.batches, &batches)
      swap(&inbox.tokens, &tokens)
      inbox.byteCount = 0
    }
  }

  /// Takes completions of consecutive proposals; `firstIndex` is the log index of the first, 0 if it never got one.
  /// On the node's queue.
  func deliver(_ completions: borrowing [UInt64], firstIndex: LogIndex) {
    preconditionFailure("a lane says what becomes of its completions")
  }

  /// Takes the results that are numbers, of the completions that are delivered next: their places among those. On the
  /// node's queue. An owner that has no use for them ignores them.
  func deliver(numbers: [(position: Int, number: Int64)]) {}

  /// Everything of this turn has been delivered. On the node's queue.
  func publish() {}

  /// Whether `publish` calls something that is not the node's own.
  var callsOut: Bool { true }

  /// Up to which ticket reads may be answered, and up to which of those they must be given up instead. On any thread.
  public final var settledReads: (settled: UInt64, failed: UInt64) {
    // In this order: a failure is stored before the ticket that it settles.
    if isOrphan.load(ordering: .acquiring) {
      let last = requestedTicket.load(ordering: .relaxed)
      return (last, last)
    }
    let settled = settledTicket.load(ordering: .acquiring)
    return (settled, failedTicket.load(ordering: .acquiring))
  }

  /// Settles reads. On the node's queue.
  final func settleReads(through ticket: UInt64, succeeded: Bool) {
    if !succeeded { failedTicket.store(ticket, ordering: .releasing) }
    settledTicket.store(ticket, ordering: .releasing)
    hasNews = true
  }
}

/// A lane for one thread that submits in batches and collects completions when it wants to: no callback, no allocation.
///
/// Sendable: completions pass through a ring with one writer (the node's queue) and one reader (the owner's thread),
/// each of which moves its own position only.
@safe
public final class SessionLane: Lane, @unchecked Sendable {
  private let ring: UnsafeMutablePointer<UInt64>
  /// Numbers that are results, in the places of their completions.
  private let numbers: UnsafeMutablePointer<Int64>
  private let mask: Int
  private let head = Atomic<Int>(0)
  private let tail = Atomic<Int>(0)
  private var localTail = 0
  private let notify: Notification

  private enum Notification: Sendable {
    case parker(Parker)
    case call(@Sendable () -> Void)
  }

  /// - Parameters:
  ///   - capacity: the most proposals in flight; rounded up to a power of two.
  ///   - parker: what the owner sleeps on; several lanes may share it.
  public convenience init(capacity: Int, parker: Parker) { self.init(capacity: capacity, notify: .parker(parker)) }

  /// For an owner that sleeps on something else: `wake` is called on the node's queue with each delivery.
  public convenience init(capacity: Int, wake: @escaping @Sendable () -> Void) {
    self.init(capacity: capacity, notify: .call(wake))
  }

  private init(capacity: Int, notify: Notification) {
    var size = 16
    while size < capacity { size *= 2 }
    mask = size - 1
    unsafe ring = .allocate(capacity: size)
    unsafe ring.initialize(repeating: 0, count: size)
    // Not touched before there is a number: pages that nobody writes to cost nothing.
    unsafe numbers = .allocate(capacity: size)
    self.notify = notify
    super.init()
  }

  deinit {
    unsafe ring.deallocate()
    unsafe numbers.deallocate()
  }

  /// The most proposals that may be in flight.
  public var capacity: Int { mask + 1 }

  override func deliver(_ completions: borrowing [UInt64], firstIndex: LogIndex) {
    precondition(localTail + completions.count - head.load(ordering: .acquiring) <= capacity, "more than was in flight")
    for index in 0..<completions.count { unsafe ring[(localTail + index) & mask] = completions[index] }
    localTail += completions.count
    hasNews = true
  }

  override func deliver(numbers delivered: [(position: Int, number: Int64)]) {
    for (position, number) in delivered { unsafe (numbers + ((localTail + position) & mask)).initialize(to: number) }
  }

  override var callsOut: Bool {
    switch notify {
    case .parker: false
    case .call: true
    }
  }

  override func publish() {
    guard hasNews else { return }
    hasNews = false
    tail.store(localTail, ordering: .releasing)
    switch notify {
    case .parker(let parker): parker.notify()
    case .call(let wake): wake()
    }
  }

  /// Calls `body` with each completion that is there, on the owner's thread.
  /// - Returns: how many there were.
  @discardableResult
  public func drain(_ body: (LaneCompletion) -> Void) -> Int {
    let first = head.load(ordering: .relaxed)
    let end = tail.load(ordering: .acquiring)
    for position in first..<end { body(LaneCompletion(word: unsafe ring[position & mask])) }
    head.store(end, ordering: .releasing)
    return end - first
  }

  /// The same with each one's number, 0 unless its outcome is `appliedNumber`.
  @discardableResult
  public func drainNumbers(_ body: (LaneCompletion, Int64) -> Void) -> Int {
    let first = head.load(ordering: .relaxed)
    let end = tail.load(ordering: .acquiring)
    for position in first..<end {
      let completion = LaneCompletion(word: unsafe ring[position & mask])
      // Only then was it written.
      body(completion, completion.outcome == .appliedNumber ? unsafe numbers[position & mask] : 0)
    }
    head.store(end, ordering: .releasing)
    return end - first
  }

  /// Whether `drain` would find something.
  public var hasCompletions: Bool { head.load(ordering: .relaxed) != tail.load(ordering: .acquiring) }
}
