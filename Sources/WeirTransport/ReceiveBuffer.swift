import WeirCore

/// Where a connection's bytes arrive: a slab that is filled from the front, and read frame by frame where it lies.
///
/// Messages refer to their entries in the slab. It is written again only once nobody else holds it.
struct ReceiveBuffer {
  private(set) var slab: Slab
  private var consumed = 0
  private var filled = 0
  private let capacity: Int
  private let maximumFrameBytes: Int

  init(capacity: Int, maximumFrameBytes: Int) {
    self.capacity = capacity
    self.maximumFrameBytes = maximumFrameBytes
    slab = Slab(capacity: capacity)
  }

  /// Bytes that arrived and are not yet part of a complete frame.
  var pendingBytes: Int { filled - consumed }

  /// Reads once from the socket into the free part of the slab.
  /// - Returns: what became of it, and whether the read was short: then there is no more for now.
  mutating func receive(from descriptor: Int32) -> (result: SocketResult, isShort: Bool) {
    let free = slab.capacity - filled
    let target = unsafe UnsafeMutableRawBufferPointer(rebasing: slab.bytes[filled...])
    let result = unsafe Socket.receive(descriptor, into: target)
    guard case .moved(let count) = result else { return (result, true) }
    filled += count
    return (result, count < free)
  }

  /// The place of the next complete frame in `slab`, or nil if more has to arrive; then there is room for it.
  mutating func nextFrame() throws(FrameError) -> Range<Int>? {
    let available = unsafe slab.bytes(in: consumed..<filled)
    let length = unsafe try FrameHeader.frameBytes(available, maximumFrameBytes: maximumFrameBytes)
    guard let length, length <= available.count else {
      makeRoom(forFrame: length ?? FrameHeader.bytes)
      return nil
    }
    let frame = consumed..<consumed + length
    consumed += length
    return frame
  }

  /// `count` bytes that have arrived, copied out; nil until they are there. For the hello, before there are frames.
  mutating func take(_ count: Int) -> [UInt8]? {
    guard filled - consumed >= count else { return nil }
    let bytes = unsafe [UInt8](slab.bytes(in: consumed..<consumed + count))
    consumed += count
    return bytes
  }

  /// Sees to it that the frame which has begun to arrive can lie in one piece, and that there is room to read into.
  private mutating func makeRoom(forFrame length: Int) {
    let pending = filled - consumed
    if pending == 0, isKnownUniquelyReferenced(&slab), slab.capacity == capacity {
      consumed = 0
      filled = 0
      return
    }
    // A quarter of the slab left is room enough: reading on costs less than moving what is there.
    let needed = max(length, min(pending + capacity / 4, capacity))
    guard consumed + needed > slab.capacity else { return }
    if length <= capacity, slab.capacity == capacity, isKnownUniquelyReferenced(&slab) {
      unsafe slab.bytes.baseAddress.unsafelyUnwrapped.copyMemory(
        from: slab.bytes.baseAddress.unsafelyUnwrapped + consumed, byteCount: pending)
    } else {
      let next = Slab(capacity: max(capacity, length))
      if pending > 0 {
        unsafe next.bytes.baseAddress.unsafelyUnwrapped.copyMemory(
          from: slab.bytes.baseAddress.unsafelyUnwrapped + consumed, byteCount: pending)
      }
      slab = next
    }
    consumed = 0
    filled = pending
  }
}
