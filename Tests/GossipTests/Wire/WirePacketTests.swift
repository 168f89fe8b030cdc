import Testing
import struct WeirCore.SplitMix64

@testable import Gossip

@Suite("Wire packets")
struct WirePacketTests {
  static let keyA: [UInt8] = Array(0..<16)
  static let keyB: [UInt8] = Array(100..<132)

  static func configuration(
    label: String = "", keys: [[UInt8]] = [], compression: Bool = false
  ) throws -> WireConfiguration {
    var configuration = WireConfiguration()
    configuration.label = Array(label.utf8)
    configuration.isCompressionEnabled = compression
    if let primary = keys.first {
      configuration.keyring = try Keyring(primary: primary, others: Array(keys.dropFirst()))
    }
    return configuration
  }

  /// What a codec of one configuration makes of bytes.
  static func decode(
    _ bytes: [UInt8], _ configuration: WireConfiguration = WireConfiguration()
  ) throws -> (messages: [GossipMessage], summary: PacketSummary) {
    var codec = PacketCodec(configuration)
    var messages: [GossipMessage] = []
    let summary = try codec.decode(bytes.span, into: &messages)
    return (messages, summary)
  }

  static func compound(_ parts: [[UInt8]]) -> [UInt8] {
    var packet: [UInt8] = [7, UInt8(parts.count)]
    for part in parts { packet += [UInt8(part.count >> 8), UInt8(part.count & 0xFF)] }
    for part in parts { packet += part }
    return packet
  }

  static func compressed(_ bytes: [UInt8]) -> [UInt8] {
    var encoder = LZWEncoder()
    var payload: [UInt8] = []
    _ = encoder.encode(bytes.span, into: &payload)
    var message: [UInt8] = []
    CompressMessage.append(payload: payload, to: &message)
    return message
  }

  static func checksummed(_ bytes: [UInt8]) -> [UInt8] {
    let checksum = CRC32.checksum(bytes.span)
    return [12] + [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: checksum >> UInt32($0)) } + bytes
  }

  static let nack: [UInt8] = GossipMessage.nack(Nack(sequenceNumber: 5)).encoded()

  @Test("packets of every configuration come back", arguments: 0..<6)
  func roundTrip(seed: UInt64) throws {
    var generator = SplitMix64(seed: seed)
    for label in ["", "cacheA"] {
      for keys in [[], [Self.keyA], [Self.keyB, Self.keyA]] {
        for version: UInt8 in [1, 2] {
          for compression in [false, true] {
            var configuration = try Self.configuration(label: label, keys: keys, compression: compression)
            configuration.protocolVersion = version
            var codec = PacketCodec(configuration)
            let messages = (0..<Int.random(in: 1...12, using: &generator)).map { _ in
              WireSamples.message(&generator)
            }.filter { $0.encoded().count < 65_536 }
            guard !messages.isEmpty else { continue }
            let packet = try codec.encode(
              messages: messages.map { $0.encoded() }, withCRC: Bool.random(using: &generator), using: &generator)
            var decoded: [GossipMessage] = []
            try codec.decode(packet.span, into: &decoded)
            #expect(decoded == messages)
            let plainBytes = messages.reduce(messages.count > 1 ? 2 + 2 * messages.count : 0) {
              $0 + $1.encoded().count
            }
            #expect(packet.count <= plainBytes + configuration.packetOverheadBytes + 5)
          }
        }
      }
    }
  }

  @Test("overheads are those of label and envelope")
  func overheads() throws {
    #expect(try Self.configuration().packetOverheadBytes == 0)
    #expect(try Self.configuration(label: "cacheA").packetOverheadBytes == 8)
    var configuration = try Self.configuration(label: "cacheA", keys: [Self.keyA])
    #expect(configuration.packetOverheadBytes == 37)
    configuration.protocolVersion = 1
    #expect(configuration.packetOverheadBytes == 53)
    configuration.verifyOutgoing = false
    #expect(configuration.packetOverheadBytes == 8)
    var codec = PacketCodec(try Self.configuration(label: "cacheA", keys: [Self.keyA]))
    var generator = SplitMix64(seed: 0)
    let packet = try codec.encode(messages: [Self.nack], withCRC: false, using: &generator)
    #expect(packet.count == Self.nack.count + 37)
  }

  @Test("a packet is appended to what the buffer holds")
  func appending() throws {
    var codec = PacketCodec(try Self.configuration())
    var generator = SplitMix64(seed: 0)
    var buffer: [UInt8] = [9, 9]
    try codec.encode(messages: [Self.nack], withCRC: true, into: &buffer, using: &generator)
    #expect(buffer == [9, 9] + Self.checksummed(Self.nack))
    // A body that is a compound already goes as it is.
    let compound = Self.compound([Self.nack, Self.nack])
    try codec.encode(body: compound.span, withCRC: false, into: &buffer, using: &generator)
    #expect(buffer == [9, 9] + Self.checksummed(Self.nack) + compound)
    #expect(throws: WireError.empty) {
      try codec.encode(body: [UInt8]().span, withCRC: false, into: &buffer, using: &generator)
    }
  }

  @Test("more messages or longer ones than a compound holds are refused")
  func compoundLimits() throws {
    var codec = PacketCodec(try Self.configuration())
    var generator = SplitMix64(seed: 0)
    let many = Array(repeating: Self.nack, count: 255)
    let packet = try codec.encode(messages: many, withCRC: true, using: &generator)
    #expect(try Self.decode(packet).messages.count == 255)
    #expect(throws: WireError.tooManyMessages(count: 256)) {
      _ = try codec.encode(messages: many + [Self.nack], withCRC: true, using: &generator)
    }
    #expect(throws: WireError.empty) { _ = try codec.encode(messages: [], withCRC: true, using: &generator) }
    let long = [8] + [UInt8](repeating: 0, count: 65_535)
    #expect(throws: WireError.tooLarge(byteCount: 65_536, limitBytes: 65_535)) {
      _ = try codec.encode(messages: [long, Self.nack], withCRC: true, using: &generator)
    }
    var label = PacketCodec(try Self.configuration(label: String(repeating: "x", count: 256)))
    #expect(throws: WireError.labelTooLong(byteCount: 256)) {
      _ = try label.encode(messages: [Self.nack], withCRC: true, using: &generator)
    }
  }

  @Test("of a compound cut short the whole messages are kept")
  func cutShort() throws {
    let parts = (1...4).map { GossipMessage.nack(Nack(sequenceNumber: UInt32($0))).encoded() }
    let packet = Self.compound(parts)
    let bodiesStart = 2 + 2 * parts.count
    for count in 1..<packet.count {
      let (messages, summary) = try Self.decode(Array(packet[..<count]))
      let whole = count < bodiesStart ? 0 : (count - bodiesStart) / parts[0].count
      #expect(messages.count == whole)
      #expect(summary.messages == whole)
      #expect(summary.droppedMessages == (count == 1 ? 1 : 4 - whole))
    }
    #expect(try Self.decode(packet).summary.droppedMessages == 0)
  }

  @Test("one malformed message does not cost the others")
  func malformedPart() throws {
    let (messages, summary) = try Self.decode(
      Self.compound([Self.nack, [2, 0xFF], [99, 1], [6, 0x80], [], Self.nack, Self.compressed(Self.nack)]))
    #expect(messages == Array(repeating: .nack(Nack(sequenceNumber: 5)), count: 3))
    #expect(summary.droppedMessages == 4)
    #expect(
      summary.firstDropReason == .unexpectedFormat(byte: 0xFF, atByte: 0)
        || summary.firstDropReason == .unknownMessageType(99))
  }

  @Test("counters add up")
  func counters() throws {
    var codec = PacketCodec(try Self.configuration())
    var messages: [GossipMessage] = []
    try codec.decode(Self.compound([Self.nack, [2, 0xFF], Self.nack]).span, into: &messages)
    try codec.decode(Self.nack.span, into: &messages)
    _ = try? codec.decode([12, 0, 0, 0, 0, 1].span, into: &messages)
    _ = try? codec.decode([UInt8]().span, into: &messages)
    #expect(codec.counters.packets == 2)
    #expect(codec.counters.refusedPackets == 2)
    #expect(codec.counters.messages == 3)
    #expect(codec.counters.droppedMessages == 1)
  }

  @Test("a checksum counts outermost only; inside it is an unknown message")
  func checksumPlace() throws {
    #expect(try Self.decode(Self.checksummed(Self.nack)).messages.count == 1)
    for inner in [Self.compound([Self.checksummed(Self.nack)]), Self.compressed(Self.checksummed(Self.nack))] {
      let (messages, summary) = try Self.decode(inner)
      #expect(messages.isEmpty)
      #expect(summary.firstDropReason == .misplacedMessage(.hasCRC))
    }
    #expect(try Self.decode(Self.checksummed(Self.checksummed(Self.nack))).messages.isEmpty)
    var broken = Self.checksummed(Self.nack)
    broken[7] ^= 1
    #expect(throws: WireError.self) { try Self.decode(broken) }
    // Fewer than five bytes cannot be one.
    #expect(try Self.decode([12, 0, 0, 0]).summary.firstDropReason == .misplacedMessage(.hasCRC))
  }

  @Test("compounds and compressions recurse, but not without end")
  func nesting() throws {
    var packet = Self.nack
    for depth in 1...20 {
      packet = depth % 2 == 0 ? Self.compound([packet]) : Self.compressed(packet)
      let (messages, summary) = try Self.decode(packet)
      if depth <= WireLimits().nesting {
        #expect(messages.count == 1)
      } else {
        #expect(messages.isEmpty)
        #expect(summary.firstDropReason == .nestedTooDeeply(limit: WireLimits().nesting))
      }
    }
  }

  @Test("all that one packet decompresses to counts against one budget")
  func decompressionBudget() throws {
    let limit = WireLimits().decompressedPacketBytes
    let half = Self.compressed([8] + [UInt8](repeating: 0, count: limit / 2 - 1))
    #expect(half.count < 2000)
    #expect(try Self.decode(Self.compound([half, half])).messages.count == 2)
    let (messages, summary) = try Self.decode(Self.compound([half, half, half, Self.nack]))
    #expect(messages.count == 3)
    #expect(summary.droppedMessages == 1)
    let bomb = Self.compressed([8] + [UInt8](repeating: 0, count: limit))
    #expect(try Self.decode(bomb).messages.isEmpty)
    #expect(try Self.decode(bomb).summary.firstDropReason == .decompressedTooLarge(limitBytes: limit))
    let unknown: [UInt8] = [9] + Pack.map([("Algo", [1]), ("Buf", [0xA1, 0])])
    #expect(try Self.decode(unknown).summary.firstDropReason == .unknownCompression(algorithm: 1))
  }

  @Test("labels: equal, different, missing, empty, cut short, and taken off by a proxy")
  func labels() throws {
    let ours = try Self.configuration(label: "cacheA")
    let none = try Self.configuration()
    let header: [UInt8] = [244, 6] + Array("cacheA".utf8)
    #expect(try Self.decode(header + Self.nack, ours).messages.count == 1)
    #expect(throws: WireError.labelMismatch) { try Self.decode(header + Self.nack, none) }
    #expect(throws: WireError.labelMismatch) { try Self.decode(Self.nack, ours) }
    #expect(throws: WireError.labelMismatch) {
      try Self.decode([244, 6] + Array("cacheB".utf8) + Self.nack, ours)
    }
    #expect(throws: WireError.emptyLabel) { try Self.decode([244, 0] + Self.nack, none) }
    for count in 1..<header.count {
      #expect(throws: WireError.self) { try Self.decode(Array(header[..<count]), ours) }
    }
    #expect(try Self.decode(header, ours).summary.firstDropReason == .empty)
    var behindProxy = ours
    behindProxy.skipInboundLabelCheck = true
    #expect(try Self.decode(Self.nack, behindProxy).messages.count == 1)
    #expect(throws: WireError.unexpectedLabel) { try Self.decode(header + Self.nack, behindProxy) }
  }

  @Test("behind a proxy that takes the label off, the label is still authenticated")
  func proxyAndEncryption() throws {
    let configuration = try Self.configuration(label: "cacheA", keys: [Self.keyA])
    var codec = PacketCodec(configuration)
    var generator = SplitMix64(seed: 1)
    let packet = try codec.encode(messages: [Self.nack], withCRC: false, using: &generator)
    var behindProxy = configuration
    behindProxy.skipInboundLabelCheck = true
    #expect(try Self.decode(Array(packet[8...]), behindProxy).messages.count == 1)
    var unlabelled = configuration
    unlabelled.label = []
    #expect(throws: WireError.decryptionFailed) { try Self.decode(Array(packet[8...]), unlabelled) }
  }

  @Test("encryption: who refuses what")
  func encryptionRules() throws {
    let withKey = try Self.configuration(keys: [Self.keyA])
    var generator = SplitMix64(seed: 1)
    var codec = PacketCodec(withKey)
    let sealed = try codec.encode(messages: [Self.nack], withCRC: true, using: &generator)
    #expect(try Self.decode(sealed, withKey).messages.count == 1)
    // Both plaintext and what another key sealed are refused.
    #expect(throws: WireError.self) { try Self.decode(Self.nack, withKey) }
    #expect(throws: WireError.decryptionFailed) { try Self.decode(sealed, Self.configuration(keys: [Self.keyB])) }
    // While encryption is being switched on, plaintext is let in.
    var lenient = withKey
    lenient.verifyIncoming = false
    #expect(try Self.decode(Self.nack, lenient).messages.count == 1)
    #expect(try Self.decode(sealed, lenient).messages.count == 1)
    lenient.verifyOutgoing = false
    var plainSender = PacketCodec(lenient)
    #expect(try plainSender.encode(messages: [Self.nack], withCRC: false, using: &generator) == Self.nack)
    #expect(throws: WireError.unknownEncryptionVersion(2)) { try Self.decode([2] + sealed.dropFirst(), withKey) }
    for count in 1..<sealed.count {
      #expect(throws: WireError.self) { try Self.decode(Array(sealed[..<count]), withKey) }
    }
  }

  @Test("both envelope versions are read whatever version is spoken")
  func envelopeVersions() throws {
    var generator = SplitMix64(seed: 1)
    for count in 0..<40 {
      let user = GossipMessage.user(Array(repeating: 3, count: count)).encoded()
      for version: UInt8 in [1, 2] {
        var configuration = try Self.configuration(keys: [Self.keyA])
        configuration.protocolVersion = version
        var codec = PacketCodec(configuration)
        let sealed = try codec.encode(messages: [user], withCRC: false, using: &generator)
        #expect(sealed[0] == version - 1)
        #expect(sealed.count == Envelope.sealedByteCount(of: user.count, version: version - 1))
        let padding = sealed.count - 29 - user.count
        #expect(version == 1 ? (1...16).contains(padding) : padding == 0)
        #expect(try Self.decode(sealed, Self.configuration(keys: [Self.keyA])).messages == [.user(Array(user[1...]))])
      }
    }
  }

  @Test("keys are changed in a running cluster: add everywhere, use everywhere, remove everywhere")
  func rotation() throws {
    var generator = SplitMix64(seed: 1)
    var members = try (0..<3).map { _ in PacketCodec(try Self.configuration(keys: [Self.keyA])) }
    func exchange() throws {
      for sender in members.indices {
        let packet = try members[sender].encode(messages: [Self.nack], withCRC: true, using: &generator)
        for receiver in members.indices {
          var messages: [GossipMessage] = []
          try members[receiver].decode(packet.span, into: &messages)
          #expect(messages.count == 1)
        }
      }
    }
    for member in members.indices {
      try members[member].configuration.keyring?.add(Self.keyB)
      try exchange()
    }
    for member in members.indices {
      try members[member].configuration.keyring?.use(Self.keyB)
      try exchange()
    }
    for member in members.indices {
      try members[member].configuration.keyring?.remove(Self.keyA)
      try exchange()
    }
    #expect(members[0].configuration.keyring?.keys == [Self.keyB])
  }

  @Test("a keyring keeps its rules")
  func keyring() throws {
    for count in [0, 15, 17, 33] {
      #expect(throws: WireError.invalidKeyLength(byteCount: count)) {
        try Keyring(primary: Array(repeating: 1, count: count))
      }
    }
    var keyring = try Keyring(primary: Self.keyA, others: [Self.keyA, Self.keyB, Self.keyB])
    #expect(keyring.keys == [Self.keyA, Self.keyB])
    #expect(throws: WireError.cannotRemovePrimaryKey) { try keyring.remove(Self.keyA) }
    #expect(throws: WireError.keyNotInstalled) { try keyring.use(Array(repeating: 9, count: 16)) }
    try keyring.remove(Array(repeating: 9, count: 16))
    try keyring.use(Self.keyB)
    #expect(keyring.primary == Self.keyB)
    try keyring.remove(Self.keyA)
    #expect(keyring.keys == [Self.keyB])
    #expect(!"\(keyring)".contains("100"))
  }

  @Test("compression is kept only where it makes a packet smaller")
  func compressionOnlyIfSmaller() throws {
    var codec = PacketCodec(try Self.configuration(compression: true))
    var generator = SplitMix64(seed: 1)
    let noise = GossipMessage.user(WireSamples.bytes(1000...1000, &generator)).encoded()
    #expect(try codec.encode(messages: [noise], withCRC: false, using: &generator) == noise)
    let same = GossipMessage.user(Array(repeating: 1, count: 1000)).encoded()
    let packet = try codec.encode(messages: [same], withCRC: false, using: &generator)
    #expect(packet[0] == MessageType.compress.rawValue)
    #expect(packet.count < 200)
    #expect(try codec.encode(messages: [Self.nack], withCRC: false, using: &generator) == Self.nack)
  }

  @Test("the visitor sees types and bodies, and reads them where they lie")
  func visitor() throws {
    var codec = PacketCodec(try Self.configuration())
    let packet = Self.compound([
      GossipMessage.ping(WireSamples.ping).encoded(), GossipMessage.alive(WireSamples.alive).encoded(),
    ])
    var seen: [MessageType] = []
    _ = try codec.decode(packet.span) { type, body in
      seen.append(type)
      if type == .ping, let view = try? PingView(body) {
        #expect([UInt8](copying: body, view.node) == WireSamples.ping.node.bytes)
        #expect(view.sequenceNumber == WireSamples.ping.sequenceNumber)
      }
      if type == .alive, let view = try? AliveView(body) {
        #expect(view.address == WireSamples.alive.address)
        #expect([UInt8](copying: body, view.meta ?? 0..<0) == WireSamples.alive.meta)
      }
    }
    #expect(seen == [.ping, .alive])
  }
}
