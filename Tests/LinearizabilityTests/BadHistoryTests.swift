import Testing

@testable import Linearizability

func set(_ value: UInt64, _ call: UInt64, _ end: UInt64, key: UInt64 = 1, _ outcome: HistoryOutcome = .ok)
  -> HistoryOperation
{
  HistoryOperation(
    client: 1, kind: .set, key: key, value: value, callNanoseconds: call, returnNanoseconds: end, outcome: outcome)
}

func get(_ value: UInt64, _ call: UInt64, _ end: UInt64, key: UInt64 = 1, _ outcome: HistoryOutcome = .ok)
  -> HistoryOperation
{
  HistoryOperation(
    client: 2, kind: .get, key: key, value: value, callNanoseconds: call, returnNanoseconds: end, outcome: outcome)
}

func delete(_ call: UInt64, _ end: UInt64, key: UInt64 = 1, _ outcome: HistoryOutcome = .ok) -> HistoryOperation {
  HistoryOperation(
    client: 3, kind: .delete, key: key, value: 0, callNanoseconds: call, returnNanoseconds: end, outcome: outcome)
}

/// A history made by hand, with what must be said of it.
struct Example: Sendable, CustomTestStringConvertible {
  var name: String
  var rule: Violation.Rule?
  var operations: [HistoryOperation]

  init(_ name: String, _ rule: Violation.Rule?, _ operations: [HistoryOperation]) {
    self.name = name
    self.rule = rule
    self.operations = operations
  }

  var testDescription: String { name }

  static let bad: [Example] = [
    Example("stale read", .staleRead, [set(1, 0, 1), set(2, 2, 3), get(1, 4, 5)]),
    Example("stale read of nothing", .staleRead, [set(1, 0, 1), get(0, 2, 3)]),
    Example(
      "stale read between two reads of the new value", .staleRead,
      [set(1, 0, 1), set(2, 2, 9), get(2, 3, 4), get(1, 5, 6)]),
    Example(
      "lost write: acknowledged, then never seen", .staleRead,
      [set(1, 0, 1), get(1, 2, 3), set(2, 4, 5), get(1, 6, 7)]),
    Example("read from the future", .readFromTheFuture, [get(1, 0, 1), set(1, 2, 3)]),
    Example("value from nowhere", .valueFromNowhere, [set(1, 0, 1), get(7, 2, 3)]),
    Example(
      "a failed set was read", .valueFromNowhere, [set(1, 0, 1), set(2, 2, 3, .failed), get(2, 4, 5)]),
    Example(
      "an unknown set is seen, then gone again", .staleRead,
      [set(1, 0, 1), set(2, 2, 3, .unknown), get(2, 4, 5), get(1, 6, 7)]),
    Example(
      "two concurrent sets, two readers that disagree on their order", .staleRead,
      [set(1, 0, 9), set(2, 0, 9), get(1, 10, 11), get(2, 12, 13), get(1, 14, 15)]),
    Example("a deleted value comes back", .noOrderExists, [set(1, 0, 1), delete(2, 3), get(0, 4, 5), get(1, 6, 7)]),
    Example("a deleted value is still read", .staleRead, [set(1, 0, 1), delete(2, 3), get(1, 4, 5)]),
    Example(
      "the delete never took effect and was acknowledged", .noOrderExists,
      [get(0, 0, 1), set(1, 2, 3), delete(4, 5), get(1, 6, 7)]),
    Example("returned before it was called", .malformedHistory, [set(1, 5, 4)]),
    Example("one value written twice", .malformedHistory, [set(1, 0, 1), set(1, 2, 3), get(1, 4, 5)]),
    Example(
      "stale read at time zero", .staleRead, [set(1, 0, 0), get(0, 1, 2)]),
  ]

  static let good: [Example] = [
    Example("nothing", nil, []),
    Example("one after the other", nil, [set(1, 0, 1), get(1, 2, 3), set(2, 4, 5), get(2, 6, 7)]),
    Example("a read while a set runs sees the old value", nil, [set(1, 0, 1), set(2, 2, 9), get(1, 3, 4)]),
    Example("a read while a set runs sees the new value", nil, [set(1, 0, 1), set(2, 2, 9), get(2, 3, 4)]),
    Example("nothing before the first set", nil, [get(0, 0, 1), set(1, 2, 3)]),
    Example("a failed set was not read", nil, [set(1, 0, 1), set(2, 2, 3, .failed), get(1, 4, 5)]),
    Example(
      "an unknown set takes effect late", nil,
      [set(1, 0, 1), set(2, 2, 3, .unknown), get(1, 4, 5), get(2, 6, 7)]),
    Example("an unknown set never takes effect", nil, [set(1, 0, 1), set(2, 2, 3, .unknown), get(1, 100, 101)]),
    Example("a get without an answer says nothing", nil, [set(1, 0, 1), get(99, 2, 3, .unknown)]),
    Example("operations that touch are concurrent", nil, [set(1, 0, 5), get(0, 5, 6)]),
    Example("a delete, and nothing is read", nil, [set(1, 0, 1), delete(2, 3), get(0, 4, 5)]),
    Example(
      "an unknown delete takes effect late", nil,
      [set(1, 0, 1), delete(2, 3, .unknown), get(1, 4, 5), get(0, 6, 7)]),
    Example("two deletes that nobody saw", nil, [set(1, 0, 1), delete(2, 3), set(2, 4, 5), delete(6, 7)]),
  ]
}

@Suite("Hand-made histories")
struct BadHistoryTests {
  @Test("A bad history is refused, by the right rule and with a reason", arguments: Example.bad)
  func refused(example: Example) throws {
    let report = LinearizabilityChecker.check(example.operations)
    #expect(!report.isLinearizable)
    #expect(report.violatedKeys == 1)
    let violation = try #require(report.violations.first)
    #expect(violation.rule == example.rule, "\(violation.explanation)")
    #expect(violation.explanation.hasSuffix("."))
    #expect(!violation.operations.isEmpty)
    if violation.rule != .malformedHistory {
      #expect(SearchChecker.check(example.operations) == .notLinearizable)
    }
  }

  @Test("A good history is accepted", arguments: Example.good)
  func accepted(example: Example) {
    let report = LinearizabilityChecker.check(example.operations)
    #expect(report.isLinearizable, "\(report.violations)")
    #expect(SearchChecker.check(example.operations) == .linearizable)
  }

  @Test("The explanation names the operations and why they exclude each other")
  func explanation() throws {
    let report = LinearizabilityChecker.check([set(1, 0, 10), set(2, 20, 30), get(1, 40, 50)])
    let text = try #require(report.violations.first?.explanation)
    #expect(text.contains("A replaced value was read"))
    #expect(text.contains("[client 1: set value 1, 0…10 ns]"))
    #expect(text.contains("[client 1: set value 2, 20…30 ns]"))
    #expect(text.contains("[client 2: get → value 1, 40…50 ns]"))
  }

  @Test("Keys are judged apart: one bad key of three is found and named")
  func keys() {
    let report = LinearizabilityChecker.check([
      set(1, 0, 1, key: 10), get(1, 2, 3, key: 10),
      set(1, 0, 1, key: 20), set(2, 2, 3, key: 20), get(1, 4, 5, key: 20),
      get(0, 4, 5, key: 30),
    ])
    #expect(report.keys == 3)
    #expect(report.operations == 6)
    #expect(report.violatedKeys == 1)
    #expect(report.violations.first?.key == 20)
  }

  @Test("Where the search gives up the history is undecided, not linearizable")
  func undecided() {
    // Many concurrent deletes and sets, and reads of nothing: the fast check does not apply.
    var operations: [HistoryOperation] = []
    for value in 1...12 as ClosedRange<UInt64> {
      operations += [set(value, 0, 100), delete(0, 100)]
    }
    operations += [get(0, 101, 102), get(5, 103, 104)]
    let report = LinearizabilityChecker.check(operations, searchStepLimit: 50)
    #expect(!report.isLinearizable)
    #expect(report.undecidedKeys == [1])
    #expect(report.violatedKeys == 0)
  }
}
