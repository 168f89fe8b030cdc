import Foundation
import struct WeirCore.SplitMix64

@testable import Gossip

/// What a capture's description says a field holds.
enum FieldValue: Hashable, Decodable, CustomStringConvertible {
  case null
  case bool(Bool)
  case integer(Int)
  case bytes([UInt8])

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if container.decodeNil() {
      self = .null
    } else if let value = try? container.decode(Bool.self) {
      self = .bool(value)
    } else if let value = try? container.decode(Int.self) {
      self = .integer(value)
    } else {
      let text = try container.decode(String.self)
      if text.hasPrefix("hex:"), let bytes = [UInt8](hex: text.dropFirst(4)) {
        self = .bytes(bytes)
      } else {
        self = .bytes(Array(text.utf8))
      }
    }
  }

  var description: String {
    switch self {
    case .null: "null"
    case .bool(let value): "\(value)"
    case .integer(let value): "\(value)"
    case .bytes(let bytes): "\(bytes.hex) (\(String(decoding: bytes, as: UTF8.self)))"
    }
  }
}

typealias Fields = [String: FieldValue]

/// The fields of our messages under the names they have on the wire.
enum WireFields {
  static func optional(_ name: NodeName) -> FieldValue? { name.isEmpty ? nil : .bytes(name.bytes) }

  static func source(_ address: IPAddress?, _ node: NodeName, _ port: UInt16) -> Fields {
    var fields: Fields = [:]
    if let address { fields["SourceAddr"] = .bytes(address.bytes) }
    if !node.isEmpty { fields["SourceNode"] = .bytes(node.bytes) }
    if port != 0 { fields["SourcePort"] = .integer(Int(port)) }
    return fields
  }

  static func of(_ ping: Ping) -> Fields {
    source(ping.sourceAddress, ping.sourceNode, ping.sourcePort).merging([
      "Node": .bytes(ping.node.bytes), "SeqNo": .integer(Int(ping.sequenceNumber)),
    ]) { first, _ in first }
  }

  static func of(_ ping: IndirectPing) -> Fields {
    source(ping.sourceAddress, ping.sourceNode, ping.sourcePort).merging([
      "Nack": .bool(ping.wantsNack), "Node": .bytes(ping.node.bytes), "Port": .integer(Int(ping.port)),
      "SeqNo": .integer(Int(ping.sequenceNumber)), "Target": .bytes(ping.target.bytes),
    ]) { first, _ in first }
  }

  static func of(_ ack: Ack) -> Fields {
    ["Payload": ack.payload.map { .bytes($0) } ?? .null, "SeqNo": .integer(Int(ack.sequenceNumber))]
  }

  static func accusation(_ incarnation: UInt32, _ node: NodeName, _ from: NodeName) -> Fields {
    ["From": .bytes(from.bytes), "Incarnation": .integer(Int(incarnation)), "Node": .bytes(node.bytes)]
  }

  static func versions(_ versions: ProtocolVersions?) -> FieldValue {
    guard let v = versions else { return .null }
    return .bytes([
      v.protocolMin, v.protocolMax, v.protocolCurrent, v.delegateMin, v.delegateMax, v.delegateCurrent,
    ])
  }

  static func meta(_ meta: [UInt8], isEmptyNil: Bool) -> FieldValue {
    meta.isEmpty && isEmptyNil ? .null : .bytes(meta)
  }

  static func of(_ alive: Alive) -> Fields {
    [
      "Addr": .bytes(alive.address.ip.bytes), "Incarnation": .integer(Int(alive.incarnation)),
      "Meta": meta(alive.meta, isEmptyNil: alive.isEmptyMetaNil), "Node": .bytes(alive.node.bytes),
      "Port": .integer(Int(alive.address.port)), "Vsn": versions(alive.versions),
    ]
  }

  static func of(_ state: PushPullNodeState) -> Fields {
    [
      "Addr": .bytes(state.address.ip.bytes), "Incarnation": .integer(Int(state.incarnation)),
      "Meta": meta(state.meta, isEmptyNil: state.isEmptyMetaNil), "Name": .bytes(state.name.bytes),
      "Port": .integer(Int(state.address.port)), "State": .integer(Int(state.state.rawValue)),
      "Vsn": versions(state.versions),
    ]
  }
}

/// One line of a description: of what the file says, or of what was decoded.
enum DescribedLine: Hashable, CustomStringConvertible {
  /// A layer, as text.
  case layer(String)
  case message(String, Fields)
  case user([UInt8])
  case userStream([UInt8])
  /// User state: how many bytes, and the first of them.
  case userState(Int, [UInt8])

  var description: String {
    switch self {
    case .layer(let text): text
    case .message(let kind, let fields): "\(kind) \(fields)"
    case .user(let bytes): "user \(bytes.hex)"
    case .userStream(let bytes): "user(stream) \(bytes.hex)"
    case .userState(let count, let bytes): "userstate \(count)B \(bytes.hex)"
    }
  }

  /// What our walk says of messages; a description may say more of what lies within them, in other words.
  private static let kinds: Set<String> = [
    "ping", "indirectPing", "ackResp", "nackResp", "suspect", "alive", "dead", "pushPull header", "state", "err",
  ]

  /// Nil for a line of a form that is not known here.
  init?(parsing line: String) {
    if let match = line.wholeMatch(of: #/(?<kind>[a-zA-Z]+(?: header)?)(?:\(stream\))? (?<fields>\{.*\})/#),
      Self.kinds.contains(String(match.kind))
    {
      guard let fields = try? JSONDecoder().decode(Fields.self, from: Data(match.fields.utf8)) else { return nil }
      self = .message(String(match.kind), fields)
    } else if let match = line.wholeMatch(of: #/user \d+B: (?<text>".*")/#) {
      guard case .bytes(let bytes)? = Self.value(match.text) else { return nil }
      self = .user(bytes)
    } else if let match = line.wholeMatch(of: #/user\(stream\) \{.*\} body=(?<text>".*")/#) {
      guard case .bytes(let bytes)? = Self.value(match.text) else { return nil }
      self = .userStream(bytes)
    } else if let match = line.wholeMatch(of: #/userstate (?<count>\d+)B (?<text>.*?)\s*leftover=0/#) {
      guard let count = Int(match.count) else { return nil }
      if let value = Self.value(match.text), case .bytes(let bytes) = value {
        self = .userState(count, bytes)
      } else {
        guard let bytes = [UInt8](hex: match.text) else { return nil }
        self = .userState(count, bytes)
      }
    } else if let match = line.firstMatch(of: #/^compress Algo=0 Buf=\d+B -> \d+B/#) {
      self = .layer(String(match.0))
    } else if line.wholeMatch(of: #/(hasCrc|compound|encrypted|encrypt\(stream\)|hasLabel) .*/#) != nil {
      self = .layer(line)
    } else {
      return nil
    }
  }

  private static func value(_ text: Substring) -> FieldValue? {
    try? JSONDecoder().decode(FieldValue.self, from: Data(text.utf8))
  }

  /// Whether what was decoded is what the file says; user state is compared as far as the file shows it.
  func matches(_ decoded: DescribedLine) -> Bool {
    if case .userState(let count, let shown) = self, case .userState(let decodedCount, let bytes) = decoded {
      return count == decodedCount && bytes.starts(with: shown)
    }
    if case .layer(let said) = self, case .layer(let walked) = decoded {
      return said.hasPrefix(walked) || Self.agree(said, walked)
    }
    return self == decoded
  }

  /// Whether two lines name the same layer and nothing that both say of it differs.
  private static func agree(_ said: String, _ walked: String) -> Bool {
    func parts(_ text: String) -> (name: Substring, values: [Substring: Substring]) {
      let words = text.split(separator: " ")
      let pairs = words.compactMap { word in
        word.firstIndex(of: "=").map { (word[..<$0], word[word.index(after: $0)...]) }
      }
      return (words.first ?? "", Dictionary(pairs) { first, _ in first })
    }
    let (a, b) = (parts(said), parts(walked))
    return a.name == b.name && a.values.allSatisfy { key, value in b.values[key].map { $0 == value } ?? true }
  }
}

/// Takes the layers of a packet or stream apart one by one, noting each in the words of the descriptions, and puts them
/// together again from what was decoded.
struct LayerWalk {
  enum Failure: Error {
    case unexpected(String)
  }

  let label: [UInt8]
  let keyring: Keyring?
  private(set) var lines: [DescribedLine] = []

  init(label: [UInt8], keyring: Keyring?) {
    self.label = label
    self.keyring = keyring
  }

  private func text(_ bytes: [UInt8]) -> String { "b'\(String(decoding: bytes, as: UTF8.self))'" }

  /// Notes a label header, if there is one; returns how many bytes it takes.
  private mutating func walkLabel(_ bytes: [UInt8]) -> Int {
    guard bytes.first == MessageType.hasLabel.rawValue else { return 0 }
    let count = Int(bytes[1])
    lines.append(.layer("hasLabel len=\(count) label=\(text(Array(bytes[2..<(2 + count)])))"))
    return 2 + count
  }

  /// Walks a packet; returns the bytes that our encoders make of what was decoded.
  mutating func packet(_ bytes: [UInt8]) throws -> [UInt8] {
    let labelBytes = walkLabel(bytes)
    var rebuilt = Array(bytes[..<labelBytes])
    let rest = Array(bytes[labelBytes...])
    guard let keyring else { return rebuilt + (try outermost(rest)) }
    let nonce = Array(rest[1..<13])
    lines.append(
      .layer("encrypted vsn=\(rest[0]) nonce=\(nonce.hex) ct+tag=\(rest.count - 13)B aad=\(text(label))"))
    let plain = try Envelope.open(rest.span, keyring: keyring, authenticating: label)
    let inner = try outermost(plain)
    rebuilt += try seal(inner, like: rest, authenticating: label, keyring)
    return rebuilt
  }

  /// Seals with the nonce, version and key of the original.
  private func seal(
    _ plain: [UInt8], like original: [UInt8], authenticating associated: [UInt8], _ keyring: Keyring
  ) throws -> [UInt8] {
    var generator = NonceGenerator(bytes: Array(original[1..<13]))
    let nonce = Envelope.Nonce(using: &generator)
    for key in keyring.keys {
      let single = try Keyring(primary: key)
      guard (try? Envelope.open(original.span, keyring: single, authenticating: associated)) != nil else { continue }
      var sealed: [UInt8] = []
      try Envelope.seal(
        plain, version: original[0], keyring: single, authenticating: associated, nonce: nonce, into: &sealed)
      return sealed
    }
    throw Failure.unexpected("no key opens it")
  }

  private mutating func outermost(_ bytes: [UInt8]) throws -> [UInt8] {
    guard bytes.first == MessageType.hasCRC.rawValue else { return try message(bytes) }
    let payload = Array(bytes[5...])
    let checksum = CRC32.checksum(payload.span)
    let carried = Array(bytes[1..<5])
    let computed = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: checksum >> UInt32($0)) }
    lines.append(.layer("hasCrc crc=\(carried.hex) ok=\(carried == computed ? "True" : "False")"))
    return [bytes[0]] + computed + (try message(payload))
  }

  private mutating func message(_ bytes: [UInt8]) throws -> [UInt8] {
    guard let type = bytes.first.flatMap(MessageType.init(rawValue:)) else { throw Failure.unexpected("type") }
    switch type {
    case .compound: return try compound(bytes)
    case .compress:
      let plain = try decompress(bytes)
      return try compress(try message(plain))
    default: return try leaf(type, bytes)
    }
  }

  private mutating func compound(_ bytes: [UInt8]) throws -> [UInt8] {
    let count = Int(bytes[1])
    let lengths = (0..<count).map { Int(bytes[2 + 2 * $0]) << 8 | Int(bytes[3 + 2 * $0]) }
    lines.append(.layer("compound n=\(count) lens=\(lengths)"))
    var rebuilt = [bytes[0], bytes[1]]
    var bodies: [UInt8] = []
    var start = 2 + 2 * count
    for length in lengths {
      let body = try message(Array(bytes[start..<(start + length)]))
      rebuilt += [UInt8(body.count >> 8), UInt8(body.count & 0xFF)]
      bodies += body
      start += length
    }
    return rebuilt + bodies
  }

  private mutating func decompress(_ bytes: [UInt8]) throws -> [UInt8] {
    let body = Array(bytes[1...])
    let payload = try CompressMessage.payload(of: body.span)
    var decoder = LZWDecoder()
    var plain: [UInt8] = []
    let count = try decoder.decode(body.span.extracting(payload), into: &plain, limitBytes: 1 << 20)
    lines.append(.layer("compress Algo=0 Buf=\(payload.count)B -> \(count)B"))
    return Array(plain[..<count])
  }

  private func compress(_ plain: [UInt8]) throws -> [UInt8] {
    var encoder = LZWEncoder()
    var compressed: [UInt8] = []
    guard encoder.encode(plain.span, into: &compressed) else { throw Failure.unexpected("LZW limit") }
    var rebuilt: [UInt8] = []
    CompressMessage.append(payload: compressed, to: &rebuilt)
    return rebuilt
  }

  private mutating func leaf(_ type: MessageType, _ bytes: [UInt8]) throws -> [UInt8] {
    var cache = ByteStringCache()
    let body = Array(bytes[1...])
    let message = try GossipMessage(type: type, body: body.span, cache: &cache)
    switch message {
    case .ping(let ping): lines.append(.message("ping", WireFields.of(ping)))
    case .indirectPing(let ping): lines.append(.message("indirectPing", WireFields.of(ping)))
    case .ack(let ack): lines.append(.message("ackResp", WireFields.of(ack)))
    case .nack(let nack): lines.append(.message("nackResp", ["SeqNo": .integer(Int(nack.sequenceNumber))]))
    case .suspect(let m): lines.append(.message("suspect", WireFields.accusation(m.incarnation, m.node, m.from)))
    case .dead(let m): lines.append(.message("dead", WireFields.accusation(m.incarnation, m.node, m.from)))
    case .alive(let alive): lines.append(.message("alive", WireFields.of(alive)))
    case .user(let bytes): lines.append(.user(bytes))
    }
    return message.encoded()
  }

  /// Walks a stream; `message` is what the stream decoder made of it. Returns the bytes made anew.
  mutating func stream(_ bytes: [UInt8], message: StreamMessage) throws -> [UInt8] {
    let labelBytes = walkLabel(bytes)
    let rest = Array(bytes[labelBytes...])
    guard rest.first == MessageType.encrypt.rawValue, let keyring else {
      return Array(bytes[..<labelBytes]) + (try streamBody(rest, message))
    }
    let envelope = Array(rest[5...])
    lines.append(.layer("encrypt(stream) len=\(envelope.count) vsn=\(envelope[0]) aad=first5+label"))
    let associated = Array(rest[..<5]) + label
    let plain = try Envelope.open(envelope.span, keyring: keyring, authenticating: associated)
    let inner = try streamBody(plain, message)
    return Array(bytes[..<labelBytes]) + Array(rest[..<5])
      + (try seal(inner, like: envelope, authenticating: associated, keyring))
  }

  private mutating func streamBody(_ bytes: [UInt8], _ message: StreamMessage) throws -> [UInt8] {
    if bytes.first == MessageType.compress.rawValue {
      let plain = try decompress(bytes)
      return try compress(try streamBody(plain, message))
    }
    describe(message)
    var configuration = WireConfiguration()
    configuration.isCompressionEnabled = false
    var encoder = StreamEncoder(configuration)
    var generator = SplitMix64(seed: 0)
    let rebuilt = try encoder.encode(message, side: .acceptor, using: &generator)
    // Older memberlist writes signed fields above 127 as unsigned numbers; both forms are right.
    return rebuilt == bytes ? rebuilt : Self.withUnsignedLengths(rebuilt)
  }

  private mutating func describe(_ message: StreamMessage) {
    switch message {
    case .ping(let ping): lines.append(.message("ping", WireFields.of(ping)))
    case .ack(let ack): lines.append(.message("ackResp", WireFields.of(ack)))
    case .error(let error): lines.append(.message("err", ["Error": .bytes(error.message)]))
    case .user(let bytes): lines.append(.userStream(bytes))
    case .pushPull(let exchange):
      lines.append(
        .message(
          "pushPull header",
          [
            "Join": .bool(exchange.isJoin), "Nodes": .integer(exchange.nodes.count),
            "UserStateLen": .integer(exchange.userState.count),
          ]))
      lines += exchange.nodes.map { .message("state", WireFields.of($0)) }
      lines.append(.userState(exchange.userState.count, exchange.userState))
    }
  }

  /// Rewrites the lengths of a header from the newer form (`D1`, `D2`) to the older one (`CC`, `CD`, `CE`).
  private static func withUnsignedLengths(_ bytes: [UInt8]) -> [UInt8] {
    var result = bytes
    for key in ["Nodes", "UserStateLen", "UserMsgLen"] {
      let name = [0xA0 | UInt8(key.utf8.count)] + Array(key.utf8)
      guard let at = (0..<result.count).first(where: { result[$0...].starts(with: name) }) else { continue }
      let value = at + name.count
      switch result[value] {
      case 0xD1 where result[value + 1] == 0: result.replaceSubrange(value...(value + 1), with: [0xCC])
      case 0xD1: result[value] = 0xCD
      case 0xD2 where result[value + 1] == 0 && result[value + 2] == 0:
        result.replaceSubrange(value...(value + 2), with: [0xCD])
      case 0xD2: result[value] = 0xCE
      default: break
      }
    }
    return result
  }
}
