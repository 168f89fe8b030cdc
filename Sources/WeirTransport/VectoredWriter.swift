import Glibc
import WeirCore

/// The frames on their way into one socket: heads in an arena, entries by reference where they lie in the log.
///
/// One `sendmsg` takes what a whole turn of the loop produced for the peer. What the socket did not take stays here,
/// byte-exact, until it becomes writable again.
@safe
final class VectoredWriter {
  private let arena: UnsafeMutableRawBufferPointer
  private var arenaUsed = 0
  private var vectors: UnsafeMutableBufferPointer<iovec>
  private var firstVector = 0
  private var vectorCount = 0
  /// Where the last vector ends, if it lies in the arena: the next head continues it.
  private var openHead = false
  private var held: [EntryBatch] = []
  /// Bytes that the socket has not taken yet.
  private(set) var pendingBytes = 0

  private static let arenaBytes = 64 << 10
  /// What one fill takes at most (but at least one message): bounds what a heartbeat has to wait for.
  private static let maximumFillBytes = 1 << 20
  /// What the kernel takes in one call (IOV_MAX).
  private static let maximumVectorsPerCall = 1024

  init() {
    unsafe arena = .allocate(byteCount: Self.arenaBytes, alignment: 64)
    unsafe vectors = .allocate(capacity: 256)
  }

  deinit {
    unsafe arena.deallocate()
    unsafe vectors.deallocate()
  }

  var isEmpty: Bool { pendingBytes == 0 }

  /// Takes messages from the queue until it is empty or a limit is reached. Only when everything before is sent.
  /// - Returns: how many were taken.
  func fill(from queue: inout OutboundQueue, clusterID: UInt64, sender: NodeID) -> Int {
    precondition(isEmpty, "frames are not reordered behind a partial write")
    reset()
    var taken = 0
    while pendingBytes < Self.maximumFillBytes, arenaUsed + Self.headReserveBytes <= Self.arenaBytes,
      let message = queue.pop()
    {
      append(message, clusterID: clusterID, sender: sender)
      taken += 1
    }
    return taken
  }

  private static let headReserveBytes = 1024

  /// Adds raw bytes, copied: a hello.
  func append(bytes: [UInt8]) {
    if isEmpty { reset() }
    precondition(bytes.count <= Self.arenaBytes - arenaUsed, "only small things are copied")
    let target = unsafe UnsafeMutableRawBufferPointer(rebasing: arena[arenaUsed..<arenaUsed + bytes.count])
    unsafe target.copyBytes(from: bytes)
    addHead(bytes.count)
  }

  /// Adds a frame whose whole body is in `slab`, behind room for the frame's header: a chunk of a snapshot.
  func append(slab: Slab, byteCount: Int) {
    if isEmpty { reset() }
    let batch = EntrySlice(slab: slab, offset: 0, byteCount: byteCount)
    heldSlabs.append(slab)
    addVector(batch)
  }

  private var heldSlabs: [Slab] = []

  /// One vectored write.
  func write(to descriptor: Int32) -> SocketResult {
    let count = min(vectorCount - firstVector, Self.maximumVectorsPerCall)
    let pending = unsafe UnsafeMutableBufferPointer(rebasing: vectors[firstVector..<firstVector + count])
    let result = unsafe Socket.send(descriptor, vectors: pending)
    if case .moved(let bytes) = result { advance(bytes) }
    return result
  }

  /// Forgets what was not sent: the connection is gone.
  func reset() {
    held.removeAll(keepingCapacity: true)
    heldSlabs.removeAll(keepingCapacity: true)
    arenaUsed = 0
    firstVector = 0
    vectorCount = 0
    openHead = false
    pendingBytes = 0
  }

  private func append(_ message: Message, clusterID: UInt64, sender: NodeID) {
    let headBytes = MessageCodec.encodedHeaderBytes(of: message)
    precondition(FrameHeader.bytes + headBytes <= Self.arenaBytes - arenaUsed, "a message's head fits into the arena")
    let start = arenaUsed + FrameHeader.bytes
    let head = unsafe UnsafeMutableRawBufferPointer(rebasing: arena[start..<start + headBytes])
    unsafe MessageCodec.encodeHeader(of: message, into: head)
    let header = FrameHeader(
      frameBytes: FrameHeader.bytes + headBytes + message.entries.byteCount, kind: .message, coveredBytes: 0,
      clusterID: clusterID, sender: sender)
    unsafe header.seal(arena.baseAddress.unsafelyUnwrapped + arenaUsed)
    addHead(FrameHeader.bytes + headBytes)
    guard !message.entries.isEmpty else { return }
    message.entries.forEachSlice { addVector($0) }
    held.append(message.entries)
  }

  private func addHead(_ count: Int) {
    if openHead {
      unsafe vectors[vectorCount - 1].iov_len += count
    } else {
      unsafe push(iovec(iov_base: arena.baseAddress.unsafelyUnwrapped + arenaUsed, iov_len: count))
      openHead = true
    }
    arenaUsed += count
    pendingBytes += count
  }

  private func addVector(_ slice: EntrySlice) {
    let bytes = unsafe slice.slab.bytes(in: slice.offset..<slice.offset + slice.byteCount)
    unsafe push(iovec(iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: bytes.count))
    openHead = false
    pendingBytes += slice.byteCount
  }

  @unsafe
  private func push(_ vector: iovec) {
    if unsafe vectorCount == vectors.count {
      let larger = unsafe UnsafeMutableBufferPointer<iovec>.allocate(capacity: vectors.count * 2)
      for index in unsafe vectors.indices { unsafe larger[index] = vectors[index] }
      unsafe vectors.deallocate()
      unsafe vectors = larger
    }
    unsafe vectors[vectorCount] = vector
    vectorCount += 1
  }

  private func advance(_ bytes: Int) {
    precondition(bytes <= pendingBytes, "the kernel took more than there was")
    pendingBytes -= bytes
    if pendingBytes == 0 {
      reset()
      return
    }
    var left = bytes
    while left > 0 {
      let length = unsafe vectors[firstVector].iov_len
      if left < length {
        unsafe vectors[firstVector].iov_base = unsafe vectors[firstVector].iov_base + left
        unsafe vectors[firstVector].iov_len = length - left
        return
      }
      left -= length
      firstVector += 1
    }
  }
}
