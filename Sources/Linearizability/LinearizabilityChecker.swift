/// Checks a history of registers, key by key (linearizability is local: a history is linearizable exactly if each of
/// its keys is; Herlihy and Wing, 1990).
public enum LinearizabilityChecker {
  /// - Parameters:
  ///   - operations: the history, in any order.
  ///   - searchStepLimit: how long the search may try where the fast check does not apply, for each key.
  ///   - listedViolations: how many violations to describe.
  public static func check(
    _ operations: [HistoryOperation], searchStepLimit: Int = 2_000_000, listedViolations: Int = 10
  ) -> LinearizabilityReport {
    // An operation that failed never happened; a get without an answer says nothing.
    var effective = operations.filter {
      $0.outcome == .ok || ($0.outcome == .unknown && $0.kind != .get)
    }
    effective.sort(by: isBefore)
    var report = LinearizabilityReport()
    report.operations = effective.count
    var start = 0
    while start < effective.count {
      let key = effective[start].key
      var end = start
      while end < effective.count, effective[end].key == key { end += 1 }
      report.keys += 1
      switch verdict(key: key, effective[start..<end], searchStepLimit: searchStepLimit) {
      case .linearizable: break
      case .undecided: report.undecidedKeys.append(key)
      case .violated(let violation):
        report.violatedKeys += 1
        if report.violations.count < listedViolations { report.violations.append(violation) }
      }
      start = end
    }
    return report
  }

  /// By key, then value, a value's writers before its readers: the clusters of the fast check lie side by side.
  private static func isBefore(_ a: HistoryOperation, _ b: HistoryOperation) -> Bool {
    if a.key != b.key { return a.key < b.key }
    if a.value != b.value { return a.value < b.value }
    let aIsRead: UInt8 = a.kind == .get ? 1 : 0
    let bIsRead: UInt8 = b.kind == .get ? 1 : 0
    if aIsRead != bIsRead { return aIsRead < bIsRead }
    return a.callNanoseconds < b.callNanoseconds
  }

  private enum KeyVerdict {
    case linearizable
    case undecided
    case violated(Violation)
  }

  private static func verdict(
    key: UInt64, _ operations: ArraySlice<HistoryOperation>, searchStepLimit: Int
  ) -> KeyVerdict {
    var deletes = 0
    var emptyReads = 0
    for index in operations.indices {
      let operation = operations[index]
      if operation.outcome == .ok, operation.returnNanoseconds < operation.callNanoseconds {
        return malformed(key, [operation], "\(operation) returned before it was called.")
      }
      switch operation.kind {
      case .delete: deletes += 1
      case .get: emptyReads += operation.value == HistoryOperation.noValue ? 1 : 0
      case .set:
        let previous = operations[max(index - 1, operations.startIndex)]
        if operation.value == HistoryOperation.noValue {
          return malformed(key, [operation], "\(operation) wrote the value that stands for no value.")
        }
        if index > operations.startIndex, previous.kind == .set, previous.value == operation.value {
          return malformed(key, [previous, operation], "\(previous) and \(operation) wrote the same value.")
        }
      }
    }
    if deletes > 0 {
      // A get that found nothing does not say which delete it saw, so the values are not all different. Without
      // such a get, a delete is a set that nobody read, but the zones would take all deletes for one.
      return searched(key, operations, emptyReads: emptyReads, stepLimit: searchStepLimit)
    }
    guard let violation = ZonesChecker.check(key: key, operations: operations) else { return .linearizable }
    return .violated(violation)
  }

  private static func malformed(
    _ key: UInt64, _ operations: [HistoryOperation], _ explanation: String
  ) -> KeyVerdict {
    .violated(Violation(rule: .malformedHistory, key: key, operations: operations, explanation: explanation))
  }

  private static func searched(
    _ key: UInt64, _ operations: ArraySlice<HistoryOperation>, emptyReads: Int, stepLimit: Int
  ) -> KeyVerdict {
    var operations = operations
    if emptyReads == 0 {
      // Every delete gets a name of its own that nobody read: then the fast check applies.
      var name = UInt64.max
      for index in operations.indices where operations[index].kind == .delete {
        operations[index].value = name
        name -= 1
      }
      let sorted = operations.sorted(by: isBefore)
      guard let violation = ZonesChecker.check(key: key, operations: sorted[...]) else { return .linearizable }
      return .violated(violation)
    }
    switch SearchChecker.check(Array(operations), stepLimit: stepLimit) {
    case .linearizable: return .linearizable
    case .undecided: return .undecided
    case .notLinearizable:
      return .violated(
        Violation(
          rule: .noOrderExists, key: key, operations: Array(operations.prefix(8)),
          explanation: "no order of the \(operations.count) operations explains what the clients saw."))
    }
  }
}
