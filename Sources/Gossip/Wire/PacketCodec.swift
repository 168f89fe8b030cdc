/// Packets: what one datagram carries, out and in.
///
/// Outermost first a packet is `[label] [encryption] -> [checksum] -> [compression] -> message`, where the message may be
/// a compound of up to 255. A codec keeps its buffers, so encoding and decoding plain packets allocates nothing in the
/// steady state. It is a value with no other life: one per node, used by one thread at a time.
public struct PacketCodec: Sendable {
  public var configuration: WireConfiguration
  public private(set) var counters = PacketCounters()

  private var encoder = LZWEncoder()
  private var decoder = LZWDecoder()
  private var cache = ByteStringCache.empty
  private var plain: [UInt8] = []
  private var compressed: [UInt8] = []
  /// Decompressed bytes, a buffer for each level of nesting.
  private var inflated: [[UInt8]] = []

  public init(_ configuration: WireConfiguration = WireConfiguration()) {
    self.configuration = configuration
  }

  /// What a compound adds for itself, and for each message in it.
  public static let compoundOverheadBytes = 2
  public static let compoundMessageOverheadBytes = 2
  public static let checksumOverheadBytes = 5
  public static let largestCompoundCount = 255
}

/// What became of the packets that one codec has decoded.
public struct PacketCounters: Hashable, Sendable {
  /// Packets whose outer layers were in order.
  public internal(set) var packets: UInt64 = 0
  /// Packets refused whole: label, encryption or checksum.
  public internal(set) var refusedPackets: UInt64 = 0
  /// Messages handed on.
  public internal(set) var messages: UInt64 = 0
  /// Messages dropped out of packets that were in order otherwise: malformed, unknown, cut short or nested too deeply.
  public internal(set) var droppedMessages: UInt64 = 0
}

/// What one packet held.
public struct PacketSummary: Hashable, Sendable {
  public internal(set) var messages = 0
  public internal(set) var droppedMessages = 0
  /// Why the first of them was dropped.
  public internal(set) var firstDropReason: WireError?

  mutating func drop(_ reason: WireError, count: Int = 1) {
    droppedMessages += count
    if firstDropReason == nil { firstDropReason = reason }
  }
}

// MARK: - Encoding

extension PacketCodec {
  /// A packet of messages that are encoded already, each with its type byte, in an array of its own.
  public mutating func encode(
    messages: [[UInt8]], withCRC: Bool, using generator: inout some RandomNumberGenerator
  ) throws(WireError) -> [UInt8] {
    var packet: [UInt8] = []
    try encode(messages: messages, withCRC: withCRC, into: &packet, using: &generator)
    return packet
  }

  /// Appends a packet of messages that are encoded already, each with its type byte, to `packet`.
  ///
  /// One message goes bare, more go as a compound. The whole is compressed if that is switched on and makes it smaller.
  /// `withCRC` puts a checksum before it, which memberlist does where it knows that the receiver understands protocol 5.
  /// The generator makes the nonce, and is used only with encryption.
  ///
  /// Throws `empty` without messages, `tooManyMessages` for more than 255, `tooLarge` for one of more than 65,535 bytes.
  public mutating func encode(
    messages: [[UInt8]], withCRC: Bool, into packet: inout [UInt8],
    using generator: inout some RandomNumberGenerator
  ) throws(WireError) {
    try Self.check(messages)
    try encode(withCRC: withCRC, into: &packet, using: &generator) { packet in
      if messages.count == 1 {
        packet.append(contentsOf: messages[0])
      } else {
        Self.appendCompound(messages, to: &packet)
      }
    }
  }

  /// Appends a packet around a body that is put together already: one message with its type byte, or a compound.
  /// Otherwise as `encode(messages:withCRC:into:using:)`. Throws `empty` for no bytes.
  public mutating func encode(
    body: Span<UInt8>, withCRC: Bool, into packet: inout [UInt8], using generator: inout some RandomNumberGenerator
  ) throws(WireError) {
    guard body.count > 0 else { throw .empty }
    try encode(withCRC: withCRC, into: &packet, using: &generator) { packet in packet.append(copying: body) }
  }

  /// The layers, around what `writeBody` appends.
  private mutating func encode(
    withCRC: Bool, into packet: inout [UInt8], using generator: inout some RandomNumberGenerator,
    _ writeBody: (inout [UInt8]) -> Void
  ) throws(WireError) {
    try appendLabelHeader(configuration.label, to: &packet)
    guard configuration.encryptsOutgoing, let keyring = configuration.keyring else {
      appendPlain(withCRC: withCRC, to: &packet, writeBody)
      return
    }
    var plain: [UInt8] = []
    swap(&plain, &self.plain)
    defer { swap(&plain, &self.plain) }
    plain.removeAll(keepingCapacity: true)
    appendPlain(withCRC: withCRC, to: &plain, writeBody)
    try Envelope.seal(
      plain, version: configuration.protocolVersion <= 1 ? 0 : 1, keyring: keyring,
      authenticating: configuration.label, nonce: Envelope.Nonce(using: &generator), into: &packet)
  }

  private static func check(_ messages: [[UInt8]]) throws(WireError) {
    guard !messages.isEmpty else { throw .empty }
    guard messages.count <= largestCompoundCount else { throw .tooManyMessages(count: messages.count) }
    guard messages.count > 1 else { return }
    for message in messages where message.count > Int(UInt16.max) {
      throw .tooLarge(byteCount: message.count, limitBytes: Int(UInt16.max))
    }
  }

  private mutating func appendPlain(
    withCRC: Bool, to packet: inout [UInt8], _ writeBody: (inout [UInt8]) -> Void
  ) {
    let checksumStart = packet.count
    if withCRC {
      packet.append(addingCapacity: Self.checksumOverheadBytes) { output in
        output.append(MessageType.hasCRC.rawValue)
        output.writeWord(0, byteCount: 4)
      }
    }
    let bodyStart = packet.count
    writeBody(&packet)
    if configuration.isCompressionEnabled { compress(&packet, from: bodyStart) }
    if withCRC {
      let checksum = CRC32.checksum(packet.span.extracting(bodyStart...))
      for place in 0..<4 {
        packet[checksumStart + 1 + place] = UInt8(truncatingIfNeeded: checksum >> UInt32(24 - 8 * place))
      }
    }
  }

  private static func appendCompound(_ messages: [[UInt8]], to packet: inout [UInt8]) {
    packet.append(addingCapacity: compoundOverheadBytes + compoundMessageOverheadBytes * messages.count) { output in
      output.append(MessageType.compound.rawValue)
      output.append(UInt8(truncatingIfNeeded: messages.count))
      for message in messages { output.writeWord(UInt64(truncatingIfNeeded: message.count), byteCount: 2) }
    }
    for message in messages { packet.append(contentsOf: message) }
  }

  /// Replaces what follows `bodyStart` by its compressed form, if that is smaller.
  private mutating func compress(_ packet: inout [UInt8], from bodyStart: Int) {
    let plainBytes = packet.count - bodyStart
    let limitBytes = plainBytes - 1 - CompressMessage.overheadBytes(forPayload: plainBytes)
    guard limitBytes > 0 else { return }
    compressed.removeAll(keepingCapacity: true)
    let isSmaller = encoder.encode(
      packet.span.extracting(bodyStart...), into: &compressed, limitBytes: limitBytes)
    guard isSmaller, compressed.count + CompressMessage.overheadBytes(forPayload: compressed.count) < plainBytes else {
      return
    }
    packet.removeLast(plainBytes)
    CompressMessage.append(payload: compressed, to: &packet)
  }
}

/// Appends a label header, or nothing for the empty label. Throws `labelTooLong`.
func appendLabelHeader(_ label: [UInt8], to buffer: inout [UInt8]) throws(WireError) {
  guard !label.isEmpty else { return }
  guard label.count <= Int(UInt8.max) else { throw .labelTooLong(byteCount: label.count) }
  buffer.append(MessageType.hasLabel.rawValue)
  buffer.append(UInt8(truncatingIfNeeded: label.count))
  buffer.append(contentsOf: label)
}

// MARK: - Decoding

extension PacketCodec {
  /// Decodes a packet and appends its messages, owning their bytes, to `messages`.
  ///
  /// Throws where the packet is refused whole (label, encryption, checksum). A message in it that is malformed or
  /// unknown is dropped and counted, and the others are kept, as memberlist does.
  @discardableResult
  public mutating func decode(
    _ packet: Span<UInt8>, into messages: inout [GossipMessage]
  ) throws(WireError) -> PacketSummary {
    var cache = ByteStringCache.empty
    swap(&cache, &self.cache)
    defer { swap(&cache, &self.cache) }
    var malformed = PacketSummary()
    var summary = try decode(packet) { type, body in
      do throws(WireError) {
        messages.append(try GossipMessage(type: type, body: body, cache: &cache))
      } catch {
        malformed.drop(error)
      }
    }
    if let reason = malformed.firstDropReason {
      summary.messages -= malformed.droppedMessages
      summary.drop(reason, count: malformed.droppedMessages)
      counters.messages -= UInt64(malformed.droppedMessages)
      counters.droppedMessages += UInt64(malformed.droppedMessages)
    }
    return summary
  }

  /// Decodes a packet and shows each message in it to `visit`: its type and what follows the type byte, which is there
  /// only during the call. Nothing is allocated for a plain packet, nor for a compressed one once the buffers have grown.
  ///
  /// `visit` reads the bodies itself (`PingView` and the like) and sees only types that a packet may carry.
  public mutating func decode(
    _ packet: Span<UInt8>, visit: (MessageType, Span<UInt8>) -> Void
  ) throws(WireError) -> PacketSummary {
    var summary = PacketSummary()
    do throws(WireError) {
      try open(packet, visit, &summary)
    } catch {
      counters.refusedPackets += 1
      throw error
    }
    counters.packets += 1
    counters.messages += UInt64(summary.messages)
    counters.droppedMessages += UInt64(summary.droppedMessages)
    return summary
  }

  private mutating func open(
    _ packet: Span<UInt8>, _ visit: (MessageType, Span<UInt8>) -> Void, _ summary: inout PacketSummary
  ) throws(WireError) {
    let envelope = packet.extracting(try acceptedLabelBytes(packet)...)
    guard let keyring = configuration.keyring else {
      return try verifyChecksum(envelope, visit, &summary)
    }
    let plain: [UInt8]
    do throws(WireError) {
      plain = try Envelope.open(envelope, keyring: keyring, authenticating: configuration.label)
    } catch {
      if configuration.verifyIncoming { throw error }
      return try verifyChecksum(envelope, visit, &summary)
    }
    try verifyChecksum(plain.span, visit, &summary)
  }

  /// How many bytes the label header takes, if its label is the one that we expect.
  private func acceptedLabelBytes(_ packet: Span<UInt8>) throws(WireError) -> Int {
    guard packet.count > 0 else { throw .empty }
    guard packet[0] == MessageType.hasLabel.rawValue else {
      guard configuration.label.isEmpty || configuration.skipInboundLabelCheck else { throw .labelMismatch }
      return 0
    }
    guard packet.count >= 2 else { throw .truncated(neededBytes: 2) }
    let end = 2 + Int(packet[1])
    guard end > 2 else { throw .emptyLabel }
    guard packet.count >= end else { throw .truncated(neededBytes: end) }
    guard !configuration.skipInboundLabelCheck else { throw .unexpectedLabel }
    guard packet.extracting(2..<end).isEqual(to: configuration.label) else { throw .labelMismatch }
    return end
  }

  /// The checksum stands outermost or not at all: inside a compound or a compression it is an unknown message.
  private mutating func verifyChecksum(
    _ bytes: Span<UInt8>, _ visit: (MessageType, Span<UInt8>) -> Void, _ summary: inout PacketSummary
  ) throws(WireError) {
    var budget = Budget(decompressedBytes: configuration.limits.decompressedPacketBytes)
    guard bytes.count >= Self.checksumOverheadBytes, bytes[0] == MessageType.hasCRC.rawValue else {
      return dispatch(bytes, depth: 0, &budget, visit, &summary)
    }
    let carried = UInt32(truncatingIfNeeded: MessagePackReader.word(bytes, from: 1, byteCount: 4))
    let payload = bytes.extracting(Self.checksumOverheadBytes...)
    let computed = CRC32.checksum(payload)
    guard carried == computed else { throw .checksumMismatch(computed: computed, carried: carried) }
    dispatch(payload, depth: 0, &budget, visit, &summary)
  }

  /// What one packet may still cost.
  private struct Budget {
    var decompressedBytes: Int
  }

  private mutating func dispatch(
    _ bytes: Span<UInt8>, depth: Int, _ budget: inout Budget, _ visit: (MessageType, Span<UInt8>) -> Void,
    _ summary: inout PacketSummary
  ) {
    guard bytes.count > 0 else { return summary.drop(.empty) }
    guard let type = MessageType(rawValue: bytes[0]) else { return summary.drop(.unknownMessageType(bytes[0])) }
    let body = bytes.extracting(1...)
    switch type {
    case .ping, .indirectPing, .ack, .nack, .suspect, .alive, .dead, .user:
      summary.messages += 1
      visit(type, body)
    case .compound:
      guard depth < configuration.limits.nesting else {
        return summary.drop(.nestedTooDeeply(limit: configuration.limits.nesting))
      }
      dispatchCompound(body, depth: depth, &budget, visit, &summary)
    case .compress:
      guard depth < configuration.limits.nesting else {
        return summary.drop(.nestedTooDeeply(limit: configuration.limits.nesting))
      }
      dispatchCompressed(body, depth: depth, &budget, visit, &summary)
    case .pushPull, .encrypt, .hasCRC, .error, .hasLabel:
      summary.drop(.misplacedMessage(type))
    }
  }

  private mutating func dispatchCompound(
    _ body: Span<UInt8>, depth: Int, _ budget: inout Budget, _ visit: (MessageType, Span<UInt8>) -> Void,
    _ summary: inout PacketSummary
  ) {
    guard body.count > 0 else { return summary.drop(.truncated(neededBytes: 1)) }
    let count = Int(body[0])
    var start = 1 + Self.compoundMessageOverheadBytes * count
    guard body.count >= start else { return summary.drop(.truncated(neededBytes: start), count: max(count, 1)) }
    for index in 0..<count {
      let lengthOffset = 1 + Self.compoundMessageOverheadBytes * index
      let end = start + Int(truncatingIfNeeded: MessagePackReader.word(body, from: lengthOffset, byteCount: 2))
      // Cut short: what came whole is kept, this one and the rest are lost.
      guard end <= body.count else { return summary.drop(.truncated(neededBytes: end), count: count - index) }
      dispatch(body.extracting(start..<end), depth: depth + 1, &budget, visit, &summary)
      start = end
    }
  }

  private mutating func dispatchCompressed(
    _ body: Span<UInt8>, depth: Int, _ budget: inout Budget, _ visit: (MessageType, Span<UInt8>) -> Void,
    _ summary: inout PacketSummary
  ) {
    // The buffer leaves `self` while its bytes are read; each level of nesting has one.
    var buffer = inflated.popLast() ?? []
    defer { inflated.append(buffer) }
    do throws(WireError) {
      let payload = try CompressMessage.payload(of: body)
      let count = try decoder.decode(
        body.extracting(payload), into: &buffer, limitBytes: budget.decompressedBytes)
      budget.decompressedBytes -= count
      dispatch(buffer.span.extracting(0..<count), depth: depth + 1, &budget, visit, &summary)
    } catch {
      summary.drop(error)
    }
  }
}

extension Span where Element == UInt8 {
  func isEqual(to other: [UInt8]) -> Bool {
    guard count == other.count else { return false }
    for index in 0..<count where self[index] != other[index] { return false }
    return true
  }
}
