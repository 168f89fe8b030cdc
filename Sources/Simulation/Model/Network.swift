import WeirCore

/// Links between nodes: delay, loss, duplication, and which are cut.
struct Network {
  private var settings: NetworkSettings
  private let nodeCount: Int
  private var random: RandomStream
  /// How many partitions cut each link, by sender and receiver.
  private var cuts: [Int]
  /// Extra delay of each link in nanoseconds.
  private var clogs: [Int]
  private var burstPerMillion = 0
  private(set) var sent = 0
  private(set) var lost = 0

  init(settings: NetworkSettings, nodeCount: Int, seed: UInt64) {
    self.settings = settings
    self.nodeCount = nodeCount
    random = RandomStream(seed: seed, purpose: .network)
    cuts = Array(repeating: 0, count: nodeCount * nodeCount)
    clogs = cuts
  }

  var encodes: Bool { settings.encodes }
  var dropsInFlight: Bool { settings.partitionsDropInFlight }

  /// What becomes of a message sent now.
  struct Fate {
    /// Delay of each copy that arrives, in nanoseconds; none arrives if the first is nil.
    var first: UInt64?
    var second: UInt64?
  }

  mutating func fate(from: Int, to: Int) -> Fate {
    sent += 1
    if isCut(from: from, to: to) || random.chance(perMillion: settings.lossPerMillion)
      || random.chance(perMillion: burstPerMillion)
    {
      lost += 1
      return Fate()
    }
    let first = delay(from: from, to: to)
    let second = random.chance(perMillion: settings.duplicatePerMillion) ? delay(from: from, to: to) : nil
    return Fate(first: first, second: second)
  }

  private mutating func delay(from: Int, to: Int) -> UInt64 {
    var delay = random.between(settings.minimumDelayNanoseconds, settings.maximumDelayNanoseconds)
    if random.chance(perMillion: settings.tailPerMillion) { delay += random.below(settings.tailNanoseconds) }
    return UInt64(delay + clogs[from * nodeCount + to])
  }

  /// Delay between a client and a node in nanoseconds.
  mutating func clientDelay() -> UInt64 {
    UInt64(random.between(settings.minimumDelayNanoseconds, settings.maximumDelayNanoseconds))
  }

  func isCut(from: Int, to: Int) -> Bool { cuts[from * nodeCount + to] > 0 }

  /// Cuts the links of a list, or undoes one cut of each.
  mutating func cut(_ links: [Link], by change: Int) {
    for link in links { cuts[link.from * nodeCount + link.to] += change }
  }

  mutating func clog(_ link: Link, by delayNanoseconds: Int) {
    clogs[link.from * nodeCount + link.to] += delayNanoseconds
  }

  mutating func burst(by perMillion: Int) { burstPerMillion += perMillion }

  /// From now on nothing is lost, late or cut.
  mutating func heal() {
    for position in cuts.indices {
      cuts[position] = 0
      clogs[position] = 0
    }
    burstPerMillion = 0
    settings.lossPerMillion = 0
    settings.tailPerMillion = 0
    settings.duplicatePerMillion = 0
  }
}

/// One direction between two nodes.
struct Link: Hashable, Sendable {
  var from: Int
  var to: Int
}

extension PartitionShape {
  /// The links that are cut, among `nodeCount` nodes; `resolve` tells whom a target means now.
  func links(nodeCount: Int, resolve: (Target) -> Int) -> [Link] {
    var links: [Link] = []
    func add(_ isCut: (Int, Int) -> Bool) {
      for from in 0..<nodeCount {
        for to in 0..<nodeCount where from != to && isCut(from, to) { links.append(Link(from: from, to: to)) }
      }
    }
    switch self {
    case .isolate(let target):
      let node = resolve(target)
      add { $0 == node || $1 == node }
    case .split(let mask):
      add { (mask >> $0) & 1 != (mask >> $1) & 1 }
    case .bridge(let node, let mask):
      add { $0 != node && $1 != node && (mask >> $0) & 1 != (mask >> $1) & 1 }
    case .mute(let target):
      let node = resolve(target)
      add { from, _ in from == node }
    case .deafen(let target):
      let node = resolve(target)
      add { _, to in to == node }
    case .oneWay(let sender, let receiver):
      add { $0 == sender && $1 == receiver }
    case .ring:
      add { from, to in (from + 1) % nodeCount != to && (to + 1) % nodeCount != from }
    }
    return links
  }
}
