import WeirCore

/// memberlist's TransmitLimitedQueue as a plain array that is sorted and scanned for everything.
struct BroadcastQueueModel {
  struct Item {
    var transmissions: Int
    var id: Int
    var kind: BroadcastKind
    var name: [UInt8]
    var payload: [UInt8]
    var tag: UInt64
  }

  var multiplier: Int
  private(set) var items: [Item] = []
  private var lastID = 0
  /// Everything that finished, in order.
  var finished: [FinishedBroadcast] = []

  init(multiplier: Int) { self.multiplier = multiplier }

  var ordered: [Item] {
    items.sorted {
      if $0.transmissions != $1.transmissions { return $0.transmissions < $1.transmissions }
      if $0.payload.count != $1.payload.count { return $0.payload.count > $1.payload.count }
      return $0.id > $1.id
    }
  }

  mutating func queue(
    _ kind: BroadcastKind, name: [UInt8], payload: [UInt8], tag: UInt64,
    invalidates: ((_ payload: [UInt8], _ tag: UInt64) -> Bool)? = nil
  ) {
    if let invalidates {
      for item in ordered where item.kind == .plain && invalidates(item.payload, item.tag) {
        finish(item, .invalidated)
      }
    }
    if !name.isEmpty, kind != .unique, let old = items.first(where: { $0.kind == kind && $0.name == name }) {
      finish(old, .invalidated)
    }
    lastID += 1
    items.append(Item(transmissions: 0, id: lastID, kind: kind, name: name, payload: payload, tag: tag))
  }

  mutating func take(overheadBytes: Int, limitBytes: Int, nodeCount: Int) -> [[UInt8]] {
    var scale = 0
    var power = 1
    while power < nodeCount + 1 {
      power *= 10
      scale += 1
    }
    let limit = multiplier * scale
    var sent: [[UInt8]] = []
    var usedBytes = 0
    var returning: [Item] = []
    guard let least = items.map(\.transmissions).min(), let most = items.map(\.transmissions).max() else { return [] }
    var tier = least
    while tier <= most {
      let free = limitBytes - usedBytes - overheadBytes
      if free <= 0 { break }
      guard var pick = ordered.first(where: { $0.transmissions == tier && $0.payload.count <= free }) else {
        tier += 1
        continue
      }
      usedBytes += overheadBytes + pick.payload.count
      sent.append(pick.payload)
      items.removeAll { $0.id == pick.id }
      if pick.transmissions + 1 >= limit {
        finished.append(FinishedBroadcast(tag: pick.tag, kind: pick.kind, reason: .transmitted))
      } else {
        pick.transmissions += 1
        returning.append(pick)
      }
    }
    items += returning
    return sent
  }

  mutating func prune(keeping count: Int) {
    while items.count > count, let last = ordered.last { finish(last, .pruned) }
  }

  mutating func reset() {
    for item in ordered { finish(item, .reset) }
  }

  private mutating func finish(_ item: Item, _ reason: FinishedBroadcast.Reason) {
    items.removeAll { $0.id == item.id }
    finished.append(FinishedBroadcast(tag: item.tag, kind: item.kind, reason: reason))
  }
}
