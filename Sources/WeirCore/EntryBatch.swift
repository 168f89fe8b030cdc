// Cost of copying a batch: 32 bytes and one counted reference; of handing on a batch that is moved: 32 bytes. Every
// message carries one, so its size is a part of the price of each hop.

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

/// A run of entries with consecutive indexes and terms that never fall, by reference: copying a batch copies no entry.
///
/// A batch is proof of that: it is made only by the log buffer (which sealed or checked its frames), by the message
/// decoder (which checks them), and by `EntryBatchBuilder`, whose frames are proposals and have no checksum yet. Its
/// bytes never change. Nearly always the run lies in one slab; it lies in several where a segment ended or a suffix was
/// replaced.
@frozen
public struct EntryBatch: Sendable {
  /// What is known of all entries of a batch. Not an option set: the literals of those are arrays.
  @frozen
  @usableFromInline
  struct Marks: Sendable {
    @usableFromInline let bits: UInt32

    @inlinable
    @inline(__always)
    init(bits: UInt32) { self.bits = bits }

    @inlinable static var none: Marks { Marks(bits: 0) }
    /// `memory` is a list of slices, not a slab.
    @inlinable static var isSpread: Marks { Marks(bits: 1) }
    /// The frames have no checksums.
    @inlinable static var isUnsealed: Marks { Marks(bits: 2) }
    /// Each entry is known to be `EntryKind.normal`.
    @inlinable static var isNormal: Marks { Marks(bits: 4) }
    /// All entries are known to have the term of the first.
    @inlinable static var isOfOneTerm: Marks { Marks(bits: 8) }

    @inlinable
    @inline(__always)
    func contains(_ other: Marks) -> Bool { bits & other.bits != 0 }

    @inlinable
    @inline(__always)
    func with(_ other: Marks, if condition: Bool = true) -> Marks {
      condition ? Marks(bits: bits | other.bits) : self
    }

    func without(_ other: Marks) -> Marks { Marks(bits: bits & ~other.bits) }
  }

  /// Index of the first entry; 0 for entries that have not been given an index yet (proposals).
  @inlinable public var firstIndex: LogIndex { first }
  @usableFromInline var first: LogIndex
  @usableFromInline let memory: EntryMemory?
  /// Where the first frame begins, in bytes from the slab's start; 0 where there are several slices.
  @usableFromInline var offset: UInt32
  @usableFromInline var entryCount: UInt32
  /// Size of all frames in units of 8 bytes, of which every frame is a multiple.
  @usableFromInline var byteUnits: UInt32
  @usableFromInline var marks: Marks

  /// A run within one slab.
  @inlinable
  @inline(__always)
  init(firstIndex: LogIndex, count: Int, slab: consuming Slab, offset: Int, byteCount: Int, marks: Marks) {
    first = firstIndex
    memory = slab
    self.offset = UInt32(offset)
    entryCount = UInt32(count)
    byteUnits = UInt32(byteCount / 8)
    self.marks = marks
  }

  /// A run over several slices.
  init(firstIndex: LogIndex, count: Int, list: EntrySliceList, marks: Marks) {
    first = firstIndex
    memory = list
    offset = 0
    entryCount = UInt32(count)
    byteUnits = UInt32(list.byteCount / 8)
    self.marks = marks.with(.isSpread)
  }

  /// No entries.
  @inlinable
  @inline(__always)
  public init() {
    first = 0
    memory = nil
    offset = 0
    entryCount = 0
    byteUnits = 0
    marks = .none
  }

  /// Becomes another run in the slab that it lies in: the reference stays, and is not counted.
  @inline(__always)
  mutating func move(to run: VerifiedRun, offset: Int, byteCount: Int) {
    first = run.firstIndex
    self.offset = UInt32(offset)
    entryCount = UInt32(run.count)
    byteUnits = UInt32(byteCount / 8)
    marks = run.marks
  }

  @inlinable public var isEmpty: Bool { entryCount == 0 }

  /// Number of entries.
  @inlinable public var count: Int { Int(entryCount) }

  /// Size of all frames in bytes.
  @inlinable public var byteCount: Int { Int(byteUnits) &* 8 }

  /// Whether the frames have their checksums; those of proposals get them when they get their indexes.
  @inlinable public var isSealed: Bool { !marks.contains(.isUnsealed) }

  /// Whether no entry changes the membership, as far as that is known without looking.
  @inlinable public var isKnownNormal: Bool { marks.contains(.isNormal) }

  /// Index of the last entry. Only of a batch with entries that have indexes.
  @inlinable
  public var lastIndex: LogIndex {
    require(entryCount > 0, "an empty batch has no last index")
    return firstIndex + UInt64(entryCount) - 1
  }

  /// The slab, if all frames lie in one.
  @inlinable
  @inline(__always)
  var onlySlab: Slab? {
    guard let memory, !marks.contains(.isSpread) else { return nil }
    return unsafe unsafeDowncast(memory, to: Slab.self)
  }

  /// Calls `body` with each contiguous run of frames, in order: what a vectored write takes.
  @inlinable
  public func forEachSlice(_ body: (EntrySlice) throws -> Void) rethrows {
    if let slab = onlySlab {
      try body(EntrySlice(slab: slab, offset: Int(offset), byteCount: byteCount))
    } else {
      for slice in spreadSlices { try body(slice) }
    }
  }

  @usableFromInline
  var spreadSlices: [EntrySlice] {
    guard let memory else { return [] }
    return unsafe unsafeDowncast(memory, to: EntrySliceList.self).slices
  }

  /// Calls `body` with each entry's header and payload, in order.
  @inlinable
  public func forEach(_ body: (EntryHeader, RawSpan) throws -> Void) rethrows {
    try forEachSlice { slice in
      let bytes = unsafe slice.slab.bytes(in: slice.offset..<slice.offset + slice.byteCount)
      guard let base = bytes.baseAddress else { return }
      var position = 0
      while position < slice.byteCount {
        let header = unsafe EntryFrame.trustedHeader(base + position)
        let payload = unsafe UnsafeRawBufferPointer(
          start: base + position + EntryFrame.headerBytes, count: header.payloadBytes)
        try unsafe body(header, RawSpan(_unsafeBytes: payload))
        position += EntryFrame.occupiedBytes(payloadBytes: header.payloadBytes)
      }
    }
  }

  /// The terms of the first and of the last entry; O(1) where all have the same, else one step per entry.
  public var terms: (first: Term, last: Term) {
    if marks.contains(.isOfOneTerm), let slab = onlySlab {
      let frame = unsafe slab.bytes(in: Int(offset)..<Int(offset) + EntryFrame.headerBytes)
      if let base = frame.baseAddress {
        let term = unsafe EntryFrame.trustedHeader(base).term
        return (term, term)
      }
    }
    return walkedTerms
  }

  @inline(never)
  private var walkedTerms: (first: Term, last: Term) {
    var first: Term?
    var last: Term = 0
    forEach { header, _ in
      if first == nil { first = header.term }
      last = header.term
    }
    return (first ?? 0, last)
  }

  /// The same proposals in frames with checksums, in memory of their own: what a message to another node needs. A batch
  /// that is sealed is given back as it is.
  public func sealed() -> EntryBatch {
    guard !isSealed, byteCount > 0 else { return self }
    let copy = Slab(capacity: byteCount)
    var position = 0
    forEach { header, payload in
      guard let base = unsafe copy.bytes.baseAddress else { return }
      unsafe payload.withUnsafeBytes { source in
        unsafe EntryFrame.seal(
          base + position, index: 0, term: 0, kind: header.kind, payload: source.baseAddress,
          payloadBytes: source.count)
      }
      position += EntryFrame.occupiedBytes(payloadBytes: header.payloadBytes)
    }
    return EntryBatch(
      firstIndex: 0, count: count, slab: copy, offset: 0, byteCount: byteCount, marks: marks.without(.isUnsealed))
  }
}
