/// A contiguous run of frames within one slab, kept alive by the reference.
@frozen
public struct EntrySlice: Sendable {
  public let slab: Slab
  /// Where the first frame begins, in bytes from the slab's start.
  public let offset: Int
  /// Size in bytes, padding of the last frame included.
  public let byteCount: Int

  @inlinable
  public init(slab: Slab, offset: Int, byteCount: Int) {
    self.slab = slab
    self.offset = offset
    self.byteCount = byteCount
  }
}

/// A run of entries with consecutive indexes, by reference: copying a batch copies no entry.
///
/// A batch is proof that its frames were verified: it is made only by the log buffer (which sealed or checked them), by
/// `EntryBatchBuilder` (which seals them) and by the message decoder (which checks them). Its bytes never change.
/// Nearly always the run lies in one slab; it lies in several where a segment ended or a suffix was replaced.
@frozen
public struct EntryBatch: Sendable {
  /// Index of the first entry; 0 for entries that have not been given an index yet (proposals).
  public let firstIndex: LogIndex
  /// Number of entries.
  public let count: Int
  /// Size of all frames in bytes.
  public let byteCount: Int

  // One slice nearly always, two where a segment ended: neither takes memory. More only behind truncated suffixes and
  // over several segments at once.
  @usableFromInline let slab: Slab?
  @usableFromInline let offset: Int
  @usableFromInline let headByteCount: Int
  @usableFromInline let second: EntrySlice?
  @usableFromInline let rest: [EntrySlice]?

  @inlinable
  init(
    firstIndex: LogIndex, count: Int, head: EntrySlice, second: EntrySlice? = nil, rest: [EntrySlice]? = nil,
    byteCount: Int
  ) {
    self.firstIndex = firstIndex
    self.count = count
    self.byteCount = byteCount
    slab = head.slab
    offset = head.offset
    headByteCount = head.byteCount
    self.second = second
    self.rest = rest
  }

  /// No entries.
  @inlinable
  public init() {
    firstIndex = 0
    count = 0
    byteCount = 0
    slab = nil
    offset = 0
    headByteCount = 0
    second = nil
    rest = nil
  }

  @inlinable public var isEmpty: Bool { count == 0 }

  /// Index of the last entry. Only of a batch with entries that have indexes.
  @inlinable
  public var lastIndex: LogIndex {
    precondition(count > 0, "an empty batch has no last index")
    return firstIndex + UInt64(count) - 1
  }

  /// Calls `body` with each contiguous run of frames, in order: what a vectored write takes.
  @inlinable
  public func forEachSlice(_ body: (EntrySlice) throws -> Void) rethrows {
    guard let slab else { return }
    try body(EntrySlice(slab: slab, offset: offset, byteCount: headByteCount))
    guard let second else { return }
    try body(second)
    guard let rest else { return }
    for slice in rest { try body(slice) }
  }

  /// Calls `body` with each entry's header and payload, in order.
  @inlinable
  public func forEach(_ body: (EntryHeader, RawSpan) throws -> Void) rethrows {
    try forEachSlice { slice in
      let bytes = unsafe slice.slab.bytes(in: slice.offset..<slice.offset + slice.byteCount)
      var position = 0
      while position < slice.byteCount {
        let frame = unsafe UnsafeRawBufferPointer(rebasing: bytes[position...])
        guard let base = frame.baseAddress else { return }
        let header = unsafe EntryFrame.trustedHeader(base)
        let payload = unsafe UnsafeRawBufferPointer(start: base + EntryFrame.headerBytes, count: header.payloadBytes)
        try unsafe body(header, RawSpan(_unsafeBytes: payload))
        position += EntryFrame.occupiedBytes(payloadBytes: header.payloadBytes)
      }
    }
  }
}
