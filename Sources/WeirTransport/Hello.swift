import CWeir
import WeirCore

/// The first bytes on a connection, in both directions: who talks, to whom, about which cluster. 64 bytes, little-endian:
///
///     offset  size  field
///          0     8  "WEIRPEER"
///          8     4  CRC-32C of bytes 12 ..< 64
///         12     2  protocol version
///         14     1  channel: 1 messages, 2 snapshots
///         15     1  verdict: 0 a greeting, 1 welcome, from 2 on the reason of a refusal
///         16     8  cluster id
///         24     8  sender's node id
///         32     8  the node id that the sender believes to talk to
///         40     8  sender's instance: random for each start of a node
///         48    16  reserved, zero
struct Hello: Equatable {
  enum Channel: UInt8 {
    case messages = 1
    case snapshots = 2
  }

  static let bytes = 64
  private static let magic: [UInt8] = Array("WEIRPEER".utf8)

  var version = FrameHeader.version
  var channel: Channel
  /// Nil in a greeting; how the greeting was received in an answer.
  var verdict: HelloVerdict?
  var clusterID: UInt64
  var from: NodeID
  var to: NodeID
  var instance: UInt64

  func encoded() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Self.bytes)
    bytes.replaceSubrange(0..<8, with: Self.magic)
    store(version, at: 12, in: &bytes)
    bytes[14] = channel.rawValue
    bytes[15] = verdict?.rawValue ?? 0
    store(clusterID, at: 16, in: &bytes)
    store(from, at: 24, in: &bytes)
    store(to, at: 32, in: &bytes)
    store(instance, at: 40, in: &bytes)
    store(Self.checksum(bytes), at: 8, in: &bytes)
    return bytes
  }

  init(
    channel: Channel, verdict: HelloVerdict? = nil, clusterID: UInt64, from: NodeID, to: NodeID, instance: UInt64
  ) {
    self.channel = channel
    self.verdict = verdict
    self.clusterID = clusterID
    self.from = from
    self.to = to
    self.instance = instance
  }

  /// Nil if the bytes are not a hello of any version.
  init?(parsing bytes: [UInt8]) {
    guard bytes.count == Self.bytes, Array(bytes[0..<8]) == Self.magic else { return nil }
    guard Self.load(UInt32.self, at: 8, in: bytes) == Self.checksum(bytes) else { return nil }
    guard let channel = Channel(rawValue: bytes[14]) else { return nil }
    self.channel = channel
    if bytes[15] != 0 {
      guard let verdict = HelloVerdict(rawValue: bytes[15]) else { return nil }
      self.verdict = verdict
    }
    version = Self.load(UInt16.self, at: 12, in: bytes)
    clusterID = Self.load(UInt64.self, at: 16, in: bytes)
    from = Self.load(UInt64.self, at: 24, in: bytes)
    to = Self.load(UInt64.self, at: 32, in: bytes)
    instance = Self.load(UInt64.self, at: 40, in: bytes)
  }

  private static func checksum(_ bytes: [UInt8]) -> UInt32 {
    unsafe bytes.withUnsafeBytes { unsafe cweir_crc32c(0, $0.baseAddress.unsafelyUnwrapped + 12, Self.bytes - 12) }
  }

  private func store<T: FixedWidthInteger>(_ value: T, at offset: Int, in bytes: inout [UInt8]) {
    for index in 0..<MemoryLayout<T>.size { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index)) }
  }

  private static func load<T: FixedWidthInteger>(_: T.Type, at offset: Int, in bytes: [UInt8]) -> T {
    var value: T = 0
    for index in 0..<MemoryLayout<T>.size { value |= T(truncatingIfNeeded: bytes[offset + index]) << (8 * index) }
    return value
  }
}

/// How a node answers a greeting.
public enum HelloVerdict: UInt8, Sendable, CaseIterable, CustomStringConvertible {
  case welcome = 1
  case otherCluster = 2
  case otherVersion = 3
  case notTheNodeYouWant = 4
  case unknownNode = 5
  case impostor = 6
  case duplicate = 7
  case tooManyConnections = 8

  /// What the log says, with what to do about it.
  public var description: String {
    switch self {
    case .welcome: "welcome"
    case .otherCluster: "it belongs to another cluster: check the addresses and the cluster ids"
    case .otherVersion: "it speaks another version of the protocol: upgrade the older node"
    case .notTheNodeYouWant: "it looks for another node at this address: check the addresses of the members"
    case .unknownNode: "it is not a member and not about to become one: add it first"
    case .impostor: "a live node with the same id is connected already: give each node an id of its own"
    case .duplicate: "both sides connected at once, the other connection is kept"
    case .tooManyConnections: "too many connections are waiting for their hello"
    }
  }
}
