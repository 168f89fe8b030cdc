/// The message that holds a compressed one: type byte, then the map `{Algo: 0, Buf: bytes}`.
enum CompressMessage {
  /// The only algorithm there is: LZW.
  static let lzw: UInt8 = 0

  /// What the message takes beside its payload: type, map head, `Algo`, 0, `Buf` and the head of the bytes.
  static func overheadBytes(forPayload byteCount: Int) -> Int {
    1 + 1 + 5 + 1 + 4 + (byteCount < 32 ? 1 : byteCount <= 0xFFFF ? 3 : 5)
  }

  static func append(payload: [UInt8], to buffer: inout [UInt8]) {
    buffer.append(addingCapacity: overheadBytes(forPayload: payload.count)) { output in
      output.append(MessageType.compress.rawValue)
      output.writeMapHead(2)
      output.write(.algo, unsigned: UInt64(lzw))
      output.writeKey(.buf)
      output.writeRawHead(payload.count)
    }
    buffer.append(contentsOf: payload)
  }

  /// Where in the body (what follows the type byte) the compressed bytes are.
  static func payload(of body: Span<UInt8>) throws(WireError) -> Range<Int> {
    var reader = MessagePackReader()
    return try payload(of: body, &reader)
  }

  static func payload(of bytes: Span<UInt8>, _ reader: inout MessagePackReader) throws(WireError) -> Range<Int> {
    var algorithm: UInt8 = 0
    var payload = 0..<0
    var pairs = try reader.readMapCount(bytes)
    while pairs > 0 {
      pairs -= 1
      switch try reader.readKey(bytes) {
      case .some(.algo): algorithm = try reader.readUInt8(bytes)
      case .some(.buf): payload = try reader.readRaw(bytes) ?? 0..<0
      default: try reader.skipValue(bytes)
      }
    }
    guard algorithm == lzw else { throw .unknownCompression(algorithm: algorithm) }
    return payload
  }
}
