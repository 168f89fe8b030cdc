import WeirCore

/// Where the bytes of an outgoing snapshot come from. Called on the event loop's queue.
public protocol SnapshotSource: AnyObject {
  /// The next bytes; nil at the end. Throws if there is no way to come to the end: the transfer has failed.
  func nextChunk(targetBytes: Int) throws -> [UInt8]?
}

/// Where the bytes of an incoming snapshot go. Called on the event loop's queue, in order, without waiting for what came
/// before. Each call is answered there once and in the same order, before it returns or later: what has not been answered
/// is in memory, and the sender sends no more than its window beyond it. The answer is why the snapshot is not taken, if it
/// is not: then what follows is not either.
public protocol SnapshotSink: AnyObject {
  typealias Completion = (Result<Void, any Error>) -> Void

  /// Takes the next bytes.
  func append(_ chunk: [UInt8], completion: @escaping Completion)
  /// The last chunk has come. The answer is that the snapshot is whole, and its message was handed to Raft.
  func finish(completion: @escaping Completion)
}

/// A snapshot on its way to a peer, on a connection of its own so that nothing stands behind it.
///
/// The sender begins with a start (a number that tells this transfer from any other, and the snapshot message without
/// data). The receiver answers that, and each chunk that its sink has taken, with its progress (`SnapshotProgress`). Chunks
/// are under the checksum as a whole; an empty one is the end. At most `windowChunks` are on their way without an answer: so
/// the sender goes no faster than the receiver takes, a turn of the loop has an end, what a broken connection may have lost
/// is still in memory, and what the receiver's disk has not taken yet is not much. On a new connection the same start is
/// answered with how much was taken, once that is all that has arrived, and the sender goes on there. The source, which can
/// be read once only, never has to go back.
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
  /// Chunks that may be on their way without an answer.
  static let windowChunks = 8

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
      guard window.count < Self.windowChunks else { return nil }
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
  /// How much the sink has taken.
  private(set) var takenBytes = 0
  /// Chunks that the sink has and has not answered.
  private var pendingChunks = 0
  /// The end has come: on some connection, and on the one that there is.
  private var isEnding = false
  private var isEndAwaited = false
  /// The start of a connection is not answered: chunks that came on the one before are still pending.
  private var isStartAwaited = false
  /// What became of it, once that is known.
  private var outcome: SnapshotProgress.Verdict?
  /// When to give it up, where there is no connection.
  var deadlineNanoseconds: UInt64 = .max

  init(peer: NodeID, instance: UInt64, number: UInt64, sink: any SnapshotSink) {
    self.peer = peer
    self.instance = instance
    self.number = number
    self.sink = sink
  }

  /// It goes on, or begins, on a new connection.
  func resume() {
    isStartAwaited = true
    isEndAwaited = false
  }

  /// Hands a chunk to the sink; `note` is called when it has answered.
  func append(_ chunk: [UInt8], note: @escaping ((any Error)?) -> Void) throws(FrameError) {
    // Those that were under way when it was refused.
    guard outcome == nil else { return }
    guard !isEnding, pendingChunks < SnapshotSender.windowChunks else {
      throw .invalidMessage("a chunk behind a snapshot's end, or beyond its window")
    }
    pendingChunks += 1
    sink.append(chunk) { [self] result in
      pendingChunks -= 1
      note(take(result, byteCount: chunk.count))
    }
  }

  /// Nothing more is to come; `note` is called when the sink has answered. A sender that comes back asks again.
  func finish(note: @escaping ((any Error)?) -> Void) {
    isEndAwaited = true
    guard !isEnding, outcome == nil else { return note(nil) }
    isEnding = true
    sink.finish { [self] result in
      let error = take(result, byteCount: 0)
      if error == nil, outcome == nil { outcome = .whole }
      note(error)
    }
  }

  /// Returns the first error, of which the sender has to be told.
  private func take(_ result: Result<Void, any Error>, byteCount: Int) -> (any Error)? {
    guard outcome == nil else { return nil }
    switch result {
    case .success: takenBytes += byteCount
    case .failure(let error):
      outcome = .refused
      return error
    }
    return nil
  }

  /// What can be answered now; nil if there is nothing new to say.
  func takeAnswer() -> SnapshotProgress? {
    if outcome == .refused { return SnapshotProgress(takenBytes: takenBytes, verdict: .refused) }
    if outcome == .whole, isEndAwaited { return SnapshotProgress(takenBytes: takenBytes, verdict: .whole) }
    guard !isStartAwaited || pendingChunks == 0 else { return nil }
    isStartAwaited = false
    return SnapshotProgress(takenBytes: takenBytes, verdict: .continues)
  }

  /// Whether a sender that comes back can go on with it.
  var isResumable: Bool { outcome != .refused }
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
