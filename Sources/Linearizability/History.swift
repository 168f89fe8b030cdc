/// What an operation of a history did.
@frozen
public enum HistoryOperationKind: UInt8, Sendable, CaseIterable {
  case get = 0
  case set = 1
  case delete = 2
}

/// What is known of an operation's end.
@frozen
public enum HistoryOutcome: UInt8, Sendable, CaseIterable {
  /// It took effect between its call and its return.
  case ok = 0
  /// It never took effect.
  case failed = 1
  /// It took effect at some time after its call, or never.
  case unknown = 2
}

/// One operation on one register, as its client saw it. 40 bytes, so that millions can be kept.
@frozen
public struct HistoryOperation: Sendable, Equatable {
  /// Stands for "no value": what a key holds before its first set and after a delete.
  public static let noValue: UInt64 = 0

  public var callNanoseconds: UInt64
  /// Not looked at where the outcome is `unknown`: such an operation is open to the end of time.
  public var returnNanoseconds: UInt64
  public var key: UInt64
  /// The name of the value that a set wrote or a get read; `noValue` for a delete and for a get that found nothing.
  public var value: UInt64
  public var client: UInt32
  public var kind: HistoryOperationKind
  public var outcome: HistoryOutcome

  @inlinable
  public init(
    client: UInt32, kind: HistoryOperationKind, key: UInt64, value: UInt64, callNanoseconds: UInt64,
    returnNanoseconds: UInt64, outcome: HistoryOutcome = .ok
  ) {
    self.callNanoseconds = callNanoseconds
    self.returnNanoseconds = returnNanoseconds
    self.key = key
    self.value = value
    self.client = client
    self.kind = kind
    self.outcome = outcome
  }

  /// When it was certainly over: never, where the outcome is unknown.
  var end: UInt64 { outcome == .unknown ? .max : returnNanoseconds }
}

/// What the checker found.
public struct LinearizabilityReport: Sendable {
  /// Operations that were looked at: those that never took effect are not among them.
  public var operations = 0
  public var keys = 0
  /// The first violations, one a key at most.
  public var violations: [Violation] = []
  /// Keys that have a violation, the ones not listed included.
  public var violatedKeys = 0
  /// Keys that the search gave up on; nothing is known of them.
  public var undecidedKeys: [UInt64] = []

  /// True only where every key was decided, and for linearizable.
  public var isLinearizable: Bool { violatedKeys == 0 && undecidedKeys.isEmpty }

  public init() {}
}

/// Why the history of one key has no linearization.
public struct Violation: Sendable, Equatable {
  public enum Rule: String, Sendable {
    /// A get returned a value that no set wrote (or only one that never took effect).
    case valueFromNowhere
    /// A get returned a value before the set that wrote it was called.
    case readFromTheFuture
    /// A get returned a value although another one had certainly replaced it.
    case staleRead
    /// Two orders of the same values are certain, and they contradict each other.
    case contradictoryOrder
    /// The search tried every order and none explains what the clients saw.
    case noOrderExists
    /// An operation returned before it was called, or two sets wrote the same value.
    case malformedHistory
  }

  public var rule: Rule
  public var key: UInt64
  /// The operations that together cannot be explained.
  public var operations: [HistoryOperation]
  /// One sentence for a person.
  public var explanation: String

  public init(rule: Rule, key: UInt64, operations: [HistoryOperation], explanation: String) {
    self.rule = rule
    self.key = key
    self.operations = operations
    self.explanation = explanation
  }
}

extension HistoryOperation: CustomStringConvertible {
  public var description: String {
    let name =
      switch kind {
      case .get: "get → \(value == Self.noValue ? "nothing" : "value \(value)")"
      case .set: "set value \(value)"
      case .delete: "delete"
      }
    let end = outcome == .unknown ? "?" : String(returnNanoseconds)
    return "[client \(client): \(name), \(callNanoseconds)…\(end) ns]"
  }
}
