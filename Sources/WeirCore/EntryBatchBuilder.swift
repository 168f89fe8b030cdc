// Cost of an entry: payload, size and kind are written in one pass, and nothing else is done. There is no checksum: it
// covers index and term, which the log gives, so that one made here would be thrown away there. Memory is taken only
// while more slabs are on their way than ever before.

/// Lays out payloads that have no index yet as frames in a slab of their own: the entries of a proposal.
public struct EntryBatchBuilder: ~Copyable {
  /// How many slabs that are full are kept, to be written again once nobody holds a batch of them any more.
  private static let maximumSpares = 16

  private let capacity: Int
  private var slab: Slab
  private var spares: [Slab] = []
  private var used = 0
  private var start = 0
  private var count = 0
  private var isNormal = true

  /// - Parameter capacity: bytes of the first slab; a payload that does not fit gets a larger one.
  public init(capacity: Int = 64 << 10) {
    self.capacity = max(capacity, EntryFrame.headerBytes)
    slab = Slab(capacity: self.capacity)
    spares.reserveCapacity(Self.maximumSpares)
  }

  /// Memory of the slabs the builder holds, in bytes; batches may keep others alive.
  public var memoryBytes: Int { spares.reduce(slab.capacity) { $0 + $1.capacity } }

  /// Adds one entry. `payload` is at most `EntryFrame.maximumPayloadBytes` long.
  public mutating func append(kind: EntryKind = .normal, payload: RawSpan) {
    require(payload.byteCount <= EntryFrame.maximumPayloadBytes, "payload exceeds maximumPayloadBytes")
    let occupied = EntryFrame.occupiedBytes(payloadBytes: payload.byteCount)
    if used + occupied > slab.capacity { grow(toHold: occupied) }
    let destination = unsafe slab.bytes.baseAddress.unsafelyUnwrapped + used
    unsafe payload.withUnsafeBytes { source in
      unsafe EntryFrame.storeUnsealed(
        destination, kind: kind, payload: source.baseAddress, payloadBytes: source.count)
    }
    if kind != .normal { isNormal = false }
    used += occupied
    count += 1
  }

  /// Adds one entry with the bytes of an array.
  public mutating func append(kind: EntryKind = .normal, payload: [UInt8]) {
    unsafe append(kind: kind, payload: payload.span.bytes)
  }

  /// What was added since the last call, not sealed; the builder goes on behind it.
  public mutating func finish() -> EntryBatch {
    guard count > 0 else { return EntryBatch() }
    let marks = EntryBatch.Marks.isUnsealed.with(.isOfOneTerm).with(.isNormal, if: isNormal)
    let batch = EntryBatch(
      firstIndex: 0, count: count, slab: slab, offset: start, byteCount: used - start, marks: marks)
    start = used
    count = 0
    isNormal = true
    return batch
  }

  /// Moves what is pending to where there is room for `occupied` more: to the front of this slab if nobody holds a
  /// batch of it, else to another one.
  private mutating func grow(toHold occupied: Int) {
    let pending = used - start
    if start > 0, pending + occupied <= slab.capacity, isKnownUniquelyReferenced(&slab) {
      movePending(pending, to: slab)
    } else {
      let larger = nextSlab(toHold: pending + occupied)
      movePending(pending, to: larger)
      if slab.capacity == capacity, spares.count < Self.maximumSpares { spares.append(slab) }
      slab = larger
    }
    start = 0
    used = pending
  }

  private func movePending(_ pending: Int, to target: Slab) {
    guard pending > 0, let to = unsafe target.bytes.baseAddress, let from = unsafe slab.bytes.baseAddress else {
      return
    }
    unsafe to.copyMemory(from: from + start, byteCount: pending)
  }

  private mutating func nextSlab(toHold byteCount: Int) -> Slab {
    // Twice what is pending, so that a long batch is moved a logarithmic number of times.
    guard byteCount <= capacity else { return Slab(capacity: 2 * byteCount) }
    for position in spares.indices where isKnownUniquelyReferenced(&spares[position]) {
      return spares.remove(at: position)
    }
    return Slab(capacity: capacity)
  }
}
