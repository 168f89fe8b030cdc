import Glibc
import HTTPWire
import WeirTransport

/// One client's connection, on the server's queue: requests in, answers out in the order in which they were asked for.
final class HTTPConnection: ServedConnection {
  /// A request's place in the row of answers.
  private struct Slot {
    var isToHead: Bool
    var isLast: Bool
    var response: HTTPResponse?
  }

  let channel: Int
  private(set) var descriptor: Int32
  var reader: HTTPRequestReader
  /// When to look at what it is waiting for, CLOCK_MONOTONIC.
  var deadline: UInt64
  var isBlocked = false
  var isWithinRequest = false
  /// Its last answer is out, and it is awaited that the client closes.
  var isLingering = false
  /// The client sends no more; `descriptor` is our own duplicate.
  private(set) var hasHalfClosed = false
  /// Nothing more is read: a request was the last one.
  private(set) var isEnding = false
  private var slots: [Slot] = []
  /// How many of `slots` are written; they are dropped together, now and then.
  private var written = 0
  /// The number of the first of `slots`.
  private var firstNumber: UInt64 = 0
  private var wroteLast = false
  private var output = SendBuffer()

  init(channel: Int, descriptor: Int32, limits: HTTPLimits, deadline: UInt64) {
    self.channel = channel
    self.descriptor = descriptor
    self.deadline = deadline
    reader = HTTPRequestReader(limits: limits)
  }

  /// Requests that are not answered.
  var unanswered: Int { slots.count - written }
  var hasUnanswered: Bool { unanswered > 0 }
  var unsentBytes: Int { output.pendingBytes }
  /// The last answer is written, or nobody will ask for another.
  var isFinished: Bool { wroteLast || hasHalfClosed && !hasUnanswered }

  /// Notes a request; `settle` takes its number.
  func begin(isHead: Bool, isLast: Bool) -> UInt64 {
    slots.append(Slot(isToHead: isHead, isLast: isLast))
    if isLast { isEnding = true }
    return firstNumber + UInt64(slots.count - 1)
  }

  func settle(_ number: UInt64, _ response: HTTPResponse) {
    precondition(number >= firstNumber + UInt64(written), "a request is answered once")
    let position = Int(number - firstNumber)
    precondition(slots[position].response == nil, "a request is answered once")
    slots[position].response = response
  }

  /// Writes the answers whose turn it is behind what waits to be sent.
  func writeSettled(date: String, _ note: (HTTPStatus) -> Void) {
    while written < slots.count, let response = slots[written].response {
      let slot = slots[written]
      response.append(to: &output.bytes, date: date, isToHead: slot.isToHead, closes: slot.isLast)
      note(response.status)
      slots[written].response = nil
      written += 1
      if slot.isLast { wroteLast = true }
    }
    guard written == slots.count || written >= 256 else { return }
    slots.removeFirst(written)
    firstNumber += UInt64(written)
    written = 0
  }

  /// Tells the client to go on with its body, unless earlier answers are due first: then it goes on by itself.
  func promiseContinue() {
    if !hasUnanswered { output.bytes.append(contentsOf: HTTPResponse.continueBytes) }
  }

  /// Sends as much as the socket takes.
  func send() -> SocketResult { output.send(to: descriptor, keptBytes: 64 << 10) }

  /// Keeps a way to send that does not depend on the descriptor, which is about to be closed.
  /// - Returns: whether there is one.
  func keepSendingSide() -> Bool {
    let duplicate = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
    guard duplicate >= 0 else { return false }
    descriptor = duplicate
    hasHalfClosed = true
    isEnding = true
    return true
  }
}
