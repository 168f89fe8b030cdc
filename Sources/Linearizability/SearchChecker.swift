/// Linearizability of one register by search: Wing and Gong's algorithm (1993) with Lowe's memory of configurations
/// already tried (2017). It decides every history, deletes and repeated values included, in time that grows
/// exponentially with the number of operations open at once; so it has a limit.
public enum SearchChecker {
  public enum Verdict: Sendable, Equatable {
    case linearizable
    case notLinearizable
    /// The limit was reached before an answer.
    case undecided
  }

  /// - Parameters:
  ///   - operations: those of one key, in any order.
  ///   - stepLimit: how many operations may be tried in all.
  public static func check(_ operations: [HistoryOperation], stepLimit: Int = 2_000_000) -> Verdict {
    let considered = considered(operations)
    guard !considered.isEmpty else { return .linearizable }
    var search = Search(considered, stepLimit: stepLimit)
    return search.run()
  }

  /// Without what cannot have been seen: failed operations, gets that never answered, and sets of unknown outcome
  /// whose value nobody read (they may be thought of as coming last).
  private static func considered(_ operations: [HistoryOperation]) -> [HistoryOperation] {
    let read = Set(operations.lazy.filter { $0.kind == .get && $0.outcome == .ok }.map(\.value))
    return operations.filter { operation in
      switch operation.outcome {
      case .failed: false
      case .ok: true
      case .unknown:
        operation.kind == .set ? read.contains(operation.value) : operation.kind == .delete
      }
    }
  }

  /// A configuration that was reached: which operations have taken effect, and what the register holds.
  private struct Configuration: Hashable {
    var effective: [UInt64]
    var value: UInt64
  }

  private struct Frame {
    var operation: Int
    var previousValue: UInt64
  }

  /// Calls and returns in the order of time, as a doubly linked list from which operations are lifted while they
  /// are tried.
  private struct Search {
    let operations: [HistoryOperation]
    let stepLimit: Int
    /// Entry 2i is the call of operation i, entry 2i + 1 its return; the last entry is the head of the list.
    var next: [Int32]
    var previous: [Int32]
    let head: Int32
    var effective: [UInt64]
    var value = HistoryOperation.noValue
    var stack: [Frame] = []
    var tried: Set<Configuration> = []

    init(_ operations: [HistoryOperation], stepLimit: Int) {
      self.operations = operations
      self.stepLimit = stepLimit
      let count = operations.count
      head = Int32(2 * count)
      next = [Int32](repeating: -1, count: 2 * count + 1)
      previous = [Int32](repeating: -1, count: 2 * count + 1)
      effective = [UInt64](repeating: 0, count: (count + 63) / 64)
      var order = Array(0..<Int32(2 * count))
      func time(_ entry: Int32) -> UInt64 {
        let operation = operations[Int(entry / 2)]
        return entry.isMultiple(of: 2) ? operation.callNanoseconds : operation.end
      }
      // At equal times calls come first: operations that touch are concurrent, not ordered.
      order.sort { (time($0), $0 & 1, $0) < (time($1), $1 & 1, $1) }
      var last = head
      for entry in order {
        next[Int(last)] = entry
        previous[Int(entry)] = last
        last = entry
      }
    }

    mutating func run() -> Verdict {
      var entry = next[Int(head)]
      var steps = 0
      while next[Int(head)] >= 0 {
        guard steps < stepLimit else { return .undecided }
        steps += 1
        if entry >= 0, entry.isMultiple(of: 2) {
          let operation = Int(entry / 2)
          if let after = effect(of: operations[operation]), remember(operation, after) {
            stack.append(Frame(operation: operation, previousValue: value))
            value = after
            lift(operation)
            entry = next[Int(head)]
          } else {
            entry = next[Int(entry)]
          }
        } else {
          // A return is reached, so the operation it ends must already be in; or else the last choice was wrong.
          guard let frame = stack.popLast() else { return .notLinearizable }
          value = frame.previousValue
          effective[frame.operation / 64] &= ~(1 << UInt64(frame.operation % 64))
          unlift(frame.operation)
          entry = next[2 * frame.operation]
        }
      }
      return .linearizable
    }

    /// What the register holds after the operation; nil where the operation cannot happen now.
    private func effect(of operation: HistoryOperation) -> UInt64? {
      switch operation.kind {
      case .set: operation.value
      case .delete: HistoryOperation.noValue
      case .get: operation.value == value ? value : nil
      }
    }

    /// Marks the operation as effective; false where this configuration was reached before.
    private mutating func remember(_ operation: Int, _ after: UInt64) -> Bool {
      effective[operation / 64] |= 1 << UInt64(operation % 64)
      guard tried.insert(Configuration(effective: effective, value: after)).inserted else {
        effective[operation / 64] &= ~(1 << UInt64(operation % 64))
        return false
      }
      return true
    }

    private mutating func lift(_ operation: Int) {
      for entry in [2 * operation, 2 * operation + 1] {
        let before = previous[entry]
        let after = next[entry]
        next[Int(before)] = after
        if after >= 0 { previous[Int(after)] = before }
      }
    }

    private mutating func unlift(_ operation: Int) {
      // In the reverse order of `lift`: each entry goes back between the neighbours it remembers.
      for entry in [2 * operation + 1, 2 * operation] {
        let before = previous[entry]
        let after = next[entry]
        next[Int(before)] = Int32(entry)
        if after >= 0 { previous[Int(after)] = Int32(entry) }
      }
    }
  }
}
