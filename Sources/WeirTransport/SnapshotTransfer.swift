import WeirCore

/// Where the bytes of an outgoing snapshot come from. Called on the event loop's queue.
public protocol SnapshotSource: AnyObject {
  /// The next bytes; nil at the end. Throws if there is no way to come to the end: the transfer has failed.
  func nextChunk(targetBytes: Int) throws -> [UInt8]?
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
/// The sender begins with a start (a number that tells this transfer from any other, and the snapshot message without
/// data). The receiver answers that, and each chunk that it has taken, with its progress (`SnapshotProgress`). Chunks are
/// under the checksum as a whole; an empty one is the end. At most `windowBytes` are on their way without an answer: so the
/// sender goes no faster than the receiver takes, a turn of the loop has an end, and what a broken connection may have lost
/// is still in memory. On a new connection the same start is answered with how much has arrived, and the sender goes on
/// there. The source, which can be read once only, never has to go back.
final class SnapshotSender {
  let message: Message
  let source: any SnapshotSource
  /// What tells this transfer from any other of this node.
  let number: UInt64
  /// When to give up, moved on with each progress.
  var deadlineNanoseconds: UInt64
  /// When to connect again, where there is no connection.
  var nextAttemptNanoseconds: UInt64 = 0
  var failedAttempts = 0

  /// Chunks that the receiver has not been heard to have.
  private var window: [[UInt8]] = []
  /// How many bytes of data lie before them.
  private var windowStart = 0
  /// How many of them were sent on this connection.
  private var sentCount = 0
  private var isStarted = false
  private var isAnswered = false
  private var isSourceEnded = false
  private var isEndSent = false

  static let chunkBytes = 256 << 10
  static let windowBytes = 2 << 20

  init(message: Message, source: any SnapshotSource, number: UInt64, deadlineNanoseconds: UInt64) {
    self.message = message
    self.source = source
    self.number = number
    self.deadlineNanoseconds = deadlineNanoseconds
  }

  /// Whether the receiver has ever answered: then it is worth connecting again.
  private(set) var hasBegun = false

  /// The connection is gone: the next one begins with a start again.
  func pause() {
    isStarted = false
    isAnswered = false
    isEndSent = false
    sentCount = 0
  }

  /// The next frame, if one may be sent now.
  func nextFrame() throws -> (kind: FrameHeader.Kind, body: [UInt8])? {
    if !isStarted {
      isStarted = true
      return (.snapshotStart, startBody())
    }
    guard isAnswered, !isEndSent else { return nil }
    if sentCount == window.count, !isSourceEnded {
      guard window.count * Self.chunkBytes < Self.windowBytes else { return nil }
      if let chunk = try source.nextChunk(targetBytes: Self.chunkBytes), !chunk.isEmpty {
        window.append(chunk)
      } else {
        isSourceEnded = true
      }
    }
    if sentCount < window.count {
      sentCount += 1
      return (.snapshotChunk, window[sentCount - 1])
    }
    isEndSent = true
    return (.snapshotChunk, [])
  }

  private func startBody() -> [UInt8] {
    var body = [UInt8](repeating: 0, count: 8 + MessageCodec.encodedHeaderBytes(of: message))
    unsafe body.withUnsafeMutableBytes { bytes in
      unsafe bytes.storeBytes(of: number.littleEndian, as: UInt64.self)
      unsafe MessageCodec.encodeHeader(of: message, into: UnsafeMutableRawBufferPointer(rebasing: bytes[8...]))
    }
    return body
  }

  /// The receiver has the first `takenBytes` of the data.
  /// - Returns: false if it cannot have that many, or that few.
  func note(takenBytes: Int) -> Bool {
    while let first = window.first, windowStart + first.count <= takenBytes {
      windowStart += first.count
      window.removeFirst()
      sentCount = max(sentCount - 1, 0)
    }
    isAnswered = true
    hasBegun = true
    return windowStart == takenBytes
  }

  /// Whether the receiver can have all of it.
  var isDelivered: Bool { isEndSent && window.isEmpty }
}

/// A snapshot that is arriving. It outlives its connection for a while, so that the sender can go on with it.
final class SnapshotArrival {
  let peer: NodeID
  /// The sender's instance and its number for this transfer.
  let instance: UInt64
  let number: UInt64
  let sink: any SnapshotSink
  private(set) var takenBytes = 0
  /// When to give it up, where there is no connection.
  var deadlineNanoseconds: UInt64 = .max

  init(peer: NodeID, instance: UInt64, number: UInt64, sink: any SnapshotSink) {
    self.peer = peer
    self.instance = instance
    self.number = number
    self.sink = sink
  }

  func append(_ chunk: [UInt8]) throws {
    try sink.append(chunk)
    takenBytes += chunk.count
  }
}

/// What the receiver of a snapshot answers. 16 bytes, little-endian:
///
///     offset  size  field
///          0     8  how many bytes of data it has taken
///          8     1  verdict
///          9     7  zero
struct SnapshotProgress: Equatable {
  enum Verdict: UInt8 {
    /// More is to come.
    case continues = 0
    /// The end has come, and the snapshot is whole.
    case whole = 1
    /// It is not wanted now, or is none.
    case refused = 2
  }

  static let bytes = 16

  var takenBytes: Int
  var verdict: Verdict

  init(takenBytes: Int, verdict: Verdict) {
    self.takenBytes = takenBytes
    self.verdict = verdict
  }

  func encoded() -> [UInt8] {
    var bytes = (0..<8).map { UInt8(truncatingIfNeeded: takenBytes >> (8 * $0)) }
    bytes += [verdict.rawValue, 0, 0, 0, 0, 0, 0, 0]
    return bytes
  }

  /// Nil if the bytes are none.
  init?(parsing bytes: [UInt8]) {
    guard bytes.count == Self.bytes, let verdict = Verdict(rawValue: bytes[8]),
      bytes[9...].allSatisfy({ $0 == 0 }), bytes[7] < 0x80
    else { return nil }
    takenBytes = bytes[..<8].enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
    self.verdict = verdict
  }
}
