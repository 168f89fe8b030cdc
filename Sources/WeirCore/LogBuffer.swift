/// The replicated log in memory: entries framed once into large segments, found by index in O(1).
///
/// Indexes `anchorIndex + 1 ... lastIndex` are held; the anchor is the last entry that was compacted away or covered by
/// a snapshot, of which only the term is known.
public struct LogBuffer: ~Copyable {
  public struct Configuration: Sendable {
    /// Size of a segment in bytes; an entry larger than that gets a segment of its own.
    public var segmentBytes: Int
    /// How many released segments are kept for reuse.
    public var maximumSpareSegments: Int

    public init(segmentBytes: Int = 1 << 20, maximumSpareSegments: Int = 8) {
      self.segmentBytes = segmentBytes
      self.maximumSpareSegments = maximumSpareSegments
    }
  }

  private struct TermRun {
    var firstIndex: LogIndex
    var term: Term
  }

  private struct Location {
    var segment: Int
    var offset: Int
  }

  private let configuration: Configuration
  private var segments: [Slab] = []
  private var firstSegment = 0
  private var used = 0
  private var spares: [Slab] = []
  private var locations: [Location] = []
  private var firstLocation = 0
  private var runs: [TermRun] = []

  /// The last index before the first entry held.
  public private(set) var anchorIndex: LogIndex
  /// The term of the entry at `anchorIndex`.
  public private(set) var anchorTerm: Term
  /// Size of the frames held, in bytes.
  public private(set) var liveBytes = 0

  /// An empty log that continues behind `anchorIndex`.
  public init(configuration: Configuration = .init(), anchorIndex: LogIndex = 0, anchorTerm: Term = 0) {
    precondition(configuration.segmentBytes >= 4096, "segments have at least 4096 bytes")
    self.configuration = configuration
    self.anchorIndex = anchorIndex
    self.anchorTerm = anchorTerm
  }

  /// Index of the first entry held, if there is one.
  public var firstIndex: LogIndex { anchorIndex + 1 }

  /// Number of entries held.
  public var count: Int { locations.count - firstLocation }

  /// Index of the last entry, or `anchorIndex` if none is held.
  public var lastIndex: LogIndex { anchorIndex + UInt64(count) }

  /// Term of the last entry, or `anchorTerm` if none is held.
  public var lastTerm: Term { runs.last?.term ?? anchorTerm }

  /// Memory of all segments, spare ones included, in bytes.
  public var memoryBytes: Int {
    segments.reduce(0) { $0 + $1.capacity } + spares.reduce(0) { $0 + $1.capacity }
      + locations.capacity * MemoryLayout<Location>.stride
  }

  /// The term of the entry at `index`, or nil outside of `anchorIndex ... lastIndex`. O(log of the number of term runs).
  public func term(at index: LogIndex) -> Term? {
    guard index >= anchorIndex, index <= lastIndex else { return nil }
    if index == anchorIndex { return anchorTerm }
    var low = 0
    var high = runs.count
    while high - low > 1 {
      let middle = (low + high) / 2
      if runs[middle].firstIndex <= index { low = middle } else { high = middle }
    }
    return runs[low].term
  }

  /// The header of the entry at `index`, or nil if it is not held.
  public func header(at index: LogIndex) -> EntryHeader? {
    guard index > anchorIndex, index <= lastIndex else { return nil }
    let location = locations[position(of: index)]
    return unsafe EntryFrame.trustedHeader(base(of: location))
  }

  /// Size of the frames of `lower ... upper`, in bytes; both are held.
  public func frameBytes(from lower: LogIndex, through upper: LogIndex) -> Int {
    var total = 0
    var index = lower
    while index <= upper, let header = header(at: index) {
      total += EntryFrame.occupiedBytes(payloadBytes: header.payloadBytes)
      index += 1
    }
    return total
  }

  /// Appends one entry behind the last.
  /// - Parameter term: not below `lastTerm`.
  /// - Returns: the entry's index.
  @discardableResult
  public mutating func append(term: Term, kind: EntryKind = .normal, payload: RawSpan) -> LogIndex {
    precondition(term >= lastTerm, "terms never fall along the log")
    precondition(payload.byteCount <= EntryFrame.maximumPayloadBytes, "payload exceeds maximumPayloadBytes")
    let index = lastIndex + 1
    let occupied = EntryFrame.occupiedBytes(payloadBytes: payload.byteCount)
    let destination = unsafe reserve(occupied)
    unsafe payload.withUnsafeBytes { source in
      if let base = source.baseAddress {
        unsafe (destination + EntryFrame.headerBytes).copyMemory(from: base, byteCount: source.count)
      }
    }
    unsafe EntryFrame.seal(
      destination, header: EntryHeader(index: index, term: term, kind: kind, payloadBytes: payload.byteCount))
    commitReservation(index: index, term: term, occupied: occupied)
    return index
  }

  /// Appends the entries of a proposal, which get indexes behind the last and `term`.
  public mutating func append(proposals: EntryBatch, term: Term) {
    proposals.forEach { header, payload in append(term: term, kind: header.kind, payload: payload) }
  }

  /// Appends a leader's entries, each copied once as it stands. Entries of the batch below `index` are left out.
  /// - Precondition: `index == lastIndex + 1`, and the batch holds it.
  public mutating func append(_ batch: EntryBatch, from index: LogIndex) {
    precondition(index == lastIndex + 1, "a batch continues the log")
    precondition(!batch.isEmpty && batch.firstIndex <= index && index <= batch.lastIndex, "index outside of the batch")
    batch.forEach { header, payload in
      guard header.index >= index else { return }
      append(term: header.term, kind: header.kind, payload: payload)
    }
  }

  /// Removes the entries from `index` on. Bytes that were handed out stay as they are.
  public mutating func truncateSuffix(from index: LogIndex) {
    precondition(index > anchorIndex, "the compacted part cannot be truncated")
    guard index <= lastIndex else { return }
    liveBytes -= frameBytes(from: index, through: lastIndex)
    locations.removeLast(Int(lastIndex - index + 1))
    while let run = runs.last, run.firstIndex >= index { runs.removeLast() }
    releaseSegments()
  }

  /// Forgets the entries up to and including `index`, keeping its term. Nothing is copied.
  public mutating func releasePrefix(through index: LogIndex) {
    guard index > anchorIndex else { return }
    precondition(index <= lastIndex, "only entries that are held can be released")
    guard let term = term(at: index) else { return }
    liveBytes -= frameBytes(from: firstIndex, through: index)
    firstLocation += Int(index - anchorIndex)
    anchorIndex = index
    anchorTerm = term
    while runs.count > 1, runs[1].firstIndex <= index + 1 { runs.removeFirst() }
    if count == 0 {
      runs.removeAll(keepingCapacity: true)
    } else {
      runs[0].firstIndex = max(runs[0].firstIndex, index + 1)
    }
    if firstLocation > 1024, firstLocation > locations.count / 2 {
      locations.removeFirst(firstLocation)
      firstLocation = 0
    }
    releaseSegments()
  }

  /// Forgets everything and continues behind a snapshot.
  public mutating func reset(anchorIndex: LogIndex, anchorTerm: Term) {
    locations.removeAll(keepingCapacity: true)
    firstLocation = 0
    runs.removeAll(keepingCapacity: true)
    self.anchorIndex = anchorIndex
    self.anchorTerm = anchorTerm
    liveBytes = 0
    releaseSegments()
  }

  /// The entries `lower ... upper` by reference, cut behind the first entry whose frame brings the size to more than
  /// `maximumBytes`, but never to less than one entry.
  public func batch(from lower: LogIndex, through upper: LogIndex, maximumBytes: Int = .max) -> EntryBatch {
    guard lower <= upper else { return EntryBatch() }
    precondition(lower > anchorIndex && upper <= lastIndex, "the range is held")
    var slices: [EntrySlice] = []
    var head: EntrySlice?
    var entries = 0
    var total = 0
    var run: (segment: Int, offset: Int, byteCount: Int)?
    for index in lower...upper {
      let location = locations[position(of: index)]
      let header = unsafe EntryFrame.trustedHeader(base(of: location))
      let occupied = EntryFrame.occupiedBytes(payloadBytes: header.payloadBytes)
      if entries > 0, total + occupied > maximumBytes { break }
      if let current = run, current.segment == location.segment, current.offset + current.byteCount == location.offset {
        run?.byteCount += occupied
      } else {
        if let current = run { push(current, head: &head, rest: &slices) }
        run = (location.segment, location.offset, occupied)
      }
      entries += 1
      total += occupied
    }
    if let current = run { push(current, head: &head, rest: &slices) }
    guard let head else { return EntryBatch() }
    return EntryBatch(firstIndex: lower, count: entries, head: head, rest: slices, byteCount: total)
  }

  private func push(
    _ run: (segment: Int, offset: Int, byteCount: Int), head: inout EntrySlice?, rest: inout [EntrySlice]
  ) {
    let slice = EntrySlice(slab: segments[run.segment - firstSegment], offset: run.offset, byteCount: run.byteCount)
    if head == nil { head = slice } else { rest.append(slice) }
  }

  private func position(of index: LogIndex) -> Int { firstLocation + Int(index - anchorIndex - 1) }

  @unsafe
  private func base(of location: Location) -> UnsafeRawPointer {
    let slab = segments[location.segment - firstSegment]
    precondition(location.offset + EntryFrame.headerBytes <= slab.capacity, "frame outside of its segment")
    return unsafe UnsafeRawPointer(slab.bytes.baseAddress.unsafelyUnwrapped + location.offset)
  }

  /// Room for `occupied` bytes at the end of the last segment, or of a new one.
  @unsafe
  private mutating func reserve(_ occupied: Int) -> UnsafeMutableRawPointer {
    if segments.isEmpty || used + occupied > segments[segments.count - 1].capacity {
      segments.append(newSegment(toHold: occupied))
      used = 0
    }
    return unsafe segments[segments.count - 1].bytes.baseAddress.unsafelyUnwrapped + used
  }

  private mutating func newSegment(toHold occupied: Int) -> Slab {
    if occupied <= configuration.segmentBytes {
      for position in spares.indices where isKnownUniquelyReferenced(&spares[position]) {
        return spares.remove(at: position)
      }
    }
    return Slab(capacity: max(configuration.segmentBytes, occupied))
  }

  private mutating func commitReservation(index: LogIndex, term: Term, occupied: Int) {
    if term != lastTerm || runs.isEmpty { runs.append(TermRun(firstIndex: index, term: term)) }
    locations.append(Location(segment: firstSegment + segments.count - 1, offset: used))
    used += occupied
    liveBytes += occupied
  }

  /// Lets go of the segments in front of the first entry held. The last one stays, since appending continues in it:
  /// bytes behind a truncated suffix are not written again, as somebody may still read them.
  private mutating func releaseSegments() {
    let keep = count > 0 ? locations[firstLocation].segment : firstSegment + segments.count - 1
    while firstSegment < keep, segments.count > 1 {
      let slab = segments.removeFirst()
      firstSegment += 1
      if slab.capacity == configuration.segmentBytes, spares.count < configuration.maximumSpareSegments {
        spares.append(slab)
      }
    }
  }
}
