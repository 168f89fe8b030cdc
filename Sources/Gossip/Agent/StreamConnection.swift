import Dispatch
import Glibc

/// One stream of a node: one exchange, then closed. Touched only on the node's queue.
///
/// libdispatch on Linux keeps one record for the read and write sources of a descriptor and has mixed them up when a
/// descriptor's number was used again. So the read source lives as long as the connection, the descriptor is closed
/// only when that source is cancelled, and waiting for room to write is done on a duplicate of the descriptor.
final class StreamConnection {
  /// What the stream is for.
  enum Purpose {
    /// Somebody connected to us.
    case inbound
    /// A ping by stream; the probe with this number wants the answer.
    case ping(sequenceNumber: UInt32)
    /// An exchange of full state.
    case pushPull(expectedName: NodeName?, isJoin: Bool, completion: StreamCompletion)
    /// A user message.
    case user(completion: StreamCompletion)
  }

  let identifier: Int
  let purpose: Purpose
  var decoder: StreamDecoder
  let deadlineNanoseconds: UInt64
  /// Bytes received; counted against the node's limit until the stream is closed.
  var receivedBytes = 0
  /// The request has been read: what still comes is of no interest.
  var isAnswering = false

  private let descriptor: Int32
  private let queue: DispatchQueue
  private let closing: DispatchGroup
  private let readSource: any DispatchSourceRead
  private var writeSource: (any DispatchSourceWrite)?
  private var outgoing: [UInt8] = []
  private var sentCount = 0
  private var isConnected: Bool
  private var isClosed = false

  /// - Parameters:
  ///   - descriptor: owned by the connection from here on.
  ///   - closing: left when the descriptor is closed.
  init(
    identifier: Int, purpose: Purpose, descriptor: Int32, isConnected: Bool, decoder: StreamDecoder,
    deadlineNanoseconds: UInt64, queue: DispatchQueue, closing: DispatchGroup,
    onReadable: @escaping @Sendable () -> Void
  ) {
    self.identifier = identifier
    self.purpose = purpose
    self.descriptor = descriptor
    self.isConnected = isConnected
    self.decoder = decoder
    self.deadlineNanoseconds = deadlineNanoseconds
    self.queue = queue
    self.closing = closing
    readSource = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: queue)
    readSource.setEventHandler(handler: onReadable)
    closing.enter()
    readSource.setCancelHandler {
      Glibc.close(descriptor)
      closing.leave()
    }
    readSource.activate()
  }

  var hasUnsentBytes: Bool { sentCount < outgoing.count }

  /// Queues bytes to be written by `flush`.
  func enqueue(_ bytes: [UInt8]) {
    outgoing += bytes
  }

  /// Writes what can be written.
  ///
  /// - Parameter onWritable: called when there is room again, if there is too little now.
  func flush(onWritable: @escaping @Sendable () -> Void) throws(GossipNodeError) {
    guard !isClosed else { return }
    if !isConnected {
      let code = Sockets.pendingError(of: descriptor)
      guard code == 0 else { throw .system(call: "connect", code: code) }
    }
    while hasUnsentBytes {
      let count = outgoing.withUnsafeBytes { bytes in
        send(descriptor, bytes.baseAddress.map { $0 + sentCount }, bytes.count - sentCount, Int32(MSG_NOSIGNAL))
      }
      if count >= 0 {
        isConnected = true
        sentCount += count
      } else if errno == EAGAIN || errno == ENOTCONN {
        waitUntilWritable(onWritable)
        return
      } else if errno != EINTR {
        throw .system(call: "send", code: errno)
      }
    }
    stopWaiting()
  }

  private func waitUntilWritable(_ handler: @escaping @Sendable () -> Void) {
    guard writeSource == nil else { return }
    let duplicate = dup(descriptor)
    // Without a duplicate the deadline ends the stream: rare (descriptors exhausted), and no worse than a lost peer.
    guard duplicate >= 0 else { return }
    let source = DispatchSource.makeWriteSource(fileDescriptor: duplicate, queue: queue)
    source.setEventHandler(handler: handler)
    closing.enter()
    let closing = closing
    source.setCancelHandler {
      Glibc.close(duplicate)
      closing.leave()
    }
    writeSource = source
    source.activate()
  }

  private func stopWaiting() {
    writeSource?.cancel()
    writeSource = nil
  }

  /// What a read brought.
  enum ReadResult {
    case bytes(Int)
    case nothing
    case end
  }

  func read(into buffer: inout [UInt8]) throws(GossipNodeError) -> ReadResult {
    guard !isClosed else { return .nothing }
    while true {
      let count = buffer.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress, $0.count, 0) }
      if count > 0 { return .bytes(count) }
      if count == 0 { return .end }
      switch errno {
      case EINTR: continue
      case EAGAIN: return .nothing
      case let code: throw .system(call: isConnected ? "recv" : "connect", code: code)
      }
    }
  }

  func close() {
    guard !isClosed else { return }
    isClosed = true
    stopWaiting()
    readSource.cancel()
  }

  deinit {
    close()
  }
}

/// How a stream that we dialed ended. Called once, on the node's queue.
typealias StreamCompletion = @Sendable (Result<Void, GossipNodeError>) -> Void
