// Cost of a new segment: none while a spare one is free, else memory of `segmentBytes`, zeroed, once. With 1 MiB segments
// and frames of 160 bytes that is once in 6,500 entries. Measured (`bench hot-paths --parts`, 2-core EPYC 9005):
// beginning one in spare memory and releasing the one in front 48 to 59 ns, 0.01 ns an entry.

/// The segments of a log, oldest first, and the place in the last one where writing goes on.
///
/// Bytes in use are never written again: writing goes on behind them, and a segment is written from its front again only
/// when nobody else holds a reference to it.
@safe
struct LogSegments: ~Copyable {
  let segmentBytes: Int
  private let maximumSpares: Int
  // The live ones are `slabs[head...]`; what is in front is nil and is cleared away now and then, which makes dropping the
  // first one O(1) over time.
  private var slabs: [Slab?] = []
  private var head = 0
  private var spares: [Slab] = []
  /// The number of the first live segment; they are numbered in order.
  private(set) var firstNumber = 0
  private(set) var memoryBytes = 0

  /// Where writing goes on in the last segment, in bytes from its start.
  private(set) var used = 0
  private(set) var capacity = 0
  private var tail: UnsafeMutableRawPointer?

  init(segmentBytes: Int, maximumSpares: Int) {
    self.segmentBytes = segmentBytes
    self.maximumSpares = maximumSpares
    unsafe tail = nil
    slabs.reserveCapacity(256)
    spares.reserveCapacity(maximumSpares)
  }

  var count: Int { slabs.count - head }
  var lastNumber: Int { firstNumber + count - 1 }
  /// What fits into the last segment, in bytes.
  var room: Int { capacity - used }

  @inline(__always)
  subscript(number: Int) -> Slab {
    guard let slab = slabs[head + number - firstNumber] else { preconditionFailure("segment \(number) is released") }
    return slab
  }

  /// Where the next bytes go; `byteCount` of them have room there.
  @inline(__always)
  @unsafe
  func destination(_ byteCount: Int) -> UnsafeMutableRawPointer {
    guard byteCount <= capacity - used, let tail = unsafe tail else { preconditionFailure("no room in the segment") }
    return unsafe tail + used
  }

  @inline(__always)
  mutating func advance(_ byteCount: Int) { used += byteCount }

  /// Goes on in a segment of its own, which holds at least `byteCount` bytes.
  @inline(never)
  mutating func begin(toHold byteCount: Int) {
    let slab = fresh(toHold: byteCount)
    if head > 64, head > slabs.count / 2 { clearReleased() }
    slabs.append(slab)
    used = 0
    point()
  }

  /// Moves the live segments to the front. One by one: `removeFirst(_:)` has the runtime allocate the description of a type
  /// when it is used first, which is long after the log is warm.
  private mutating func clearReleased() {
    for position in head..<slabs.count { slabs.swapAt(position - head, position) }
    for _ in 0..<head { slabs.removeLast() }
    head = 0
  }

  /// Lets go of the segments in front of `number`, but never of the last one.
  mutating func release(before number: Int) {
    while firstNumber < number, count > 1, let slab = slabs[head] {
      slabs[head] = nil
      head += 1
      firstNumber += 1
      keepSpare(slab)
    }
  }

  /// Nothing from `offset` of segment `number` on is in use any more. Writing goes on there if nobody holds a reference to
  /// that segment, else behind what was written.
  /// - Returns: whether writing goes on at `offset`.
  mutating func rewind(to number: Int, offset: Int) -> Bool {
    let isEarlier = number < lastNumber
    while lastNumber > number, count > 1, let slab = slabs.removeLast() { keepSpare(slab) }
    point()
    // Of an earlier segment it is not known how far it was written: as good as full.
    if isEarlier { used = capacity }
    guard count > 0, isKnownUniquelyReferenced(&slabs[slabs.count - 1]) else { return false }
    used = offset
    return true
  }

  private mutating func point() {
    guard let slab = slabs.last ?? nil else { return }
    capacity = slab.capacity
    unsafe tail = slab.bytes.baseAddress
  }

  private mutating func keepSpare(_ slab: Slab) {
    if slab.capacity == segmentBytes, spares.count < maximumSpares {
      spares.append(slab)
    } else {
      memoryBytes -= slab.capacity
    }
  }

  private mutating func fresh(toHold byteCount: Int) -> Slab {
    if byteCount <= segmentBytes {
      for position in spares.indices.reversed() where isKnownUniquelyReferenced(&spares[position]) {
        spares.swapAt(position, spares.count - 1)
        return spares.removeLast()
      }
    }
    let slab = Slab(capacity: max(segmentBytes, byteCount))
    memoryBytes += slab.capacity
    return slab
  }
}
