import WeirCore

/// The bytes of a span as an array.
func bytes(of span: RawSpan) -> [UInt8] { span.withUnsafeBytes { [UInt8]($0) } }

/// A slab that holds exactly `bytes`.
func slab(of bytes: [UInt8]) -> Slab {
  let slab = Slab(capacity: max(bytes.count, 1))
  slab.bytes.copyBytes(from: bytes)
  return slab
}

/// A message as it goes onto the wire: its header, then the slices of its entries.
func encoded(_ message: Message) -> [UInt8] {
  var bytes = [UInt8](repeating: 0xEE, count: MessageCodec.encodedHeaderBytes(of: message))
  var span = bytes.mutableSpan
  var raw = span.mutableBytes
  MessageCodec.encodeHeader(of: message, into: &raw)
  message.entries.forEachSlice { bytes += $0.slab.bytes(in: $0.offset..<$0.offset + $0.byteCount) }
  return bytes
}
