import Raft
import WeirCore

/// Which reads wait for which round of ReadIndex.
///
/// All reads that wait when a round begins share it, whichever lane they come from: the round carries one ticket for
/// each lane, however many reads stand behind it. Two rounds at most are under way; reads that come meanwhile gather
/// for the next. One would leave the network idle half of the time, more would make the rounds smaller and nobody
/// faster.
struct ReadRounds {
  private struct Ticket {
    var slot: Int
    var ticket: UInt64
  }

  private struct Round {
    var context: UInt64
    /// The commit index when the round began, once it is confirmed.
    var index: LogIndex?
    var tickets: [Ticket]
  }

  private static let maximumUnderWay = 2

  private var waiting: [Ticket] = []
  private var underWay: [Round] = []
  private var spareTickets: [[Ticket]] = []
  private var lastContext: UInt64 = 0

  var hasWaiting: Bool { !waiting.isEmpty }
  var hasUnderWay: Bool { !underWay.isEmpty }
  var canStart: Bool { underWay.count < Self.maximumUnderWay }

  /// Notes that reads up to `ticket` of a lane wait.
  mutating func wait(slot: Int, ticket: UInt64) {
    for position in waiting.indices where waiting[position].slot == slot {
      waiting[position].ticket = ticket
      return
    }
    waiting.append(Ticket(slot: slot, ticket: ticket))
  }

  /// Puts all that wait into a new round.
  /// - Returns: the round's context, or nil if enough are under way.
  mutating func start() -> UInt64? {
    guard canStart else { return nil }
    lastContext += 1
    var tickets = spareTickets.popLast() ?? []
    swap(&tickets, &waiting)
    underWay.append(Round(context: lastContext, index: nil, tickets: tickets))
    return lastContext
  }

  mutating func confirm(_ state: ReadState) {
    for position in underWay.indices where underWay[position].context == state.context {
      underWay[position].index = state.index
    }
  }

  /// Calls `body` for the tickets of every confirmed round whose index is applied, in the order of the rounds.
  mutating func settle(appliedIndex: LogIndex, _ body: (Int, UInt64) -> Void) {
    while let round = underWay.first, let index = round.index, index <= appliedIndex {
      finish(underWay.removeFirst(), body)
    }
  }

  mutating func refuse(_ context: UInt64, _ body: (Int, UInt64) -> Void) {
    guard let position = underWay.firstIndex(where: { $0.context == context }) else { return }
    // Reads of earlier rounds have lower tickets: settling this one as failed would fail those with it. They are
    // failed too, which costs their callers a retry and nobody a wrong answer.
    for _ in 0...position { finish(underWay.removeFirst(), body) }
  }

  mutating func takeWaiting(_ body: (Int, UInt64) -> Void) {
    for ticket in waiting { body(ticket.slot, ticket.ticket) }
    waiting.removeAll(keepingCapacity: true)
  }

  mutating func removeAll(_ body: (Int, UInt64) -> Void) {
    while !underWay.isEmpty { finish(underWay.removeFirst(), body) }
    takeWaiting(body)
  }

  private mutating func finish(_ round: Round, _ body: (Int, UInt64) -> Void) {
    for ticket in round.tickets { body(ticket.slot, ticket.ticket) }
    var tickets = round.tickets
    tickets.removeAll(keepingCapacity: true)
    spareTickets.append(tickets)
  }
}
