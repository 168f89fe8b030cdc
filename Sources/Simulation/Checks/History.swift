import Linearizability

/// What the clients of a run did, in order of their calls.
///
/// A deletion is noted as a set of a version that no other write has, as reads return the version that they saw even
/// where it stands for "deleted": so all values differ, and the check takes O(n log n).
struct History: Sendable {
  private(set) var operations: [HistoryOperation] = []
  private(set) var answered = 0

  /// Notes a call.
  /// - Returns: the operation's position.
  mutating func call(client: Int, kind: OperationKind, key: Int, version: UInt64, at time: UInt64) -> Int {
    operations.append(
      HistoryOperation(
        client: UInt32(client), kind: kind.isWrite ? .set : .get, key: UInt64(key), value: version,
        callNanoseconds: time, returnNanoseconds: time, outcome: .unknown))
    return operations.count - 1
  }

  /// Notes the answer to the operation at a position.
  mutating func answer(_ position: Int, version: UInt64, at time: UInt64) {
    if operations[position].kind == .get { operations[position].value = version }
    operations[position].returnNanoseconds = time
    operations[position].outcome = .ok
    answered += 1
  }

  /// Notes that the operation at a position was refused by everybody who was asked: it never took effect.
  mutating func refuse(_ position: Int, at time: UInt64) {
    operations[position].returnNanoseconds = time
    operations[position].outcome = .failed
  }

  /// Linearizability of the whole history.
  func check(at time: UInt64) throws(Violation) {
    let report = LinearizabilityChecker.check(operations, listedViolations: 1)
    if let found = report.violations.first {
      throw Violation(.linearizability, "register \(found.key): \(found.explanation)", timeNanoseconds: time)
    }
    if let key = report.undecidedKeys.first {
      throw Violation(.linearizability, "register \(key) could not be decided", timeNanoseconds: time)
    }
  }
}
