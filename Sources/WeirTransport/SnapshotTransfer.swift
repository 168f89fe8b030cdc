import WeirCore

/// Where the bytes of an outgoing snapshot come from. Called on the event loop's queue.
public protocol SnapshotSource: AnyObject {
  /// The next bytes; nil at the end.
  func nextChunk(targetBytes: Int) -> [UInt8]?
}

/// Where the bytes of an incoming snapshot go. Called on the event loop's queue.
public protocol SnapshotSink: AnyObject {
  /// Takes the next bytes; throws if they cannot be of a snapshot.
  func append(_ chunk: [UInt8]) throws
  /// The last chunk has come: the snapshot is whole, its message may be handed to Raft.
  func finish() throws
}

/// A snapshot on its way to a peer, on a connection of its own so that nothing stands behind it.
///
/// Frames: one start (the snapshot message without data), chunks (under the checksum as a whole), and an empty chunk
/// as the end, which the receiver answers with a hello that says welcome.
final class SnapshotSender {
  let message: Message
  let source: any SnapshotSource
  var isStarted = false
  var isEnded = false
  /// When to give up, moved on with each progress.
  var deadlineNanoseconds: UInt64

  static let chunkBytes = 256 << 10

  init(message: Message, source: any SnapshotSource, deadlineNanoseconds: UInt64) {
    self.message = message
    self.source = source
    self.deadlineNanoseconds = deadlineNanoseconds
  }

  /// Puts the next frame into the writer.
  func fill(_ writer: VectoredWriter, clusterID: UInt64, sender: NodeID) {
    guard !isEnded else { return }
    let body: [UInt8]
    let kind: FrameHeader.Kind
    if isStarted {
      body = source.nextChunk(targetBytes: Self.chunkBytes) ?? []
      isEnded = body.isEmpty
      kind = .snapshotChunk
    } else {
      isStarted = true
      var head = [UInt8](repeating: 0, count: MessageCodec.encodedHeaderBytes(of: message))
      _ = unsafe head.withUnsafeMutableBytes { unsafe MessageCodec.encodeHeader(of: message, into: $0) }
      body = head
      kind = .snapshotStart
    }
    let total = FrameHeader.bytes + body.count
    let slab = Slab(capacity: total)
    let target = unsafe UnsafeMutableRawBufferPointer(rebasing: slab.bytes[FrameHeader.bytes...])
    unsafe target.copyBytes(from: body)
    let header = FrameHeader(
      frameBytes: total, kind: kind, coveredBytes: body.count, clusterID: clusterID, sender: sender)
    unsafe header.seal(slab.bytes.baseAddress.unsafelyUnwrapped)
    writer.append(slab: slab, byteCount: total)
  }
}
