import Testing
import struct WeirCore.SplitMix64

@testable import Gossip

@Suite("Wire streams")
struct WireStreamTests {
  static let limits = WireLimits()

  /// What a decoder makes of a whole stream.
  static func decode(
    _ bytes: [UInt8], _ configuration: WireConfiguration = WireConfiguration(), side: StreamSide = .acceptor
  ) throws -> StreamMessage? {
    var decoder = StreamDecoder(configuration, side: side)
    return try decoder.receive(bytes.span)
  }

  static func pushPull(nodes: [UInt8], userStateBytes: [UInt8] = [0]) -> [UInt8] {
    [6] + Pack.map([("Join", [0xC2]), ("Nodes", nodes), ("UserStateLen", userStateBytes)])
  }

  @Test("messages of every configuration come back, both ways, in chunks of any size", arguments: 0..<6)
  func roundTrip(seed: UInt64) throws {
    var generator = SplitMix64(seed: seed)
    for label in ["", "cacheA"] {
      for keys in [[], [WirePacketTests.keyA], [WirePacketTests.keyB, WirePacketTests.keyA]] {
        for version: UInt8 in [1, 2] {
          for compression in [false, true] {
            var configuration = try WirePacketTests.configuration(label: label, keys: keys, compression: compression)
            configuration.protocolVersion = version
            try Self.exchange(configuration, &generator)
          }
        }
      }
    }
  }

  static func exchange(_ configuration: WireConfiguration, _ generator: inout SplitMix64) throws {
    var encoder = StreamEncoder(configuration)
    for side in [StreamSide.dialer, .acceptor] {
      let message = WireSamples.streamMessage(&generator)
      let stream = try encoder.encode(message, side: side, using: &generator)
      #expect((stream.first == MessageType.hasLabel.rawValue) == (side == .dialer && !configuration.label.isEmpty))
      var decoder = StreamDecoder(configuration, side: side == .dialer ? .acceptor : .dialer)
      var start = 0
      var decoded: StreamMessage?
      while start < stream.count {
        #expect(decoder.missingBytes > 0 && decoder.missingBytes <= stream.count - start)
        let end = min(stream.count, start + Int.random(in: 1...200, using: &generator))
        decoded = try decoder.receive(stream.span.extracting(start..<end))
        #expect((decoded == nil) == (end < stream.count))
        start = end
      }
      #expect(decoded == message)
      #expect(decoder.missingBytes == 0)
      try decoder.end()
    }
  }

  @Test("a stream is compressed always, even where that makes it longer")
  func compression() throws {
    var encoder = StreamEncoder(try WirePacketTests.configuration(compression: true))
    var generator = SplitMix64(seed: 0)
    let stream = try encoder.encode(.ping(Ping(sequenceNumber: 1, node: "b")), side: .dialer, using: &generator)
    #expect(stream[0] == MessageType.compress.rawValue)
    #expect(try Self.decode(stream) == .ping(Ping(sequenceNumber: 1, node: "b")))
  }

  @Test("too many nodes, too much user state and negative lengths are refused before anything is kept")
  func limits() throws {
    #expect(throws: WireError.tooManyNodes(count: 1_048_577, limit: 1_048_576)) {
      try Self.decode(Self.pushPull(nodes: [0xCE, 0x00, 0x10, 0x00, 0x01]))
    }
    #expect(try Self.decode(Self.pushPull(nodes: [0xCE, 0x00, 0x10, 0x00, 0x00])) == nil)
    #expect(throws: WireError.negativeLength) { try Self.decode(Self.pushPull(nodes: [0xFF])) }
    #expect(throws: WireError.negativeLength) {
      try Self.decode(Self.pushPull(nodes: [0xD3, 0x80, 0, 0, 0, 0, 0, 0, 0]))
    }
    #expect(throws: WireError.negativeLength) { try Self.decode(Self.pushPull(nodes: [0], userStateBytes: [0xE0])) }
    #expect(throws: WireError.tooLarge(byteCount: 20_971_521, limitBytes: 20_971_520)) {
      try Self.decode(Self.pushPull(nodes: [0], userStateBytes: [0xCE, 0x01, 0x40, 0x00, 0x01]))
    }
    let user: [UInt8] = [8] + Pack.map([("UserMsgLen", [0xCE, 0x01, 0x40, 0x00, 0x01])])
    #expect(throws: WireError.tooLarge(byteCount: 20_971_521, limitBytes: 20_971_520)) { try Self.decode(user) }
    #expect(throws: WireError.negativeLength) {
      try Self.decode([8] + Pack.map([("UserMsgLen", [0xD2, 0xFF, 0, 0, 0])]))
    }
    #expect(throws: WireError.integerOutOfRange(atByte: 12)) {
      try Self.decode([8] + Pack.map([("UserMsgLen", [0xCF, 0xFF, 0, 0, 0, 0, 0, 0, 0])]))
    }
  }

  @Test("one message of a stream may not wait for more than its share")
  func messageLimits() throws {
    let name: [UInt8] = [0xDB, 0x01, 0, 0, 0]
    #expect(throws: WireError.self) { try Self.decode([0] + Pack.map([("Node", name)])) }
    #expect(throws: WireError.self) { try Self.decode([13] + Pack.map([("Error", name)])) }
    #expect(throws: WireError.self) { try Self.decode(Self.pushPull(nodes: [1]) + Pack.map([("Name", name)])) }
    #expect(throws: WireError.self) { try Self.decode([9] + Pack.map([("Buf", [0xDB, 0xFF, 0xFF, 0xFF, 0xFF])])) }
    #expect(try Self.decode([9] + Pack.map([("Buf", [0xDB, 0x00, 0xFF, 0xFF, 0xFF])])) == nil)
  }

  @Test("a stream that decompresses to more than its limit is refused")
  func bomb() throws {
    var configuration = WireConfiguration()
    configuration.limits.decompressedStreamBytes = 100_000
    let inner = [8] + Pack.map([("UserMsgLen", [0xCE, 0, 0x0F, 0, 0])]) + Array(repeating: UInt8(0), count: 0xF0000)
    let stream = WirePacketTests.compressed(inner)
    #expect(throws: WireError.decompressedTooLarge(limitBytes: 100_000)) { try Self.decode(stream, configuration) }
    #expect(try Self.decode(stream) == .user(Array(repeating: 0, count: 0xF0000)))
  }

  @Test("encrypted frames: limits, and who refuses what")
  func encryption() throws {
    let withKey = try WirePacketTests.configuration(keys: [WirePacketTests.keyA])
    let plain = WireConfiguration()
    var encoder = StreamEncoder(withKey)
    var generator = SplitMix64(seed: 0)
    let sealed = try encoder.encode(.user([1, 2, 3]), side: .dialer, using: &generator)
    #expect(try Self.decode(sealed, withKey) == .user([1, 2, 3]))
    #expect(throws: WireError.encryptionNotConfigured) { try Self.decode(sealed, plain) }
    #expect(throws: WireError.notEncrypted) { try Self.decode([8] + Pack.map([("UserMsgLen", [0])]), withKey) }
    #expect(throws: WireError.tooLarge(byteCount: 20_971_521, limitBytes: 20_971_520)) {
      try Self.decode([10, 0x01, 0x40, 0x00, 0x01], withKey)
    }
    for byteCount: UInt8 in [0, 1, 28] {
      let short = [10, 0, 0, 0, byteCount] + Array(repeating: UInt8(1), count: Int(byteCount))
      #expect(throws: WireError.decryptionFailed) { try Self.decode(short, withKey) }
    }
    for index in sealed.indices {
      var altered = sealed
      altered[index] ^= 1
      var decoder = StreamDecoder(withKey, side: .acceptor)
      #expect((try? decoder.receive(altered.span)) == nil)
    }
    var lenient = withKey
    lenient.verifyIncoming = false
    #expect(try Self.decode([8] + Pack.map([("UserMsgLen", [0])]), lenient) == .user([]))
  }

  @Test("what is inside a frame must be whole, and no second frame or compression")
  func nesting() throws {
    let withKey = try WirePacketTests.configuration(keys: [WirePacketTests.keyA])
    let half = WirePacketTests.compressed([8] + Pack.map([("UserMsgLen", [9])]) + [1, 2, 3])
    #expect(throws: WireError.truncated(neededBytes: 9)) { try Self.decode(half) }
    #expect(throws: WireError.truncated(neededBytes: 1)) { try Self.decode(WirePacketTests.compressed([])) }
    let twice = WirePacketTests.compressed(WirePacketTests.compressed([0]))
    #expect(throws: WireError.misplacedMessage(.compress)) { try Self.decode(twice) }
    var encoder = StreamEncoder(withKey)
    var generator = SplitMix64(seed: 0)
    let sealed = try encoder.encode(.user([]), side: .dialer, using: &generator)
    #expect(throws: WireError.misplacedMessage(.encrypt)) {
      var lenient = withKey
      lenient.verifyIncoming = false
      return try Self.decode(WirePacketTests.compressed(sealed), lenient)
    }
  }

  @Test("packet messages have no place in a stream, and unknown types neither")
  func types() throws {
    for type: MessageType in [.indirectPing, .suspect, .alive, .dead, .compound, .nack, .hasCRC] {
      #expect(throws: WireError.misplacedMessage(type)) { try Self.decode([type.rawValue, 0x80]) }
    }
    #expect(throws: WireError.unknownMessageType(77)) { try Self.decode([77]) }
    // The answer to a dialer has no label header.
    #expect(throws: WireError.misplacedMessage(.hasLabel)) { try Self.decode([244, 1, 65, 0], side: .dialer) }
  }

  @Test("labels of a stream")
  func labels() throws {
    let ours = try WirePacketTests.configuration(label: "cacheA")
    let nothing = [UInt8(8)] + Pack.map([("UserMsgLen", [0])])
    let header: [UInt8] = [244, 6] + Array("cacheA".utf8)
    #expect(try Self.decode(header + nothing, ours) == .user([]))
    #expect(try Self.decode(nothing, ours, side: .dialer) == .user([]))
    #expect(throws: WireError.labelMismatch) { try Self.decode(nothing, ours) }
    #expect(throws: WireError.labelMismatch) { try Self.decode(header + nothing, WireConfiguration()) }
    #expect(throws: WireError.labelMismatch) { try Self.decode([244, 6] + Array("cacheB".utf8), ours) }
    #expect(throws: WireError.emptyLabel) { try Self.decode([244, 0], ours) }
    var behindProxy = ours
    behindProxy.skipInboundLabelCheck = true
    #expect(try Self.decode(nothing, behindProxy) == .user([]))
    #expect(throws: WireError.unexpectedLabel) { try Self.decode(header + nothing, behindProxy) }
  }

  @Test("an answer on a labelled, encrypted stream authenticates the label that it does not show")
  func labelledAnswer() throws {
    let ours = try WirePacketTests.configuration(label: "cacheA", keys: [WirePacketTests.keyA])
    var encoder = StreamEncoder(ours)
    var generator = SplitMix64(seed: 0)
    let answer = try encoder.encode(.ack(Ack(sequenceNumber: 1)), side: .acceptor, using: &generator)
    #expect(answer[0] == MessageType.encrypt.rawValue)
    #expect(try Self.decode(answer, ours, side: .dialer) == .ack(Ack(sequenceNumber: 1)))
    var unlabelled = ours
    unlabelled.label = []
    #expect(throws: WireError.decryptionFailed) { try Self.decode(answer, unlabelled, side: .dialer) }
  }

  @Test("a node state of an unknown kind is left out, the others are kept")
  func unknownState() throws {
    func state(_ number: UInt8, _ name: String) -> [UInt8] {
      Pack.map([("Addr", [0xA4, 10, 0, 0, 1]), ("Name", Pack.string(name)), ("State", [number])])
    }
    var decoder = StreamDecoder(side: .acceptor)
    let stream = Self.pushPull(nodes: [3]) + state(0, "a") + state(9, "b") + state(3, "c")
    guard case .pushPull(let exchange)? = try decoder.receive(stream.span) else {
      Issue.record("no exchange")
      return
    }
    #expect(exchange.nodes.map(\.name) == ["a", "c"])
    #expect(exchange.nodes.map(\.state) == [.alive, .left])
    #expect(decoder.unknownNodeStates == 1)
  }

  @Test("encoders refuse what a peer would refuse")
  func encoderLimits() throws {
    var configuration = WireConfiguration()
    configuration.limits.userBytes = 10
    configuration.limits.nodeCount = 1
    var encoder = StreamEncoder(configuration)
    var generator = SplitMix64(seed: 0)
    let eleven = Array(repeating: UInt8(0), count: 11)
    #expect(throws: WireError.tooLarge(byteCount: 11, limitBytes: 10)) {
      try encoder.encode(.user(eleven), side: .dialer, using: &generator)
    }
    #expect(throws: WireError.tooLarge(byteCount: 11, limitBytes: 10)) {
      try encoder.encode(
        .pushPull(PushPull(isJoin: false, nodes: [], userState: eleven)), side: .dialer, using: &generator)
    }
    let node = WireSamples.state(&generator)
    #expect(throws: WireError.tooManyNodes(count: 2, limit: 1)) {
      try encoder.encode(.pushPull(PushPull(isJoin: true, nodes: [node, node])), side: .dialer, using: &generator)
    }
  }

  @Test("a thousand nodes byte by byte: each byte is taken in and looked at a bounded number of times")
  func manyNodes() throws {
    var generator = SplitMix64(seed: 8)
    let nodes = (0..<300).map { _ in WireSamples.state(&generator) }
    let message = StreamMessage.pushPull(PushPull(isJoin: true, nodes: nodes, userState: [1, 2, 3]))
    var encoder = StreamEncoder(try WirePacketTests.configuration())
    let stream = try encoder.encode(message, side: .dialer, using: &generator)
    var decoder = StreamDecoder(side: .acceptor)
    var decoded: StreamMessage?
    for byte in stream {
      #expect(decoded == nil)
      decoded = try decoder.receive([byte].span)
    }
    #expect(decoded == message)
  }
}
