import WeirCore

extension HotPaths {
  static let broadcastQueue: [HotPath] = [
    HotPath(
      name: "broadcast-queue-128B", suite: .broadcastQueue,
      operation: "queue a named broadcast of 128 bytes that replaces one of 10,000", payloadBytes: 128,
      reference: .init(name: "plain array scan") { ArrayQueue(.queue) }, makeWorkload: { Queue() }),
    HotPath(
      name: "broadcast-take-10x128B", suite: .broadcastQueue,
      operation: "take 10 broadcasts of 128 bytes from 10,000 queued", payloadBytes: 1280,
      reference: .init(name: "plain array scan") { ArrayQueue(.take) }, makeWorkload: { Take() }),
  ]
}

private enum Cluster {
  static let size = 10_000
  static let overhead = 2
  static let budget = 10 * (128 + overhead)
  static let nameBytes = 20
  /// The names of all members, one behind the other: "member-00042.example".
  static let names: [UInt8] = (0..<size).flatMap { number in
    Array("member-\(String(100_000 + number).dropFirst()).example".utf8)
  }

  /// Which member gossips something next.
  static func next(_ state: inout UInt64) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Int((state >> 33) % UInt64(size))
  }

  static func filledQueue() -> BroadcastQueue {
    var queue = BroadcastQueue(retransmitMultiplier: 4)
    let payload = Shape.payload(0)
    for member in 0..<size { announce(member, payload, in: &queue) { _ in } }
    return queue
  }

  /// Queues what a member gossips.
  static func announce(
    _ member: Int, _ payload: [UInt8], in queue: inout BroadcastQueue, onFinish: (FinishedBroadcast) -> Void
  ) {
    let name = names.span.bytes.extracting(member * nameBytes..<(member + 1) * nameBytes)
    do throws(BroadcastQueueError) {
      try queue.queueNamed(name, payload: payload.span.bytes, tag: UInt64(member), onFinish: onFinish)
    } catch {
      preconditionFailure("128 bytes fit: \(error)")
    }
  }
}

private final class Queue: Workload {
  let operationsPerStep = 100
  private var queue = Cluster.filledQueue()
  private let payload = Shape.payload(1)
  private var state: UInt64 = 1
  private(set) var sink: UInt64 = 0

  func step() { sink &+= Self.run(&queue, payload, &state, times: operationsPerStep) }

  private static func run(
    _ queue: inout BroadcastQueue, _ payload: [UInt8], _ state: inout UInt64, times: Int
  ) -> UInt64 {
    var sink: UInt64 = 0
    for _ in 0..<times {
      Cluster.announce(Cluster.next(&state), payload, in: &queue) { sink &+= $0.tag }
    }
    return sink
  }
}

private final class Take: Workload {
  let operationsPerStep = 10
  private var queue = Cluster.filledQueue()
  private let payload = Shape.payload(1)
  private var finished: [UInt64] = []
  private(set) var sink = 0

  init() { finished.reserveCapacity(64) }

  func step() {
    for _ in 0..<operationsPerStep {
      queue.take(
        overheadBytes: Cluster.overhead, limitBytes: Cluster.budget, nodeCount: Cluster.size,
        onFinish: { finished.append($0.tag) }, visit: { sink &+= $0.byteCount })
    }
    // What was sent often enough comes back, so that 10,000 stay queued.
    for tag in finished { Cluster.announce(Int(tag), payload, in: &queue) { _ in } }
    finished.removeAll(keepingCapacity: true)
  }
}

/// The same semantics on an array that is scanned for a name, and scanned for the best message that fits.
private final class ArrayQueue: Workload {
  enum Operation { case queue, take }

  private struct Item {
    var transmissions: Int
    var id: UInt64
    var name: [UInt8]
    var payload: [UInt8]

    func isBefore(_ other: Item) -> Bool {
      if transmissions != other.transmissions { return transmissions < other.transmissions }
      if payload.count != other.payload.count { return payload.count > other.payload.count }
      return id > other.id
    }
  }

  let operationsPerStep = 1
  private let operation: Operation
  private var items: [Item]
  private var lastID = UInt64(Cluster.size)
  private let payload = Shape.payload(1)
  private var state: UInt64 = 1
  private(set) var sink = 0

  init(_ operation: Operation) {
    self.operation = operation
    items = (0..<Cluster.size).map {
      Item(transmissions: 0, id: UInt64($0), name: Self.name($0), payload: Shape.payload(0))
    }
  }

  private static func name(_ member: Int) -> [UInt8] {
    Array(Cluster.names[member * Cluster.nameBytes..<(member + 1) * Cluster.nameBytes])
  }

  func step() {
    switch operation {
    case .queue: queue()
    case .take: take()
    }
  }

  private func queue() {
    let name = Self.name(Cluster.next(&state))
    items.removeAll { $0.name == name }
    lastID += 1
    items.append(Item(transmissions: 0, id: lastID, name: name, payload: payload))
  }

  private func take() {
    var left = Cluster.budget
    var returning: [Item] = []
    while true {
      var best: Int?
      for position in items.indices where items[position].payload.count <= left - Cluster.overhead {
        if let current = best, !items[position].isBefore(items[current]) { continue }
        best = position
      }
      guard let best else { break }
      var item = items.remove(at: best)
      left -= Cluster.overhead + item.payload.count
      sink &+= item.payload.count
      item.transmissions =
        (item.transmissions + 1)
        % BroadcastQueue.retransmitLimit(
          multiplier: 4, nodeCount: Cluster.size)
      returning.append(item)
    }
    items += returning
  }
}
