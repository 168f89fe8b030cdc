import WeirCore

/// How many append messages are under way to one follower, and how large they are.
///
/// Numbers only, so that a member's progress is plain data; which messages they are is in an `InflightRing` beside it.
public struct Inflights: Sendable, BitwiseCopyable {
  /// The most messages under way.
  public let maximumMessages: Int
  /// The most bytes under way (exceeded by one message at most); 0 for no limit.
  public let maximumBytes: Int
  /// Number of messages under way.
  public private(set) var count = 0

  private var start = 0
  private var bytes = 0

  public init(maximumMessages: Int, maximumBytes: Int = 0) {
    self.maximumMessages = maximumMessages
    self.maximumBytes = maximumBytes
  }

  /// Whether nothing more may be sent until something is acknowledged.
  @inline(__always)
  public var isFull: Bool { count >= maximumMessages || (maximumBytes != 0 && bytes >= maximumBytes) }

  /// Notes a message. Only while it is not full.
  @inline(__always)
  mutating func add(lastIndex: LogIndex, bytes size: Int, to ring: inout InflightRing) {
    invariant(!isFull, "a message was sent to a follower whose window is full: \(count) in flight")
    if count == ring.messages.count {
      ring.grow(start: start, count: count)
      start = 0
    }
    ring.messages[(start + count) & (ring.messages.count - 1)] = InflightRing.Message(lastIndex: lastIndex, bytes: size)
    count += 1
    bytes += size
  }

  /// Frees the messages whose last index is at most `index`.
  @inline(__always)
  mutating func free(through index: LogIndex, of ring: inout InflightRing) {
    while count > 0 {
      let message = ring.messages[start]
      guard message.lastIndex <= index else { return }
      bytes -= message.bytes
      start = (start + 1) & (ring.messages.count - 1)
      count -= 1
    }
  }

  /// Forgets all messages.
  mutating func reset() {
    start = 0
    count = 0
    bytes = 0
  }
}

/// Last index and size of each message under way, oldest first from where `Inflights` says.
///
/// It grows up to the limit by doubling, since most followers never have many messages under way and the limit may be
/// large (etcd's tests use 2³¹ − 1).
struct InflightRing: Sendable {
  struct Message: BitwiseCopyable {
    var lastIndex: LogIndex
    var bytes: Int
  }

  /// A power of two of them, or none.
  fileprivate(set) var messages: [Message] = []

  @inline(never)
  fileprivate mutating func grow(start: Int, count: Int) {
    let capacity = max(16, messages.count * 2)
    var larger: [Message] = []
    larger.reserveCapacity(capacity)
    for position in 0..<count { larger.append(messages[(start + position) & (messages.count - 1)]) }
    while larger.count < capacity { larger.append(Message(lastIndex: 0, bytes: 0)) }
    messages = larger
  }
}
