import WeirCore

/// Who waits for which log index: a ring of words from the first index that is not applied to the last proposed.
///
/// A leader's proposals get consecutive indexes, so the place of an answer is found by subtraction: no dictionary, no
/// allocation for each operation. It holds for one leadership: when that ends, everything in it is answered as lost.
struct PendingRing {
  /// The word of an index that nobody waits for.
  static let nobody = UInt64.max

  private var words: [UInt64]
  private var mask: Int
  /// The first index held.
  private(set) var first: LogIndex = 1
  /// Behind the last index held.
  private(set) var end: LogIndex = 1
  /// Entries held that somebody waits for.
  private(set) var waiting = 0

  init(capacity: Int = 4096) {
    words = Array(repeating: Self.nobody, count: capacity)
    mask = capacity - 1
  }

  /// A proposal of the lane in `slot`.
  @inline(__always)
  static func word(slot: Int, token: UInt32) -> UInt64 { UInt64(slot) << 32 | UInt64(token) }

  @inline(__always)
  static func slot(of word: UInt64) -> Int { Int(truncatingIfNeeded: word >> 32) }

  var isEmpty: Bool { first == end }

  /// Notes that the entries from `index` on are those of `tokens`. Indexes between the last noted and `index` are
  /// entries that nobody here proposed.
  mutating func append(from index: LogIndex, slot: Int, tokens: ArraySlice<UInt32>) {
    if isEmpty {
      first = index
      end = index
    }
    precondition(index >= end, "proposals are noted in the order of their indexes")
    let gap = Int(index - end)
    grow(toHold: Int(end - first) + gap + tokens.count)
    for _ in 0..<gap {
      words[Int(truncatingIfNeeded: end) & mask] = Self.nobody
      end += 1
    }
    for token in tokens {
      words[Int(truncatingIfNeeded: end) & mask] = Self.word(slot: slot, token: token)
      end += 1
    }
    waiting += tokens.count
  }

  /// Who waits for `index`, which is then forgotten together with all before it.
  @inline(__always)
  mutating func take(_ index: LogIndex) -> UInt64 {
    guard index >= first, index < end else { return Self.nobody }
    first = index + 1
    let word = words[Int(truncatingIfNeeded: index) & mask]
    if word != Self.nobody { waiting -= 1 }
    return word
  }

  /// Hands out everybody who still waits, in the order of the indexes, and forgets them.
  mutating func removeAll(_ body: (UInt64) -> Void) {
    while first < end {
      let word = words[Int(truncatingIfNeeded: first) & mask]
      first += 1
      if word != Self.nobody { body(word) }
    }
    waiting = 0
  }

  private mutating func grow(toHold count: Int) {
    guard count > words.count else { return }
    var capacity = words.count
    while capacity < count { capacity *= 2 }
    var larger = [UInt64](repeating: Self.nobody, count: capacity)
    var index = first
    while index < end {
      larger[Int(truncatingIfNeeded: index) & (capacity - 1)] = words[Int(truncatingIfNeeded: index) & mask]
      index += 1
    }
    words = larger
    mask = capacity - 1
  }
}
