// Cost of a list: none in the steady state. One is needed where a batch crosses the end of a segment, once in 6,500
// entries of 128 bytes, and those that were needed then are used again.

/// Where the frames of a batch lie that is spread over several places.
///
/// Sendable: written only by the log that made it, and only while no batch refers to it.
final class EntrySliceList: EntryMemory, @unchecked Sendable {
  fileprivate(set) var slices: [EntrySlice] = []
  private(set) var byteCount = 0

  override init() {
    super.init()
    slices.reserveCapacity(4)
  }

  func append(_ slice: EntrySlice) {
    slices.append(slice)
    byteCount += slice.byteCount
  }

  fileprivate func removeAll() {
    slices.removeAll(keepingCapacity: true)
    byteCount = 0
  }
}

/// The lists of one log.
final class EntrySliceListPool {
  private static let count = 16
  private var lists: [EntrySliceList] = []

  /// An empty list that no batch refers to.
  func next() -> EntrySliceList {
    // All at once when the first is needed: a burst of them must not take memory later.
    while lists.count < Self.count { lists.append(EntrySliceList()) }
    for position in lists.indices where isKnownUniquelyReferenced(&lists[position]) {
      lists[position].removeAll()
      return lists[position]
    }
    return EntrySliceList()
  }

  /// Lets go of the slabs in lists that no batch refers to any more: else those could not be written again.
  func sweep() {
    for position in lists.indices where !lists[position].slices.isEmpty {
      if isKnownUniquelyReferenced(&lists[position]) { lists[position].removeAll() }
    }
  }
}
