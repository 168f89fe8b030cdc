import Testing
import WeirCore

@testable import WeirTransport

@Suite struct OutboundQueueTests {
  private func enqueue(_ queue: inout OutboundQueue, _ message: Message) -> Bool { queue.enqueue(message) }

  private func drain(_ queue: inout OutboundQueue) -> [Message] {
    var messages: [Message] = []
    while let message = queue.pop() { messages.append(message) }
    return messages
  }

  @Test func appendsKeepTheirOrderAndHeartbeatsOvertakeThem() {
    var queue = OutboundQueue(maximumBytes: 1 << 20)
    for index in 0..<5 as Range<UInt64> {
      #expect(enqueue(&queue, makeAppend(from: 1, to: 2, index: index * 3, count: 3)))
    }
    #expect(enqueue(&queue, Message(type: .heartbeat, to: 2, from: 1, term: 1)))
    let messages = drain(&queue)
    #expect(messages.map(\.type) == [.heartbeat, .append, .append, .append, .append, .append])
    #expect(messages.dropFirst().map(\.index) == [0, 3, 6, 9, 12])
    #expect(queue.isEmpty && queue.queuedBytes == 0)
  }

  @Test func laterAcknowledgementsReplaceEarlierOnesButNeverARejection() {
    var queue = OutboundQueue(maximumBytes: 1 << 20)
    func acknowledgement(_ index: LogIndex, reject: Bool = false, term: Term = 4) -> Message {
      var message = Message(type: .appendResponse, to: 2, from: 1, term: term)
      message.index = index
      message.reject = reject
      return message
    }
    for index in [3, 7, 9] as [LogIndex] { #expect(enqueue(&queue, acknowledgement(index))) }
    #expect(enqueue(&queue, acknowledgement(5, reject: true)))
    #expect(enqueue(&queue, acknowledgement(11)))
    #expect(enqueue(&queue, acknowledgement(12, term: 5)))
    let messages = drain(&queue)
    #expect(messages.map(\.index) == [9, 5, 11, 12])
    #expect(messages.map(\.reject) == [false, true, false, false])
    #expect(queue.mergedCount == 2)
  }

  @Test func emptyAppendsGiveWayToTheNextAppendOfTheirTerm() {
    var queue = OutboundQueue(maximumBytes: 1 << 20)
    var notice = makeAppend(from: 1, to: 2, index: 10, count: 0)
    notice.commit = 9
    #expect(enqueue(&queue, notice))
    var next = makeAppend(from: 1, to: 2, index: 10, count: 2)
    next.commit = 10
    #expect(enqueue(&queue, next))
    var staleNotice = makeAppend(from: 1, to: 2, index: 12, count: 0)
    staleNotice.commit = 12
    #expect(enqueue(&queue, staleNotice))
    var lowerCommit = makeAppend(from: 1, to: 2, index: 12, count: 1)
    lowerCommit.commit = 11
    #expect(enqueue(&queue, lowerCommit))
    let messages = drain(&queue)
    // A notice of a higher commit index than the append behind it says something of its own.
    #expect(messages.map(\.entries.count) == [2, 0, 1])
    #expect(queue.isEmpty && queue.queuedBytes == 0)
  }

  @Test func heartbeatsMergeOnlyForwards() {
    var queue = OutboundQueue(maximumBytes: 1 << 20)
    for context in [4, 6, 0, 2] as [UInt64] {
      var message = Message(type: .heartbeat, to: 2, from: 1, term: 1)
      message.context = context
      #expect(enqueue(&queue, message))
    }
    #expect(drain(&queue).map(\.context) == [6, 2])
  }

  @Test func bytesAreBoundedAndOneMessageAlwaysFits() {
    var queue = OutboundQueue(maximumBytes: 1000)
    #expect(enqueue(&queue, makeAppend(from: 1, to: 2, index: 0, count: 100)))
    #expect(!enqueue(&queue, makeAppend(from: 1, to: 2, index: 100, count: 1)))
    #expect(enqueue(&queue, Message(type: .heartbeat, to: 2, from: 1, term: 1)))
    #expect(queue.count == 2)
    _ = drain(&queue)
    #expect(enqueue(&queue, makeAppend(from: 1, to: 2, index: 100, count: 1)))
  }

  @Test func urgentMessagesAreBoundedInNumber() {
    var queue = OutboundQueue(maximumBytes: 1 << 30)
    var taken = 0
    for _ in 0..<20_000 where queue.enqueue(Message(type: .vote, to: 2, from: 1, term: 1)) { taken += 1 }
    #expect(taken == OutboundQueue.maximumUrgentMessages)
  }
}
