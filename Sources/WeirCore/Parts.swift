// Cost: none to anybody who does not ask for it; each loop adds a call a step and an addition an operation to what it
// measures.

/// One of the parts that the four hot paths are made of, done over and over, for whoever measures it alone. The parts
/// themselves stay inside of this module.
@_spi(Parts)
public enum CorePart: String, Sendable, CaseIterable {
  case broadcastKey = "part-broadcast-key"
  case broadcastLists = "part-broadcast-lists"
  case broadcastLongest = "part-broadcast-lists-longest"
  case broadcastMemory = "part-broadcast-memory"
  case broadcastNames = "part-broadcast-names"
  case broadcastOrder = "part-broadcast-order"
  case upperMedian4 = "part-upper-median-4"
  case upperMedian8 = "part-upper-median-8"
  case ring = "part-ring"
  case segments = "part-log-segments"

  /// What one operation is, in a few words.
  public var operation: String {
    switch self {
    case .broadcastKey: "make a key, move it one tier up, read its tier"
    case .broadcastLists: "take a random one of 10,000 out of the lists and put it in as the newest"
    case .broadcastLongest: "find the longest of 10,000 that fits"
    case .broadcastMemory: "take a block for 128 bytes and give it back"
    case .broadcastNames: "hash a name of 21 bytes and find it among 10,000"
    case .broadcastOrder: "take the first of 10,000 keys of a tier out and put it one tier up"
    case .upperMedian4: "greater middle one of 4 numbers"
    case .upperMedian8: "greater middle one of 8 numbers"
    case .ring: "append a word, read one, drop the first"
    case .segments: "begin a segment of 64 KiB and release the one in front"
    }
  }

  /// Everything that the part needs, filled.
  public func makeLoop() -> PartLoop {
    switch self {
    case .broadcastKey: KeyLoop()
    case .broadcastLists: ListsLoop()
    case .broadcastLongest: LongestLoop()
    case .broadcastMemory: MemoryLoop()
    case .broadcastNames: NamesLoop()
    case .broadcastOrder: OrderLoop()
    case .upperMedian4: UpperMedian4Loop()
    case .upperMedian8: UpperMedian8Loop()
    case .ring: RingLoop()
    case .segments: SegmentsLoop()
    }
  }
}

/// A part and what it works on.
@_spi(Parts)
public class PartLoop {
  fileprivate static let members = 10_000
  fileprivate var random = SplitMix64(seed: 1)

  fileprivate init() {}

  /// Does the operation so often.
  /// - Returns: something that depends on all of them.
  public func run(_ times: Int) -> UInt64 { 0 }

  fileprivate static func member(_ random: inout SplitMix64) -> Int {
    Int(random.next().multipliedFullWidth(by: UInt64(members)).high)
  }
}

private final class KeyLoop: PartLoop {
  override func run(_ times: Int) -> UInt64 {
    var sum: UInt64 = 0
    for number in 0..<UInt64(times) {
      let key = BroadcastKey.make(transmits: number & 3, payloadBytes: Int(number & 1023), id: number)
      let next = BroadcastKey.nextTier(key)
      sum &+= next ^ BroadcastKey.transmits(next)
    }
    return sum
  }
}

private final class ListsLoop: PartLoop {
  private var lists = BroadcastLists(capacity: PartLoop.members)

  override init() {
    super.init()
    for slot in 0..<PartLoop.members { lists.putNewest(UInt32(slot), length: 128) }
  }

  override func run(_ times: Int) -> UInt64 {
    for _ in 0..<times {
      let slot = UInt32(Self.member(&random))
      lists.remove(slot, length: 128)
      lists.putNewest(slot, length: 128)
    }
    return UInt64(lists.count)
  }
}

private final class LongestLoop: PartLoop {
  private var lists = BroadcastLists(capacity: PartLoop.members)

  override init() {
    super.init()
    for slot in 0..<PartLoop.members { lists.putNewest(UInt32(slot), length: 100 + slot % 300) }
  }

  override func run(_ times: Int) -> UInt64 {
    var sum: UInt64 = 0
    for number in 0..<times { sum &+= UInt64(lists.newest(atMost: 90 + number & 511) ?? 0) }
    return sum
  }
}

private final class MemoryLoop: PartLoop {
  private var memory = BroadcastMemory()

  override func run(_ times: Int) -> UInt64 {
    let sizeClass = BroadcastMemory.sizeClass(128)
    var sum: UInt64 = 0
    for _ in 0..<times {
      let block = unsafe memory.take(sizeClass)
      sum &+= UInt64(UInt(bitPattern: block))
      unsafe memory.give(block, sizeClass)
    }
    return sum
  }
}

private final class NamesLoop: PartLoop {
  private static let nameBytes = 21
  private var names = BroadcastNames()
  private let all = (0..<PartLoop.members).flatMap { Array("member-\(100_000 + $0).example".utf8) }

  override init() {
    super.init()
    let all = all
    let bytes = unsafe all.span.bytes
    for slot in 0..<PartLoop.members { names.insert(Self.hash(slot, bytes), slot: UInt32(slot)) }
  }

  private static func hash(_ member: Int, _ all: RawSpan) -> UInt32 {
    let name = all.extracting(member * nameBytes..<(member + 1) * nameBytes)
    return BroadcastNames.hash(name, kind: 1, seed: 0)
  }

  override func run(_ times: Int) -> UInt64 {
    var sum: UInt64 = 0
    let all = all
    let bytes = unsafe all.span.bytes
    for _ in 0..<times {
      let member = Self.member(&random)
      sum &+= UInt64(names.find(Self.hash(member, bytes)) { $0 == UInt32(member) } ?? 0)
    }
    return sum
  }
}

private final class OrderLoop: PartLoop {
  private var order = BroadcastOrder()
  private var tier: UInt64 = 1

  override init() {
    super.init()
    for slot in 0..<PartLoop.members { order.insert(Self.key(slot, tier: 1), slot: UInt32(slot)) }
  }

  private static func key(_ slot: Int, tier: UInt64) -> UInt64 {
    BroadcastKey.make(transmits: tier, payloadBytes: 128, id: UInt64(slot + 1))
  }

  override func run(_ times: Int) -> UInt64 {
    var sum: UInt64 = 0
    for _ in 0..<times {
      if let item = order.removeCeiling(BroadcastKey.tierStart(tier), below: BroadcastKey.tierStart(tier + 1)) {
        // Up and down between two tiers, so that no key grows without end.
        order.insert(Self.key(Int(item.slot), tier: 3 - tier), slot: item.slot)
        sum &+= item.key
      } else {
        tier = 3 - tier
      }
    }
    return sum
  }
}

private final class UpperMedian4Loop: PartLoop {
  override func run(_ times: Int) -> UInt64 {
    var sum: UInt64 = 0
    var a: UInt64 = 1
    for _ in 0..<times {
      a = a &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      sum &+= UpperMedian.of(a, a >> 7 ^ sum, a << 9, a >> 3)
    }
    return sum
  }
}

private final class UpperMedian8Loop: PartLoop {
  override func run(_ times: Int) -> UInt64 {
    var sum: UInt64 = 0
    var a: UInt64 = 1
    for _ in 0..<times {
      a = a &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      sum &+= UpperMedian.of(a, a >> 7, a << 9, a >> 3, a << 5, a >> 11, a << 13, a >> 17)
    }
    return sum
  }
}

private final class RingLoop: PartLoop {
  private var ring = Ring<UInt64>()

  override init() {
    super.init()
    for number in 0..<1000 { ring.append(UInt64(number)) }
  }

  override func run(_ times: Int) -> UInt64 {
    var sum: UInt64 = 0
    for number in 0..<times {
      ring.append(UInt64(number))
      sum &+= ring[500]
      ring.removeFirst()
    }
    return sum
  }
}

private final class SegmentsLoop: PartLoop {
  private var segments = LogSegments(segmentBytes: 64 << 10, maximumSpares: 4)

  override init() {
    super.init()
    segments.begin(toHold: 1)
  }

  override func run(_ times: Int) -> UInt64 {
    for _ in 0..<times {
      segments.begin(toHold: 1)
      segments.release(before: segments.lastNumber)
    }
    return UInt64(segments.memoryBytes)
  }
}
