import struct WeirCore.SplitMix64

@testable import Gossip

/// Messages made up from a seed, and small helpers that the wire's tests share.
enum WireSamples {
  static func address(_ generator: inout SplitMix64) -> IPAddress {
    Bool.random(using: &generator)
      ? IPAddress(v4: UInt32.random(in: 1...UInt32.max, using: &generator))
      : IPAddress(v6High: generator.next(), low: generator.next())
  }

  static func bytes(_ range: ClosedRange<Int>, _ generator: inout SplitMix64) -> [UInt8] {
    (0..<Int.random(in: range, using: &generator)).map { _ in UInt8.random(in: 0...255, using: &generator) }
  }

  static func name(_ generator: inout SplitMix64) -> NodeName { NodeName(bytes(1...40, &generator)) }

  /// Numbers of every encoded length.
  static func number(_ generator: inout SplitMix64) -> UInt32 {
    UInt32(truncatingIfNeeded: generator.next()) >> UInt32.random(in: 0...31, using: &generator)
  }

  static func versions(_ generator: inout SplitMix64) -> ProtocolVersions? {
    Int.random(in: 0..<8, using: &generator) == 0
      ? nil
      : ProtocolVersions(
        protocolCurrent: UInt8.random(in: 1...5, using: &generator),
        delegateMax: UInt8.random(in: 0...255, using: &generator))
  }

  static func gossipAddress(_ generator: inout SplitMix64) -> GossipAddress {
    GossipAddress(ip: address(&generator), port: UInt16(truncatingIfNeeded: generator.next()))
  }

  static func message(_ generator: inout SplitMix64) -> GossipMessage {
    let isOld = Int.random(in: 0..<4, using: &generator) == 0
    switch Int.random(in: 0..<8, using: &generator) {
    case 0:
      return .ping(
        Ping(
          sequenceNumber: number(&generator), node: name(&generator),
          sourceAddress: isOld ? nil : address(&generator),
          sourcePort: isOld ? 0 : UInt16(truncatingIfNeeded: generator.next()),
          sourceNode: isOld ? .unnamed : name(&generator)))
    case 1:
      return .indirectPing(
        IndirectPing(
          sequenceNumber: number(&generator), target: address(&generator),
          port: UInt16(truncatingIfNeeded: generator.next()), node: name(&generator),
          wantsNack: Bool.random(using: &generator), sourceAddress: isOld ? nil : address(&generator),
          sourcePort: isOld ? 0 : 7946, sourceNode: isOld ? .unnamed : name(&generator)))
    case 2:
      return .ack(Ack(sequenceNumber: number(&generator), payload: isOld ? nil : bytes(0...70_000, &generator)))
    case 3: return .nack(Nack(sequenceNumber: number(&generator)))
    case 4:
      return .suspect(
        Suspect(incarnation: number(&generator), node: name(&generator), from: name(&generator)))
    case 5:
      let meta = bytes(0...512, &generator)
      return .alive(
        Alive(
          incarnation: number(&generator), node: name(&generator), address: gossipAddress(&generator), meta: meta,
          isEmptyMetaNil: meta.isEmpty && Bool.random(using: &generator), versions: versions(&generator)))
    case 6: return .dead(Dead(incarnation: number(&generator), node: name(&generator), from: name(&generator)))
    default: return .user(bytes(0...300, &generator))
    }
  }

  static func state(_ generator: inout SplitMix64) -> PushPullNodeState {
    let meta = bytes(0...100, &generator)
    return PushPullNodeState(
      name: name(&generator), address: gossipAddress(&generator), meta: meta,
      isEmptyMetaNil: meta.isEmpty && Bool.random(using: &generator), incarnation: number(&generator),
      state: NodeStateKind.allCases.randomElement(using: &generator) ?? .alive, versions: versions(&generator))
  }

  static func streamMessage(_ generator: inout SplitMix64) -> StreamMessage {
    switch Int.random(in: 0..<5, using: &generator) {
    case 0:
      return .pushPull(
        PushPull(
          isJoin: Bool.random(using: &generator),
          nodes: (0..<Int.random(in: 0...20, using: &generator)).map { _ in state(&generator) },
          userState: bytes(0...3000, &generator)))
    case 1: return .user(bytes(0...3000, &generator))
    case 2: return .ping(Ping(sequenceNumber: number(&generator), node: name(&generator)))
    case 3: return .ack(Ack(sequenceNumber: number(&generator)))
    default: return .error(ErrorResponse(message: bytes(0...200, &generator)))
    }
  }

  static let ping = Ping(
    sequenceNumber: 300, node: "node-b", sourceAddress: IPAddress(10, 0, 0, 1), sourcePort: 7946,
    sourceNode: "node-a")

  static let alive = Alive(
    incarnation: 17, node: "node-b", address: GossipAddress(ip: IPAddress(10, 0, 0, 2), port: 7946),
    meta: Array("role=voter".utf8))

  /// Decodes the message of one packet body.
  static func decode(_ bytes: [UInt8]) throws -> GossipMessage {
    var cache = ByteStringCache()
    guard let type = bytes.first.flatMap(MessageType.init(rawValue:)) else { throw WireError.empty }
    let body = Array(bytes.dropFirst())
    return try GossipMessage(type: type, body: body.span, cache: &cache)
  }
}

/// msgpack written by hand, to say things that the encoder never says.
enum Pack {
  static func string(_ text: String) -> [UInt8] { [0xA0 | UInt8(text.utf8.count)] + Array(text.utf8) }

  static func map(_ pairs: [(String, [UInt8])]) -> [UInt8] {
    [0x80 | UInt8(pairs.count)] + pairs.flatMap { string($0.0) + $0.1 }
  }
}
