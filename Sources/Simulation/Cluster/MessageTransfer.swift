import WeirCore

/// Takes a message through its encoding: what arrives is made of the bytes alone.
enum MessageTransfer {
  static func roundTrip(_ message: Message) -> Result<Message, MessageDecodingError> {
    let headerBytes = MessageCodec.encodedHeaderBytes(of: message)
    let totalBytes = MessageCodec.encodedBytes(of: message)
    let slab = Slab(capacity: totalBytes)
    MessageCodec.encodeHeader(of: message, into: UnsafeMutableRawBufferPointer(rebasing: slab.bytes[..<headerBytes]))
    var offset = headerBytes
    message.entries.forEachSlice { slice in
      let source = slice.slab.bytes(in: slice.offset..<slice.offset + slice.byteCount)
      UnsafeMutableRawBufferPointer(rebasing: slab.bytes[offset..<offset + slice.byteCount]).copyMemory(from: source)
      offset += slice.byteCount
    }
    do throws(MessageDecodingError) {
      return .success(try MessageCodec.decode(slab: slab, offset: 0, byteCount: totalBytes))
    } catch {
      return .failure(error)
    }
  }
}

/// A message in one line.
func describe(_ message: Message) -> String {
  var text = "\(message.type) term \(message.term)"
  switch message.type {
  case .append: text += " after \(message.index)/\(message.logTerm)"
  case .vote, .preVote: text += " log \(message.index)/\(message.logTerm)"
  case .appendResponse, .heartbeatResponse, .snapshot: text += " index \(message.index)"
  default: break
  }
  if !message.entries.isEmpty { text += " entries \(message.entries.firstIndex)+\(message.entries.count)" }
  if message.commit > 0 { text += " commit \(message.commit)" }
  if message.reject { text += " rejected, hint \(message.rejectHint)/\(message.logTerm)" }
  if message.context > 0 { text += " context \(message.context)" }
  if let snapshot = message.snapshot { text += " snapshot at \(snapshot.metadata.index)" }
  return text
}
