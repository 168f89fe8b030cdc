/// Who first sent a user broadcast, and which of its own it was.
///
/// memberlist delivers a broadcast as often as it is received and passes nothing on, so every application above
/// it invents identities, de-duplication and re-gossip for itself. Here a broadcast carries its identity in front of its
/// payload, inside an ordinary user message: memberlist's members hand it to their application like any other.
///
/// Layout, 15 bytes: `E7 57 01` (marker and version), origin `u64`, sequence `u32`, both big-endian; then the payload.
public struct BroadcastIdentity: Hashable, Sendable {
  /// Drawn at random when the sender started.
  public let origin: UInt64
  /// Counted from 1 by the sender.
  public let sequence: UInt32

  public init(origin: UInt64, sequence: UInt32) {
    self.origin = origin
    self.sequence = sequence
  }

  static let marker: [UInt8] = [0xE7, 0x57, 0x01]

  /// Bytes in front of the payload.
  public static let encodedSizeBytes = 15

  /// Appends the identity in its wire form.
  func append(to bytes: inout [UInt8]) {
    bytes.append(contentsOf: Self.marker)
    for shift in stride(from: 56, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: origin >> shift)) }
    for shift in stride(from: 24, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: sequence >> shift)) }
  }

  /// The identity at the start of a user message, or nil when it has none and is somebody else's plain message.
  public init?(startOf message: some RandomAccessCollection<UInt8>) {
    guard message.count >= Self.encodedSizeBytes, message.starts(with: Self.marker) else { return nil }
    var origin: UInt64 = 0
    for byte in message.dropFirst(3).prefix(8) { origin = origin << 8 | UInt64(byte) }
    var sequence: UInt32 = 0
    for byte in message.dropFirst(11).prefix(4) { sequence = sequence << 8 | UInt32(byte) }
    self.init(origin: origin, sequence: sequence)
  }
}

/// The identities seen last, so that a broadcast is delivered once however often it arrives.
///
/// A ring of fixed length beside a set: memory is bounded whatever the peers send. A broadcast that comes again
/// after `capacity` others is delivered again; it is gone from every queue long before.
struct SeenBroadcasts {
  private var members: Set<BroadcastIdentity> = []
  private var ring: [BroadcastIdentity] = []
  private var oldest = 0
  let capacity: Int

  init(capacity: Int) {
    self.capacity = max(1, capacity)
  }

  var count: Int { ring.count }

  /// Remembers `identity`.
  /// - Returns: whether it was new.
  mutating func insert(_ identity: BroadcastIdentity) -> Bool {
    guard members.insert(identity).inserted else { return false }
    if ring.count < capacity {
      ring.append(identity)
    } else {
      members.remove(ring[oldest])
      ring[oldest] = identity
      oldest = (oldest + 1) % capacity
    }
    return true
  }
}
