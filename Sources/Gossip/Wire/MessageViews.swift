/// A message as it lies in a packet: numbers by value, strings as ranges of the bytes it was read from. Reading one
/// allocates nothing; use it while the packet is at hand, and `owned` to keep it.
///
/// All of them read a msgpack map with its keys in any order, pass over keys they do not know, and take what is absent
/// as zero, as memberlist does.
public struct PingView: Sendable {
  public internal(set) var sequenceNumber: UInt32 = 0
  public internal(set) var node = 0..<0
  public internal(set) var sourceAddress: IPAddress?
  public internal(set) var sourcePort: UInt16 = 0
  public internal(set) var sourceNode = 0..<0

  /// Reads the body of a ping (what follows its type byte).
  public init(_ body: Span<UInt8>) throws(WireError) {
    var reader = MessagePackReader()
    try self.init(body, &reader)
  }

  init(_ bytes: Span<UInt8>, _ reader: inout MessagePackReader) throws(WireError) {
    var pairs = try reader.readMapCount(bytes)
    while pairs > 0 {
      pairs &-= 1
      switch try reader.readKey(bytes) {
      case .some(.node): node = try reader.readRaw(bytes) ?? 0..<0
      case .some(.seqNo): sequenceNumber = try reader.readUInt32(bytes)
      case .some(.sourceAddr): sourceAddress = try reader.readOptionalAddress(bytes)
      case .some(.sourceNode): sourceNode = try reader.readRaw(bytes) ?? 0..<0
      case .some(.sourcePort): sourcePort = try reader.readUInt16(bytes)
      default: try reader.skipValue(bytes)
      }
    }
  }

  /// The message with its own bytes. `body` is what it was read from.
  public func owned(_ body: Span<UInt8>, _ cache: inout ByteStringCache) -> Ping {
    Ping(
      sequenceNumber: sequenceNumber, node: NodeName(cache.string(body, node)), sourceAddress: sourceAddress,
      sourcePort: sourcePort, sourceNode: NodeName(cache.string(body, sourceNode)))
  }
}

public struct IndirectPingView: Sendable {
  public internal(set) var sequenceNumber: UInt32 = 0
  public internal(set) var target = IPAddress(v4: 0)
  public internal(set) var port: UInt16 = 0
  public internal(set) var node = 0..<0
  public internal(set) var wantsNack = false
  public internal(set) var sourceAddress: IPAddress?
  public internal(set) var sourcePort: UInt16 = 0
  public internal(set) var sourceNode = 0..<0

  public init(_ body: Span<UInt8>) throws(WireError) {
    var reader = MessagePackReader()
    var target: IPAddress?
    var pairs = try reader.readMapCount(body)
    while pairs > 0 {
      pairs &-= 1
      switch try reader.readKey(body) {
      case .some(.nack): wantsNack = try reader.readBool(body)
      case .some(.node): node = try reader.readRaw(body) ?? 0..<0
      case .some(.port): port = try reader.readUInt16(body)
      case .some(.seqNo): sequenceNumber = try reader.readUInt32(body)
      case .some(.sourceAddr): sourceAddress = try reader.readOptionalAddress(body)
      case .some(.sourceNode): sourceNode = try reader.readRaw(body) ?? 0..<0
      case .some(.sourcePort): sourcePort = try reader.readUInt16(body)
      case .some(.target): target = try reader.readOptionalAddress(body)
      default: try reader.skipValue(body)
      }
    }
    guard let target else { throw .invalidAddress(byteCount: 0) }
    self.target = target
  }

  public func owned(_ body: Span<UInt8>, _ cache: inout ByteStringCache) -> IndirectPing {
    IndirectPing(
      sequenceNumber: sequenceNumber, target: target, port: port, node: NodeName(cache.string(body, node)),
      wantsNack: wantsNack, sourceAddress: sourceAddress, sourcePort: sourcePort,
      sourceNode: NodeName(cache.string(body, sourceNode)))
  }
}

public struct AckView: Sendable {
  public internal(set) var sequenceNumber: UInt32 = 0
  public internal(set) var payload: Range<Int>?

  public init(_ body: Span<UInt8>) throws(WireError) {
    var reader = MessagePackReader()
    try self.init(body, &reader)
  }

  init(_ bytes: Span<UInt8>, _ reader: inout MessagePackReader) throws(WireError) {
    var pairs = try reader.readMapCount(bytes)
    while pairs > 0 {
      pairs &-= 1
      switch try reader.readKey(bytes) {
      case .some(.payload): payload = try reader.readRaw(bytes)
      case .some(.seqNo): sequenceNumber = try reader.readUInt32(bytes)
      default: try reader.skipValue(bytes)
      }
    }
  }

  public func owned(_ body: Span<UInt8>) -> Ack {
    Ack(sequenceNumber: sequenceNumber, payload: payload.map { [UInt8](copying: body, $0) })
  }
}

public struct NackView: Sendable {
  public internal(set) var sequenceNumber: UInt32 = 0

  public init(_ body: Span<UInt8>) throws(WireError) {
    var reader = MessagePackReader()
    var pairs = try reader.readMapCount(body)
    while pairs > 0 {
      pairs &-= 1
      switch try reader.readKey(body) {
      case .some(.seqNo): sequenceNumber = try reader.readUInt32(body)
      default: try reader.skipValue(body)
      }
    }
  }

  public var owned: Nack { Nack(sequenceNumber: sequenceNumber) }
}

/// A suspect or dead message: both have the same three fields.
public struct AccusationView: Sendable {
  public internal(set) var incarnation: UInt32 = 0
  public internal(set) var node = 0..<0
  public internal(set) var from = 0..<0

  public init(_ body: Span<UInt8>) throws(WireError) {
    var reader = MessagePackReader()
    var pairs = try reader.readMapCount(body)
    while pairs > 0 {
      pairs &-= 1
      switch try reader.readKey(body) {
      case .some(.from): from = try reader.readRaw(body) ?? 0..<0
      case .some(.incarnation): incarnation = try reader.readUInt32(body)
      case .some(.node): node = try reader.readRaw(body) ?? 0..<0
      default: try reader.skipValue(body)
      }
    }
  }

  public func ownedSuspect(_ body: Span<UInt8>, _ cache: inout ByteStringCache) -> Suspect {
    Suspect(
      incarnation: incarnation, node: NodeName(cache.string(body, node)), from: NodeName(cache.string(body, from)))
  }

  public func ownedDead(_ body: Span<UInt8>, _ cache: inout ByteStringCache) -> Dead {
    Dead(incarnation: incarnation, node: NodeName(cache.string(body, node)), from: NodeName(cache.string(body, from)))
  }
}

public struct AliveView: Sendable {
  public internal(set) var incarnation: UInt32 = 0
  public internal(set) var node = 0..<0
  public internal(set) var address = GossipAddress(ip: IPAddress(v4: 0), port: 0)
  /// nil where the peer wrote nil, or nothing.
  public internal(set) var meta: Range<Int>?
  public internal(set) var versions: ProtocolVersions?

  public init(_ body: Span<UInt8>) throws(WireError) {
    var reader = MessagePackReader()
    var ip: IPAddress?
    var pairs = try reader.readMapCount(body)
    while pairs > 0 {
      pairs &-= 1
      switch try reader.readKey(body) {
      case .some(.addr): ip = try reader.readOptionalAddress(body)
      case .some(.incarnation): incarnation = try reader.readUInt32(body)
      case .some(.meta): meta = try reader.readRaw(body)
      case .some(.node): node = try reader.readRaw(body) ?? 0..<0
      case .some(.port): address.port = try reader.readUInt16(body)
      case .some(.vsn): versions = try reader.readVersions(body)
      default: try reader.skipValue(body)
      }
    }
    guard let ip else { throw .invalidAddress(byteCount: 0) }
    address.ip = ip
  }

  public func owned(_ body: Span<UInt8>, _ cache: inout ByteStringCache) -> Alive {
    Alive(
      incarnation: incarnation, node: NodeName(cache.string(body, node)), address: address,
      meta: cache.string(body, meta ?? 0..<0), isEmptyMetaNil: meta == nil, versions: versions)
  }
}

extension MessagePackReader {
  /// An address of 4 or 16 bytes; nil where there are none.
  mutating func readOptionalAddress(_ bytes: Span<UInt8>) throws(WireError) -> IPAddress? {
    guard let range = try readRaw(bytes), !range.isEmpty else { return nil }
    switch range.count {
    case 4:
      return IPAddress(v4: UInt32(truncatingIfNeeded: Self.word(bytes, from: range.lowerBound, byteCount: 4)))
    case 16:
      return IPAddress(
        v6High: Self.word(bytes, from: range.lowerBound, byteCount: 8),
        low: Self.word(bytes, from: range.lowerBound + 8, byteCount: 8))
    default:
      throw .invalidAddress(byteCount: range.count)
    }
  }

  /// The six version bytes; nil where there are fewer (memberlist once crashed on that).
  mutating func readVersions(_ bytes: Span<UInt8>) throws(WireError) -> ProtocolVersions? {
    guard let range = try readRaw(bytes), range.count >= 6 else { return nil }
    let first = range.lowerBound
    return ProtocolVersions(
      protocolMin: bytes[first], protocolMax: bytes[first + 1], protocolCurrent: bytes[first + 2],
      delegateMin: bytes[first + 3], delegateMax: bytes[first + 4], delegateCurrent: bytes[first + 5])
  }
}

extension GossipMessage {
  /// A message of a packet with its own bytes. `body` is what follows the type byte.
  /// Throws `misplacedMessage` for a type that packets do not carry, and what the body's reader throws.
  public init(type: MessageType, body: Span<UInt8>, cache: inout ByteStringCache) throws(WireError) {
    switch type {
    case .ping: self = .ping(try PingView(body).owned(body, &cache))
    case .indirectPing: self = .indirectPing(try IndirectPingView(body).owned(body, &cache))
    case .ack: self = .ack(try AckView(body).owned(body))
    case .nack: self = .nack(try NackView(body).owned)
    case .suspect: self = .suspect(try AccusationView(body).ownedSuspect(body, &cache))
    case .alive: self = .alive(try AliveView(body).owned(body, &cache))
    case .dead: self = .dead(try AccusationView(body).ownedDead(body, &cache))
    case .user: self = .user([UInt8](copying: body))
    case .pushPull, .compound, .compress, .encrypt, .hasCRC, .error, .hasLabel: throw .misplacedMessage(type)
    }
  }
}
