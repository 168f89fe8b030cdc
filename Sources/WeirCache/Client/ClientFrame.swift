import CWeir
import WeirCore
import WeirTransport

/// The protocol between a node and a client in another process: batches of operations one way, batches of answers the
/// other, pipelined and in any order. It is what a load generator and an embedding application need, no more: commands
/// travel as they will lie in the log, so that the node copies them once. Little-endian. A frame:
///
///     offset  size  field
///          0     4  size of the whole frame in bytes, this header included
///          4     4  CRC-32C of bytes 8 ..< size
///          8     2  protocol version, 1
///         10     1  kind: 1 greeting, 2 welcome, 3 operations, 4 answers
///         11     1  reserved, zero
///         12     4  number of items
///         16     8  greeting: cluster id; from the node: who leads as far as it knows, 0 if it knows nobody
///
/// A client begins with a greeting, which the node answers with a welcome, or by closing. Items follow the header:
///
///          0     4  token, chosen by the client
///          4     4  size of the payload in bytes; in an answer 0xFFFFFFFF where there is no value
///          8     1  operation: 0 write, 1 Safe read, 2 Lease read; answer: the `Outcome`
///          9     3  reserved, zero
///         12     n  write: a command (`Command.encode`); read: the key; answer to a read: the value
enum ClientFrame {
  enum Kind: UInt8 {
    case greeting = 1
    case welcome = 2
    case operations = 3
    case answers = 4
  }

  static let version: UInt16 = 1
  static let headerBytes = 24
  static let itemBytes = 12
  static let noValue = UInt32.max
  /// The largest frame accepted.
  static let maximumBytes = 8 << 20
  /// A frame that has become this large is ended, and the next item begins another.
  static let targetBytes = 1 << 20
}

/// What a client may ask for.
enum ClientOperation: UInt8 {
  case write = 0
  case safeRead = 1
  case leaseRead = 2
}

/// Why a conversation between a client and a node ended.
public enum ClientError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The other side closed the connection, or refused it: another cluster, or too many clients.
  case closed
  /// A system call failed.
  case system(TransportError)
  /// What arrived is no frame of this protocol.
  case malformed(String)
  /// Nobody answered in time.
  case timeout

  public var description: String {
    switch self {
    case .closed: "the connection was closed by the other side"
    case .system(let error): "\(error)"
    case .malformed(let reason): "not a frame of this protocol: \(reason)"
    case .timeout: "the node did not answer in time"
    }
  }
}

/// Frames on their way out, and how much of them the socket has taken.
struct ClientFrameWriter {
  private var output = SendBuffer()
  private var frameStart: Int?
  private var itemCount: UInt32 = 0

  /// What the socket has not taken yet.
  var pendingBytes: Int { output.pendingBytes }

  /// A place to come back to while nothing is sent.
  struct Mark {
    fileprivate var byteCount: Int
    fileprivate var frameStart: Int?
    fileprivate var itemCount: UInt32
  }

  var mark: Mark { Mark(byteCount: output.bytes.count, frameStart: frameStart, itemCount: itemCount) }

  /// Takes everything back that was added since `mark`, sealed or not: a frame that was sealed since is open again, and
  /// its header is written anew when it ends.
  mutating func rewind(to mark: Mark) {
    output.bytes.removeLast(output.bytes.count - mark.byteCount)
    frameStart = mark.frameStart
    itemCount = mark.itemCount
  }

  /// Adds an item to the frame that is being filled.
  mutating func add(token: UInt32, code: UInt8, payload: RawSpan?) {
    if frameStart == nil { begin() }
    var length = ClientFrame.noValue
    if let payload { length = UInt32(payload.byteCount) }
    let head = (token.littleEndian, length.littleEndian, UInt32(code).littleEndian)
    unsafe withUnsafeBytes(of: head) { unsafe output.bytes.append(contentsOf: $0) }
    if let payload { unsafe payload.withUnsafeBytes { unsafe output.bytes.append(contentsOf: $0) } }
    itemCount += 1
  }

  /// Whether the frame has become large enough to be ended.
  var isFull: Bool { frameStart.map { output.bytes.count - $0 >= ClientFrame.targetBytes } ?? false }

  /// Ends the frame that is being filled, if there is one.
  mutating func seal(_ kind: ClientFrame.Kind, number: UInt64) {
    guard let start = frameStart else { return }
    frameStart = nil
    let count = itemCount
    itemCount = 0
    let size = output.bytes.count - start
    unsafe output.bytes.withUnsafeMutableBytes { all in
      let frame = unsafe UnsafeMutableRawBufferPointer(rebasing: all[start...])
      unsafe frame.storeBytes(of: UInt32(size).littleEndian, as: UInt32.self)
      unsafe frame.storeBytes(of: ClientFrame.version.littleEndian, toByteOffset: 8, as: UInt16.self)
      unsafe frame.storeBytes(of: kind.rawValue, toByteOffset: 10, as: UInt8.self)
      unsafe frame.storeBytes(of: 0, toByteOffset: 11, as: UInt8.self)
      unsafe frame.storeBytes(of: count.littleEndian, toByteOffset: 12, as: UInt32.self)
      unsafe frame.storeBytes(of: number.littleEndian, toByteOffset: 16, as: UInt64.self)
      let checksum = unsafe cweir_crc32c(0, frame.baseAddress.unsafelyUnwrapped + 8, size - 8)
      unsafe frame.storeBytes(of: checksum.littleEndian, toByteOffset: 4, as: UInt32.self)
    }
  }

  /// A frame without items.
  mutating func addEmpty(_ kind: ClientFrame.Kind, number: UInt64) {
    begin()
    seal(kind, number: number)
  }

  /// Sends what is sealed, as far as the socket takes it at once. Call `seal` first.
  mutating func send(to descriptor: Int32) -> SocketResult { output.send(to: descriptor, keptBytes: .max) }

  /// What waits, for tests that damage it.
  mutating func takeBytes() -> [UInt8] {
    defer { self = ClientFrameWriter() }
    return Array(output.pending)
  }

  private mutating func begin() {
    frameStart = output.bytes.count
    output.bytes.append(contentsOf: repeatElement(0, count: ClientFrame.headerBytes))
  }
}

/// Bytes as they arrive, and the frames in them.
struct ClientFrameReader {
  struct Frame {
    var kind: ClientFrame.Kind
    var count: Int
    var number: UInt64
    fileprivate var items: Range<Int>
  }

  private var buffer: [UInt8]
  private var consumed = 0
  private var filled = 0
  private let capacity: Int

  init(capacity: Int = 256 << 10) {
    self.capacity = capacity
    buffer = [UInt8](repeating: 0, count: capacity)
  }

  /// Reads once. Frames that were handed out before are gone.
  mutating func receive(from descriptor: Int32) -> (result: SocketResult, isShort: Bool) {
    makeRoom()
    let start = filled
    let free = buffer.count - start
    let result = unsafe buffer.withUnsafeMutableBytes { all in
      unsafe Socket.receive(descriptor, into: UnsafeMutableRawBufferPointer(rebasing: all[start...]))
    }
    guard case .moved(let count) = result else { return (result, true) }
    filled += count
    return (result, count < free)
  }

  /// The next complete frame, or nil if more has to arrive.
  mutating func next() throws(ClientError) -> Frame? {
    let available = filled - consumed
    guard available >= ClientFrame.headerBytes else { return nil }
    let size = Int(load(UInt32.self, at: 0))
    guard size >= ClientFrame.headerBytes, size <= ClientFrame.maximumBytes else {
      throw .malformed("a frame of \(size) bytes")
    }
    guard size <= available else { return nil }
    let stated = load(UInt32.self, at: 4)
    let start = consumed
    let checksum = unsafe buffer.withUnsafeBytes { all in
      unsafe cweir_crc32c(0, all.baseAddress.unsafelyUnwrapped + start + 8, size - 8)
    }
    guard checksum == stated else { throw .malformed("the checksum does not match") }
    let version = load(UInt16.self, at: 8)
    guard version == ClientFrame.version else { throw .malformed("protocol version \(version)") }
    guard let kind = ClientFrame.Kind(rawValue: buffer[start + 10]), buffer[start + 11] == 0 else {
      throw .malformed("kind \(buffer[start + 10])")
    }
    let frame = Frame(
      kind: kind, count: Int(load(UInt32.self, at: 12)), number: load(UInt64.self, at: 16),
      items: start + ClientFrame.headerBytes..<start + size)
    consumed += size
    return frame
  }

  /// Calls `body` with each item: its token, its code, and its payload or nil.
  func forEachItem(_ frame: Frame, _ body: (UInt32, UInt8, RawSpan?) -> Void) throws(ClientError) {
    let bytes = unsafe buffer.span.bytes
    var offset = frame.items.lowerBound
    for _ in 0..<frame.count {
      guard frame.items.upperBound - offset >= ClientFrame.itemBytes else { throw .malformed("an item is cut off") }
      // Safe: the item's head was just seen to be there.
      let token = unsafe UInt32(littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
      let length = unsafe UInt32(littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: offset + 4, as: UInt32.self))
      let code = unsafe UInt32(littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: offset + 8, as: UInt32.self))
      offset += ClientFrame.itemBytes
      guard code <= 0xFF else { throw .malformed("reserved bytes of an item are not zero") }
      if length == ClientFrame.noValue {
        body(token, UInt8(truncatingIfNeeded: code), nil)
        continue
      }
      guard Int(length) <= frame.items.upperBound - offset else { throw .malformed("an item is cut off") }
      body(token, UInt8(truncatingIfNeeded: code), bytes.extracting(offset..<offset + Int(length)))
      offset += Int(length)
    }
    guard offset == frame.items.upperBound else { throw .malformed("bytes behind the last item") }
  }

  private func load<T: FixedWidthInteger & BitwiseCopyable>(_: T.Type, at offset: Int) -> T {
    // Safe: callers have seen that a header is there.
    let bytes = unsafe buffer.span.bytes
    return unsafe T(littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: consumed + offset, as: T.self))
  }

  /// Moves what is pending to the front once little room is left, and grows for a frame that does not fit.
  private mutating func makeRoom() {
    let pending = filled - consumed
    if pending == 0 {
      consumed = 0
      filled = 0
    }
    var needed = capacity / 4
    if pending >= ClientFrame.headerBytes {
      // Not more than a frame may have, whatever it says.
      needed = max(needed, min(Int(load(UInt32.self, at: 0)), ClientFrame.maximumBytes) - pending)
    }
    guard buffer.count - filled < needed else { return }
    buffer.removeSubrange(0..<consumed)
    filled = pending
    consumed = 0
    let size = max(capacity, pending + needed)
    buffer.append(contentsOf: repeatElement(0, count: size - buffer.count))
  }
}
