import Testing

@testable import Linearizability

struct TestRandom: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

@Suite("Checkers against each other")
struct CrossCheckTests {
  /// A history of a register that behaves, seen through calls of random length; then, with some probability, one
  /// answer is falsified.
  static func history(seed: UInt64, operations count: Int, withDeletes: Bool) -> [HistoryOperation] {
    var random = TestRandom(state: seed)
    var history: [HistoryOperation] = []
    var value = HistoryOperation.noValue
    var written: [UInt64] = [HistoryOperation.noValue]
    for step in 0..<count {
      let effect = UInt64(step) * 10 + 100
      let call = effect - UInt64.random(in: 0...60, using: &random)
      let end = effect + UInt64.random(in: 0...60, using: &random)
      let isUnknown = Int.random(in: 0..<12, using: &random) == 0
      let outcome: HistoryOutcome = isUnknown ? .unknown : .ok
      switch Int.random(in: 0..<(withDeletes ? 5 : 4), using: &random) {
      case 0, 1:
        let name = UInt64(step + 1)
        // Of those whose outcome is unknown, half never take effect.
        if !isUnknown || Bool.random(using: &random) { value = name }
        written.append(name)
        history.append(set(name, call, end, outcome))
      case 4:
        if !isUnknown || Bool.random(using: &random) { value = HistoryOperation.noValue }
        history.append(delete(call, end, outcome))
      default:
        history.append(get(value, call, end, outcome))
      }
    }
    if Bool.random(using: &random),
      let index = history.indices.filter({ history[$0].kind == .get }).randomElement(
        using: &random)
    {
      history[index].value = written[Int.random(in: 0..<written.count, using: &random)]
    }
    return history.shuffled(using: &random)
  }

  @Test("Zones and search agree on 1500 random histories of sets and gets, of which many are illegal")
  func zonesAgainstSearch() {
    var illegal = 0
    for seed in 1...1500 as ClosedRange<UInt64> {
      let history = Self.history(seed: seed, operations: 8 + Int(seed % 20), withDeletes: false)
      let fast = LinearizabilityChecker.check(history).isLinearizable
      let slow = SearchChecker.check(history)
      #expect(slow != .undecided)
      #expect(fast == (slow == .linearizable), "seed \(seed)")
      if !fast { illegal += 1 }
    }
    #expect((150...1200).contains(illegal), "\(illegal) illegal: the histories would not test both answers")
  }

  @Test("With deletes the checker still agrees with the search")
  func deletes() {
    var illegal = 0
    for seed in 5001...5600 as ClosedRange<UInt64> {
      let history = Self.history(seed: seed, operations: 6 + Int(seed % 14), withDeletes: true)
      let report = LinearizabilityChecker.check(history)
      #expect(report.undecidedKeys.isEmpty)
      #expect(report.isLinearizable == (SearchChecker.check(history) == .linearizable), "seed \(seed)")
      if !report.isLinearizable { illegal += 1 }
    }
    #expect(illegal > 40)
  }

  @Test("Search agrees with trying every order of up to six operations")
  func searchAgainstBruteForce() {
    for seed in 9001...9300 as ClosedRange<UInt64> {
      let history = Self.history(seed: seed, operations: 6, withDeletes: true)
      let expected = BruteForce.isLinearizable(history)
      #expect((SearchChecker.check(history) == .linearizable) == expected, "seed \(seed)")
    }
  }

  @Test("A long history of a register that behaves is accepted, and one falsified answer in it is found")
  func long() throws {
    var random = TestRandom(state: 77)
    var history: [HistoryOperation] = []
    var values: [UInt64: UInt64] = [:]
    for step in 0..<200_000 {
      let effect = UInt64(step) * 10 + 1000
      let call = effect - UInt64.random(in: 0...900, using: &random)
      let end = effect + UInt64.random(in: 0...900, using: &random)
      let key = UInt64.random(in: 0..<50, using: &random)
      if step.isMultiple(of: 3) {
        values[key] = UInt64(step + 1)
        history.append(set(UInt64(step + 1), call, end, key: key))
      } else {
        history.append(get(values[key, default: 0], call, end, key: key))
      }
    }
    #expect(LinearizabilityChecker.check(history).isLinearizable)
    let index = try #require(history.lastIndex { $0.kind == .get })
    let early = try #require(history.first { $0.kind == .set && $0.key == history[index].key })
    history[index].value = early.value
    let report = LinearizabilityChecker.check(history)
    #expect(report.violations.map(\.key) == [history[index].key])
    #expect(report.operations == 200_000)
  }
}

/// The definition, tried literally: some subset of the unknown operations and some order of all explains the history.
enum BruteForce {
  static func isLinearizable(_ history: [HistoryOperation]) -> Bool {
    let relevant = history.filter { $0.outcome != .failed && !($0.outcome == .unknown && $0.kind == .get) }
    return extend(relevant, value: HistoryOperation.noValue)
  }

  private static func extend(_ rest: [HistoryOperation], value: UInt64) -> Bool {
    if rest.allSatisfy({ $0.outcome == .unknown }) { return true }
    for index in rest.indices {
      let operation = rest[index]
      // It may come next only if nothing that remains was over before it began.
      guard rest.allSatisfy({ $0.outcome == .unknown || $0.returnNanoseconds >= operation.callNanoseconds }) else {
        continue
      }
      var after = value
      switch operation.kind {
      case .set: after = operation.value
      case .delete: after = HistoryOperation.noValue
      case .get: if operation.value != value { continue }
      }
      var remaining = rest
      remaining.remove(at: index)
      if extend(remaining, value: after) { return true }
    }
    return false
  }
}
