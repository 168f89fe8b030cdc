import WeirCore

/// The append messages that are under way to one follower: last index and size of each, oldest first.
///
/// A ring that grows up to the limit by doubling, since most followers never have many messages under way and the limit
/// may be large (etcd's tests use 2³¹ − 1).
public struct Inflights: Sendable {
  private struct Message {
    var lastIndex: LogIndex
    var bytes: Int
  }

  /// The most messages under way.
  public let maximumMessages: Int
  /// The most bytes under way (exceeded by one message at most); 0 for no limit.
  public let maximumBytes: Int
  /// Number of messages under way.
  public private(set) var count = 0

  private var ring: [Message] = []
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
  public mutating func add(lastIndex: LogIndex, bytes size: Int) {
    precondition(!isFull, "a message was sent to a follower whose window is full")
    if count == ring.count { grow() }
    ring[(start + count) & (ring.count - 1)] = Message(lastIndex: lastIndex, bytes: size)
    count += 1
    bytes += size
  }

  /// Frees the messages whose last index is at most `index`.
  public mutating func free(through index: LogIndex) {
    while count > 0, ring[start].lastIndex <= index {
      bytes -= ring[start].bytes
      start = (start + 1) & (ring.count - 1)
      count -= 1
    }
  }

  /// Forgets all messages.
  public mutating func reset() {
    start = 0
    count = 0
    bytes = 0
  }

  private mutating func grow() {
    var larger: [Message] = []
    larger.reserveCapacity(max(16, ring.count * 2))
    for position in 0..<count { larger.append(ring[(start + position) & (ring.count - 1)]) }
    while larger.count < max(16, ring.count * 2) { larger.append(Message(lastIndex: 0, bytes: 0)) }
    ring = larger
    start = 0
  }
}
