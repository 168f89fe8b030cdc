/// Streams, incoming: takes one message out of a stream's bytes as they arrive.
///
/// Feed it chunks of any size with `receive`; it answers with the message once it is whole. Every length is checked
/// against the limits before anything is kept for it, and nothing is kept but bytes that have arrived: a header that
/// announces a million nodes costs nothing until they come. One decoder serves one direction of one stream.
public struct StreamDecoder: Sendable {
  public let configuration: WireConfiguration
  /// What can still be said only of bytes that have not come: at least so many are missing. 0 when the message is whole.
  public private(set) var missingBytes = 1
  /// Whether any byte has come: a stream that ends before its first byte ends cleanly.
  public private(set) var hasStarted = false
  /// Node states of a kind that this code does not know; they are left out, as memberlist ignores them.
  public private(set) var unknownNodeStates = 0

  private var phase: Phase
  private var buffer: [UInt8] = []
  /// How much of the buffer is done with.
  private var consumed = 0
  /// What is in the buffer is all there is: it came out of an encrypted frame or a compression.
  private var isWhole = false
  private var isDecrypted = false
  private var isDecompressed = false
  private var exchange = PushPull(isJoin: false, nodes: [])
  private var remainingNodes = 0

  private enum Phase: Sendable {
    case label
    case type
    case encryptedFrame
    case compressed
    case ping
    case ack
    case error
    case userHeader
    case user(byteCount: Int)
    case pushPullHeader
    case nodeState(userStateByteCount: Int)
    case userState(byteCount: Int)
    case done
  }

  /// A decoder for what `side` receives: the acceptor's stream begins with the dialer's label, the dialer's does not.
  public init(_ configuration: WireConfiguration = WireConfiguration(), side: StreamSide) {
    self.configuration = configuration
    self.phase = side == .acceptor ? .label : .type
  }

  /// Takes the next bytes of the stream. Returns the message when it is whole; bytes after it are ignored.
  /// Throws what is wrong with the bytes; the stream is then of no further use.
  public mutating func receive(_ chunk: Span<UInt8>) throws(WireError) -> StreamMessage? {
    if case .done = phase { return nil }
    guard chunk.count > 0 else { return nil }
    hasStarted = true
    if !isWhole { buffer.append(copying: chunk) }
    guard chunk.count >= missingBytes else {
      missingBytes -= chunk.count
      return nil
    }
    return try advance()
  }

  /// To be called when the stream has ended. Throws `truncated` if it ended within the message.
  public func end() throws(WireError) {
    guard hasStarted, missingBytes > 0 else { return }
    throw .truncated(neededBytes: buffer.count + missingBytes)
  }

  private mutating func advance() throws(WireError) -> StreamMessage? {
    while true {
      do throws(WireError) {
        if let message = try step() {
          phase = .done
          missingBytes = 0
          buffer = []
          return message
        }
      } catch .truncated(let neededBytes) {
        // `neededBytes` counts from the part of the buffer that is still to be read.
        guard !isWhole else { throw .truncated(neededBytes: neededBytes) }
        let limitBytes = largestBufferedBytes
        guard neededBytes <= limitBytes else { throw .tooLarge(byteCount: neededBytes, limitBytes: limitBytes) }
        dropConsumed()
        missingBytes = neededBytes - buffer.count
        return nil
      }
    }
  }

  /// How many bytes the present phase may wait for.
  private var largestBufferedBytes: Int {
    let limits = configuration.limits
    return switch phase {
    case .encryptedFrame: EncryptedFrame.headerBytes + limits.encryptedBytes
    case .compressed: limits.decompressedStreamBytes + limits.messageBytes
    case .user, .userState: limits.userBytes
    default: limits.messageBytes
    }
  }

  private mutating func dropConsumed() {
    buffer.removeFirst(consumed)
    consumed = 0
  }

  /// One phase. Returns the message when it was the last one.
  private mutating func step() throws(WireError) -> StreamMessage? {
    switch phase {
    case .label: try readLabel()
    case .type: try readType()
    case .encryptedFrame: try readEncryptedFrame()
    case .compressed: try readCompressed()
    case .ping: return .ping(try readPing())
    case .ack: return .ack(try readAck())
    case .error: return .error(try readError())
    case .userHeader: try readUserHeader()
    case .user(let byteCount): return .user(try readBytes(byteCount))
    case .pushPullHeader: try readPushPullHeader()
    case .nodeState(let userStateByteCount): try readNodeState(userStateByteCount)
    case .userState(let byteCount):
      exchange.userState = try readBytes(byteCount)
      return .pushPull(exchange)
    case .done: break
    }
    return nil
  }
}

// MARK: - Layers

extension StreamDecoder {
  private mutating func readLabel() throws(WireError) {
    let held = buffer  // shares the bytes, so that the decoder itself stays free to change
    let bytes = held.span.extracting(consumed...)
    guard bytes.count > 0 else { throw .truncated(neededBytes: 1) }
    guard bytes[0] == MessageType.hasLabel.rawValue else {
      guard configuration.label.isEmpty || configuration.skipInboundLabelCheck else { throw .labelMismatch }
      phase = .type
      return
    }
    guard !configuration.skipInboundLabelCheck else { throw .unexpectedLabel }
    guard bytes.count >= 2 else { throw .truncated(neededBytes: 2) }
    let end = 2 + Int(bytes[1])
    guard end > 2 else { throw .emptyLabel }
    guard end == 2 + configuration.label.count else { throw .labelMismatch }
    guard bytes.count >= end else { throw .truncated(neededBytes: end) }
    guard bytes.extracting(2..<end).isEqual(to: configuration.label) else { throw .labelMismatch }
    consumed += end
    phase = .type
  }

  /// The type byte decides what comes next. Encryption may hold compression, and either a message; nothing else nests.
  private mutating func readType() throws(WireError) {
    guard consumed < buffer.count else { throw .truncated(neededBytes: 1) }
    let byte = buffer[consumed]
    guard let type = MessageType(rawValue: byte) else { throw .unknownMessageType(byte) }
    if type == .encrypt, !isDecrypted, !isDecompressed {
      guard configuration.keyring != nil else { throw .encryptionNotConfigured }
      phase = .encryptedFrame  // the type byte is authenticated with the frame, so it stays
      return
    }
    if configuration.keyring != nil, configuration.verifyIncoming, !isDecrypted { throw .notEncrypted }
    switch type {
    case .compress where !isDecompressed: phase = .compressed
    case .ping: phase = .ping
    case .ack: phase = .ack
    case .error: phase = .error
    case .user: phase = .userHeader
    case .pushPull: phase = .pushPullHeader
    default: throw .misplacedMessage(type)
    }
    consumed += 1
  }

  private mutating func readEncryptedFrame() throws(WireError) {
    let held = buffer
    let bytes = held.span.extracting(consumed...)
    guard bytes.count >= EncryptedFrame.headerBytes else { throw .truncated(neededBytes: EncryptedFrame.headerBytes) }
    let byteCount = Int(truncatingIfNeeded: MessagePackReader.word(bytes, from: 1, byteCount: 4))
    let limitBytes = configuration.limits.encryptedBytes
    guard byteCount <= limitBytes else { throw .tooLarge(byteCount: byteCount, limitBytes: limitBytes) }
    let end = EncryptedFrame.headerBytes + byteCount
    guard bytes.count >= end else { throw .truncated(neededBytes: end) }
    guard let keyring = configuration.keyring else { throw .encryptionNotConfigured }
    let associated = [UInt8](copying: bytes, 0..<EncryptedFrame.headerBytes) + configuration.label
    let plain = try openFrame(bytes.extracting(EncryptedFrame.headerBytes..<end), keyring, associated)
    isDecrypted = true
    replaceBuffer(plain)
  }

  /// An envelope that is too short for its own layout will not grow any more: that is a wrong envelope, not a missing end.
  private func openFrame(
    _ envelope: Span<UInt8>, _ keyring: Keyring, _ associated: [UInt8]
  ) throws(WireError) -> [UInt8] {
    do throws(WireError) {
      return try Envelope.open(envelope, keyring: keyring, authenticating: associated)
    } catch .truncated {
      throw .decryptionFailed
    }
  }

  private mutating func readCompressed() throws(WireError) {
    let held = buffer
    let bytes = held.span.extracting(consumed...)
    let payload = try CompressMessage.payload(of: bytes)
    var decoder = LZWDecoder()
    var plain: [UInt8] = []
    let count = try decoder.decode(
      bytes.extracting(payload), into: &plain, limitBytes: configuration.limits.decompressedStreamBytes)
    plain.removeLast(plain.count - count)
    isDecompressed = true
    replaceBuffer(plain)
  }

  private mutating func replaceBuffer(_ plain: [UInt8]) {
    buffer = plain
    consumed = 0
    isWhole = true
    phase = .type
  }
}

// MARK: - Messages

extension StreamDecoder {
  private func readPing() throws(WireError) -> Ping {
    let body = buffer.span.extracting(consumed...)
    let view = try PingView(body)
    // One ping a stream: a cache would cost more than it saves.
    return Ping(
      sequenceNumber: view.sequenceNumber, node: NodeName([UInt8](copying: body, view.node)),
      sourceAddress: view.sourceAddress, sourcePort: view.sourcePort,
      sourceNode: NodeName([UInt8](copying: body, view.sourceNode)))
  }

  private func readAck() throws(WireError) -> Ack {
    let held = buffer
    let body = held.span.extracting(consumed...)
    return try AckView(body).owned(body)
  }

  private func readError() throws(WireError) -> ErrorResponse {
    let held = buffer
    let body = held.span.extracting(consumed...)
    var reader = MessagePackReader()
    var message: [UInt8] = []
    var pairs = try reader.readMapCount(body)
    while pairs > 0 {
      pairs -= 1
      switch try reader.readKey(body) {
      case .some(.error): message = [UInt8](copying: body, try reader.readRaw(body) ?? 0..<0)
      default: try reader.skipValue(body)
      }
    }
    return ErrorResponse(message: message)
  }

  private mutating func readUserHeader() throws(WireError) {
    let held = buffer
    let body = held.span.extracting(consumed...)
    var reader = MessagePackReader()
    var byteCount: Int64 = 0
    var pairs = try reader.readMapCount(body)
    while pairs > 0 {
      pairs -= 1
      switch try reader.readKey(body) {
      case .some(.userMsgLen): byteCount = try reader.readInteger(body)
      default: try reader.skipValue(body)
      }
    }
    phase = .user(byteCount: try checkedUserBytes(byteCount))
    consumed += reader.offset
  }

  private mutating func readPushPullHeader() throws(WireError) {
    let held = buffer
    let body = held.span.extracting(consumed...)
    var reader = MessagePackReader()
    var userStateBytes: Int64 = 0
    var nodes: Int64 = 0
    var pairs = try reader.readMapCount(body)
    while pairs > 0 {
      pairs -= 1
      switch try reader.readKey(body) {
      case .some(.join): exchange.isJoin = try reader.readBool(body)
      case .some(.nodes): nodes = try reader.readInteger(body)
      case .some(.userStateLen): userStateBytes = try reader.readInteger(body)
      default: try reader.skipValue(body)
      }
    }
    guard nodes >= 0 else { throw .negativeLength }
    guard nodes <= configuration.limits.nodeCount else {
      throw .tooManyNodes(count: Int(nodes), limit: configuration.limits.nodeCount)
    }
    let userStateByteCount = try checkedUserBytes(userStateBytes)
    remainingNodes = Int(nodes)
    phase =
      remainingNodes > 0
      ? .nodeState(userStateByteCount: userStateByteCount) : .userState(byteCount: userStateByteCount)
    consumed += reader.offset
  }

  private func checkedUserBytes(_ byteCount: Int64) throws(WireError) -> Int {
    let limitBytes = configuration.limits.userBytes
    guard byteCount >= 0 else { throw .negativeLength }
    guard byteCount <= limitBytes else { throw .tooLarge(byteCount: Int(byteCount), limitBytes: limitBytes) }
    return Int(byteCount)
  }

  private mutating func readNodeState(_ userStateByteCount: Int) throws(WireError) {
    let held = buffer
    let bytes = held.span.extracting(consumed...)
    var reader = MessagePackReader()
    if let state = try PushPullNodeState(bytes, &reader) {
      exchange.nodes.append(state)
    } else {
      unknownNodeStates += 1
    }
    consumed += reader.offset
    remainingNodes -= 1
    if remainingNodes == 0 { phase = .userState(byteCount: userStateByteCount) }
  }

  private func readBytes(_ byteCount: Int) throws(WireError) -> [UInt8] {
    guard buffer.count - consumed >= byteCount else { throw .truncated(neededBytes: byteCount) }
    return [UInt8](copying: buffer.span, consumed..<(consumed + byteCount))
  }
}

extension PushPullNodeState {
  /// Reads one node state; nil for a state number that this code does not know.
  init?(_ bytes: Span<UInt8>, _ reader: inout MessagePackReader) throws(WireError) {
    self.init(
      name: .unnamed, address: GossipAddress(ip: IPAddress(v4: 0), port: 0), incarnation: 0, state: .alive,
      versions: nil)
    var ip: IPAddress?
    var stateNumber: Int64 = 0
    var pairs = try reader.readMapCount(bytes)
    while pairs > 0 {
      pairs -= 1
      switch try reader.readKey(bytes) {
      case .some(.addr): ip = try reader.readOptionalAddress(bytes)
      case .some(.incarnation): incarnation = try reader.readUInt32(bytes)
      case .some(.meta):
        let range = try reader.readRaw(bytes)
        isEmptyMetaNil = range == nil
        meta = [UInt8](copying: bytes, range ?? 0..<0)
      case .some(.name): name = NodeName([UInt8](copying: bytes, try reader.readRaw(bytes) ?? 0..<0))
      case .some(.port): address.port = try reader.readUInt16(bytes)
      case .some(.state): stateNumber = try reader.readInteger(bytes)
      case .some(.vsn): versions = try reader.readVersions(bytes)
      default: try reader.skipValue(bytes)
      }
    }
    guard let ip else { throw .invalidAddress(byteCount: 0) }
    address.ip = ip
    guard let number = UInt8(exactly: stateNumber), let kind = NodeStateKind(rawValue: number) else { return nil }
    state = kind
  }
}
