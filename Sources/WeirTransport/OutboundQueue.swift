import WeirCore

/// What waits to be sent to one peer, bounded in bytes.
///
/// Two lanes: messages without entries that others wait for (heartbeats, votes, acknowledgements, reads) go in front of
/// appends, so that a heartbeat never stands behind megabytes of entries. Appends keep their order among themselves:
/// an empty append that overtook the entries before it would look like a gap to the follower.
///
/// Raft allows any message to be lost, so one that a later one makes superfluous is replaced by it while both wait:
/// - acknowledgements: one of a higher index says all that the lower said;
/// - heartbeats and their responses: the context is a running position, and an answer to a later one counts for the
///   earlier ones;
/// - empty appends (commit notices): the next append of the term carries a commit index at least as high.
struct OutboundQueue {
  private struct Lane {
    var messages: [Message] = []
    var head = 0

    var isEmpty: Bool { head == messages.count }

    mutating func pop() -> Message? {
      guard head < messages.count else { return nil }
      let message = messages[head]
      // The slot keeps no entries alive once its message has been handed on.
      messages[head].entries = EntryBatch()
      messages[head].attachment = nil
      head += 1
      if head == messages.count {
        messages.removeAll(keepingCapacity: true)
        head = 0
      } else if head >= 1024, head * 2 > messages.count {
        messages.removeFirst(head)
        head = 0
      }
      return message
    }
  }

  let maximumBytes: Int
  /// Bytes of the frames that wait, by estimate for their heads.
  private(set) var queuedBytes = 0
  /// Messages that a later one made superfluous.
  private(set) var mergedCount: UInt64 = 0
  private var urgent = Lane()
  private var bulk = Lane()

  /// About what a frame takes beyond its entries.
  static let headEstimateBytes = 128

  init(maximumBytes: Int) { self.maximumBytes = maximumBytes }

  var isEmpty: Bool { urgent.isEmpty && bulk.isEmpty }
  var count: Int { urgent.messages.count - urgent.head + bulk.messages.count - bulk.head }

  /// Takes a message in, or refuses it because the peer does not keep up.
  mutating func enqueue(_ message: Message) -> Bool {
    let size = Self.size(of: message)
    if message.type == .append {
      if let last = bulk.messages.indices.last, last >= bulk.head, isSuperseded(bulk.messages[last], by: message) {
        queuedBytes += size - Self.size(of: bulk.messages[last])
        bulk.messages[last] = message
        mergedCount += 1
        return true
      }
      guard queuedBytes + size <= maximumBytes || isEmpty else { return false }
      bulk.messages.append(message)
    } else {
      if let position = positionSuperseded(by: message) {
        urgent.messages[position] = message
        mergedCount += 1
        return true
      }
      // A peer that takes nothing at all must not collect votes and heartbeats without end either.
      guard urgent.messages.count - urgent.head < Self.maximumUrgentMessages else { return false }
      urgent.messages.append(message)
    }
    queuedBytes += size
    return true
  }

  static let maximumUrgentMessages = 8192

  /// Whether nothing waits but a notice of a commit index, which the next append would carry anyway.
  var holdsOnlyNotice: Bool {
    guard urgent.isEmpty, bulk.messages.count - bulk.head == 1, let notice = bulk.messages.last else { return false }
    return notice.entries.isEmpty
  }

  /// The next message to send.
  mutating func pop() -> Message? {
    guard let message = urgent.pop() ?? bulk.pop() else { return nil }
    queuedBytes -= Self.size(of: message)
    return message
  }

  mutating func removeAll() {
    urgent = Lane()
    bulk = Lane()
    queuedBytes = 0
  }

  static func size(of message: Message) -> Int { headEstimateBytes + message.entries.byteCount }

  /// An empty append that waits directly in front of another append of the same term.
  private func isSuperseded(_ waiting: Message, by message: Message) -> Bool {
    waiting.type == .append && waiting.entries.isEmpty && waiting.term == message.term
      && message.commit >= waiting.commit && message.index >= waiting.index
  }

  /// Looks at the few messages at the end only: what can be merged was nearly always queued just before.
  private func positionSuperseded(by message: Message) -> Int? {
    switch message.type {
    case .appendResponse, .heartbeat, .heartbeatResponse: break
    default: return nil
    }
    var position = urgent.messages.count - 1
    let end = max(urgent.head, position - 7)
    while position >= end {
      let waiting = urgent.messages[position]
      if waiting.type == message.type, waiting.term == message.term {
        switch message.type {
        case .appendResponse where message.reject || waiting.reject: return nil
        case .appendResponse: return message.index >= waiting.index ? position : nil
        default:
          return message.context >= waiting.context && message.commit >= waiting.commit ? position : nil
        }
      }
      position -= 1
    }
    return nil
  }
}
