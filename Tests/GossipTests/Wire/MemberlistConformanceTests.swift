import Testing

@testable import Gossip

/// Packets and streams captured from live nodes of memberlist and serf.
@Suite(
  "Memberlist conformance",
  .enabled(
    if: WireCapture.isAvailable,
    "no captures: put them in ../shared/conformance/memberlist or name their folder by CONFORMANCE_DIR"))
struct MemberlistConformanceTests {
  @Test("every file of the folder is a capture")
  func everyFileIsRead() {
    #expect(WireCapture.all.count == WireCapture.fileCount)
    #expect(!WireCapture.all.isEmpty)
  }

  @Test("decodes to what the file says and encodes to the same bytes", arguments: WireCapture.all)
  func decodesAndEncodes(capture: WireCapture) throws {
    if let announced = capture.announcedBytes { #expect(capture.bytes.count == announced) }
    var walk = LayerWalk(label: capture.label, keyring: try Self.keyring(for: capture))
    let rebuilt: [UInt8]
    if capture.isStream {
      let message = try #require(try Self.decodeStream(capture, chunkBytes: capture.bytes.count))
      rebuilt = try walk.stream(capture.bytes, message: message)
    } else {
      rebuilt = try walk.packet(capture.bytes)
    }
    #expect(rebuilt == capture.bytes, "made anew: \(rebuilt.hex)")

    // A file may say something in words that are not known here: then what it says otherwise must be found, in order.
    let said = capture.lines.map { ($0, DescribedLine(parsing: $0)) }
    for (line, parsed) in said where parsed == nil { print("\(capture.name): not compared: \(line)") }
    let expected = said.compactMap(\.1)
    if expected.count == said.count { #expect(expected.count == walk.lines.count) }
    #expect(!expected.isEmpty, "nothing that the file says is understood")
    var decoded = walk.lines[...]
    for line in expected {
      let place = decoded.firstIndex { line.matches($0) }
      #expect(place != nil, "the file says \(line), decoded was \(walk.lines)")
      if let place { decoded = decoded[(place + 1)...] }
    }
  }

  @Test("the packet codec finds the same messages", arguments: WireCapture.all.filter { !$0.isStream })
  func packetCodec(capture: WireCapture) throws {
    var codec = PacketCodec(try Self.configuration(for: capture))
    var messages: [GossipMessage] = []
    let summary = try codec.decode(capture.bytes.span, into: &messages)
    #expect(summary.droppedMessages == 0)
    #expect(summary.messages == messages.count)
    let expected = capture.lines.compactMap(DescribedLine.init(parsing:)).filter {
      if case .layer = $0 { false } else { true }
    }
    #expect(messages.count == expected.count)

    // The same again through the encoder, where sender and layers are as our encoder makes them.
    let layers = capture.lines.compactMap { $0.split(separator: " ").first.map(String.init) }
    guard layers.filter({ $0 == "compound" || $0 == "compress" }).count <= 2 else { return }
    codec.configuration.isCompressionEnabled = layers.contains("compress")
    let version = capture.lines.compactMap { $0.firstMatch(of: #/vsn=(\d)/#)?.1 }.first
    codec.configuration.protocolVersion = version == "0" ? 1 : 2
    let envelopeStart = capture.label.isEmpty ? 0 : 2 + capture.label.count
    var generator = NonceGenerator(bytes: Array(capture.bytes.dropFirst(envelopeStart + 1).prefix(12)))
    let packet = try codec.encode(
      messages: messages.map { $0.encoded() }, withCRC: layers.contains("hasCrc"), using: &generator)
    var again: [GossipMessage] = []
    try codec.decode(packet.span, into: &again)
    #expect(again == messages)
    if !capture.isEncrypted { #expect(packet == capture.bytes) }
  }

  @Test("streams decode the same in chunks of any size", arguments: WireCapture.all.filter(\.isStream))
  func streamChunks(capture: WireCapture) throws {
    let whole = try #require(try Self.decodeStream(capture, chunkBytes: capture.bytes.count))
    for chunkBytes in [1, 2, 3, 7, 16, 64] {
      #expect(try Self.decodeStream(capture, chunkBytes: chunkBytes) == whole)
    }
  }

  @Test(
    "cut short anywhere, a stream asks for more and never gives a message",
    arguments: WireCapture.all.filter(\.isStream))
  func streamCutShort(capture: WireCapture) throws {
    for count in 0..<capture.bytes.count {
      var decoder = StreamDecoder(try Self.configuration(for: capture), side: Self.side(of: capture))
      let message = try decoder.receive(capture.bytes.span.extracting(0..<count))
      #expect(message == nil)
      #expect(decoder.missingBytes > 0)
      #expect(decoder.missingBytes <= capture.bytes.count - count)
      if count > 0 { #expect(throws: WireError.self) { try decoder.end() } }
    }
  }

  @Test("a node with another label refuses it", arguments: WireCapture.all)
  func otherLabel(capture: WireCapture) throws {
    var configuration = try Self.configuration(for: capture)
    configuration.label = Array("another".utf8)
    if capture.isStream {
      var decoder = StreamDecoder(configuration, side: .acceptor)
      #expect(throws: WireError.labelMismatch) { _ = try decoder.receive(capture.bytes.span) }
    } else {
      var codec = PacketCodec(configuration)
      var messages: [GossipMessage] = []
      #expect(throws: WireError.labelMismatch) { try codec.decode(capture.bytes.span, into: &messages) }
      #expect(messages.isEmpty)
    }
  }

  @Test("one changed bit makes an encrypted or checksummed capture refused", arguments: WireCapture.all)
  func changedBit(capture: WireCapture) throws {
    let isChecked = capture.isEncrypted || capture.lines.contains { $0.hasPrefix("hasCrc") }
    guard isChecked else { return }
    let protectedStart = capture.bytes.first == MessageType.hasLabel.rawValue ? 2 + capture.label.count : 0
    let configuration = try Self.configuration(for: capture)
    for index in protectedStart..<capture.bytes.count {
      var altered = capture.bytes
      altered[index] ^= 0x10
      if capture.isStream {
        var decoder = StreamDecoder(configuration, side: Self.side(of: capture))
        // A longer length makes the decoder wait for bytes that never come; no message comes out of it either.
        let message = try? decoder.receive(altered.span)
        #expect(message == nil)
      } else {
        var codec = PacketCodec(configuration)
        var messages: [GossipMessage] = []
        // Without its checksum's type byte the packet is an unknown message, which is dropped.
        _ = try? codec.decode(altered.span, into: &messages)
        #expect(messages.isEmpty, "bit of byte \(index)")
      }
    }
  }
}

extension MemberlistConformanceTests {
  /// The keys that the captures were made with.
  static func keyring(for capture: WireCapture) throws -> Keyring? {
    guard capture.isEncrypted else { return nil }
    return try Keyring(primary: Array(0..<16), others: [Array(0..<32), Array(0..<24)])
  }

  static func configuration(for capture: WireCapture) throws -> WireConfiguration {
    var configuration = WireConfiguration()
    configuration.label = capture.label
    configuration.keyring = try keyring(for: capture)
    return configuration
  }

  /// A stream with a label header was dialed; one without it is an answer, or has no label, and then the sides are alike.
  static func side(of capture: WireCapture) -> StreamSide {
    capture.bytes.first == MessageType.hasLabel.rawValue ? .acceptor : .dialer
  }

  static func decodeStream(_ capture: WireCapture, chunkBytes: Int) throws -> StreamMessage? {
    var decoder = StreamDecoder(try configuration(for: capture), side: side(of: capture))
    var result: StreamMessage?
    var start = 0
    while start < capture.bytes.count {
      let end = min(start + chunkBytes, capture.bytes.count)
      if let message = try decoder.receive(capture.bytes.span.extracting(start..<end)) {
        #expect(end == capture.bytes.count)
        result = message
      }
      start = end
    }
    return result
  }
}
