/// Linearizability of one register whose values are all different, in O(n log n).
///
/// Gibbons and Korach, "Testing shared memories" (SIAM J. Comput. 26, 1997): the set of a value and the gets that
/// returned it form a cluster. Let `end` be the earliest return in a cluster and `start` its latest call. Where the
/// end of one cluster lies before the start of another, every linearization has the first value before the second.
/// The register is linearizable exactly if no get precedes its own set and no two clusters must precede each other.
enum ZonesChecker {
  /// The operations on one value.
  struct Cluster {
    var value: UInt64
    /// Index (into the operations) of the set; nil for the value the register began with.
    var setIndex: Int?
    /// Earliest return of the cluster, and who returned.
    var end: UInt64
    var endIndex: Int
    /// Latest call of the cluster, and who called.
    var start: UInt64
    var startIndex: Int
    /// The earliest return among the gets alone.
    var firstReadEnd: UInt64
    var firstReadIndex: Int
    var reads: Int

    /// A forward zone is a time in which the register certainly held this value.
    var isForward: Bool { end < start }
  }

  /// - Parameter operations: those of one key that took or may have taken effect, sorted by value, a value's set
  ///   before its gets; no two sets of one value; no deletes but ones that no get can be confused about.
  /// - Returns: the first contradiction, or nil where the history is linearizable.
  static func check(key: UInt64, operations: ArraySlice<HistoryOperation>) -> Violation? {
    var forward: [Cluster] = []
    var backward: [Cluster] = []
    var index = operations.startIndex
    while index < operations.endIndex {
      var next = index
      let value = operations[index].value
      while next < operations.endIndex, operations[next].value == value { next += 1 }
      let cluster = cluster(of: operations[index..<next])
      if let violation = impossibleRead(key: key, in: cluster, operations) { return violation }
      // A set whose outcome is unknown and that nobody read can be thought of as taking effect after all else.
      let isUnseenUnknown = cluster.reads == 0 && cluster.end == .max
      if !isUnseenUnknown {
        if cluster.isForward { forward.append(cluster) } else { backward.append(cluster) }
      }
      index = next
    }
    return contradiction(key: key, forward: &forward, backward: backward, operations)
  }

  private static func cluster(of operations: ArraySlice<HistoryOperation>) -> Cluster {
    var cluster = Cluster(
      value: operations[operations.startIndex].value, setIndex: nil, end: .max, endIndex: -1, start: 0,
      startIndex: -1, firstReadEnd: .max, firstReadIndex: -1, reads: 0)
    for index in operations.indices {
      let operation = operations[index]
      if operation.kind == .get {
        cluster.reads += 1
        if operation.end < cluster.firstReadEnd || cluster.firstReadIndex < 0 {
          cluster.firstReadEnd = operation.end
          cluster.firstReadIndex = index
        }
      } else {
        cluster.setIndex = index
      }
      // One later than they were, so that time 0 is before everything, also before a call at 0.
      let end = operation.end == .max ? .max : operation.end + 1
      let start = operation.callNanoseconds == .max ? .max : operation.callNanoseconds + 1
      if end < cluster.end || cluster.endIndex < 0 {
        cluster.end = end
        cluster.endIndex = index
      }
      if start > cluster.start || cluster.startIndex < 0 {
        cluster.start = start
        cluster.startIndex = index
      }
    }
    if cluster.setIndex == nil, cluster.value == HistoryOperation.noValue {
      // The register began without a value: its "set" was over before everything.
      cluster.end = 0
      cluster.endIndex = -1
    }
    return cluster
  }

  private static func impossibleRead(
    key: UInt64, in cluster: Cluster, _ operations: ArraySlice<HistoryOperation>
  ) -> Violation? {
    guard cluster.reads > 0 else { return nil }
    let read = operations[cluster.firstReadIndex]
    guard let setIndex = cluster.setIndex else {
      guard cluster.value != HistoryOperation.noValue else { return nil }
      return Violation(
        rule: .valueFromNowhere, key: key, operations: [read],
        explanation: "\(read) returned a value that no set wrote.")
    }
    let set = operations[setIndex]
    guard cluster.firstReadEnd < set.callNanoseconds else { return nil }
    return Violation(
      rule: .readFromTheFuture, key: key, operations: [read, set],
      explanation: "\(read) ended before \(set), which wrote the value, was called.")
  }

  /// Two clusters that must each come before the other. Backward zones never do that among themselves.
  private static func contradiction(
    key: UInt64, forward: inout [Cluster], backward: [Cluster], _ operations: ArraySlice<HistoryOperation>
  ) -> Violation? {
    forward.sort { ($0.end, $0.value) < ($1.end, $1.value) }
    for (first, second) in zip(forward, forward.dropFirst()) where second.end < first.start {
      return violation(key: key, first, second, operations)
    }
    // Forward zones do not overlap from here on, so of those that begin before a backward zone only the last can
    // reach beyond it.
    for cluster in backward {
      var low = 0
      var high = forward.count
      while low < high {
        let middle = (low + high) / 2
        if forward[middle].end < cluster.start { low = middle + 1 } else { high = middle }
      }
      guard low > 0, cluster.end < forward[low - 1].start else { continue }
      return violation(key: key, forward[low - 1], cluster, operations)
    }
    return nil
  }

  private static func violation(
    key: UInt64, _ a: Cluster, _ b: Cluster, _ operations: ArraySlice<HistoryOperation>
  ) -> Violation {
    func described(_ index: Int) -> String {
      index < 0 ? "the register's beginning without a value" : "\(operations[index])"
    }
    let involved = [a.endIndex, b.startIndex, b.endIndex, a.startIndex].filter { $0 >= 0 }.map { operations[$0] }
    let text =
      "\(described(a.endIndex)) ended before \(described(b.startIndex)) began, so value \(a.value) comes before "
      + "value \(b.value); but \(described(b.endIndex)) ended before \(described(a.startIndex)) began, so value "
      + "\(b.value) comes before value \(a.value)."
    // Where the last call of a cluster is a get, that get saw a value whose time was over.
    let isStale = [a.startIndex, b.startIndex].contains { $0 >= 0 && operations[$0].kind == .get }
    return Violation(
      rule: isStale ? .staleRead : .contradictoryOrder, key: key, operations: involved,
      explanation: isStale ? "A replaced value was read: \(text)" : text)
  }
}
