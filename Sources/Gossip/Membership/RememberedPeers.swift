/// Members that were lost, not parted from: where they were last seen, so that they can be looked for.
struct RememberedPeers {
  struct Peer {
    let name: NodeName
    var address: GossipAddress
    var lostNanoseconds: UInt64
  }

  private(set) var peers: [Peer] = []
  let capacity: Int

  init(capacity: Int) {
    self.capacity = max(0, capacity)
  }

  /// Remembers a peer; when there is no room, the one lost longest ago is given up.
  mutating func remember(_ name: NodeName, address: GossipAddress, nowNanoseconds now: UInt64) {
    guard capacity > 0 else { return }
    forget(name)
    if peers.count == capacity { peers.removeFirst() }
    peers.append(Peer(name: name, address: address, lostNanoseconds: now))
  }

  /// The peer is back, or has said goodbye.
  mutating func forget(_ name: NodeName) {
    guard let index = peers.firstIndex(where: { $0.name == name }) else { return }
    peers.remove(at: index)
  }

  mutating func forgetAll() {
    peers.removeAll()
  }

  /// Forgets those lost longer ago than `age`.
  mutating func forgetOlder(thanNanoseconds age: UInt64, nowNanoseconds now: UInt64) {
    peers.removeAll { now - min(now, $0.lostNanoseconds) > age }
  }
}
