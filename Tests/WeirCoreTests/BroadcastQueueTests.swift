import Testing

@testable import WeirCore

@Suite struct BroadcastQueueTests {
  /// What a take visits, in order.
  private func taken(
    _ queue: inout BroadcastQueue, overhead: Int = 2, limit: Int = 1398, nodes: Int = 5,
    onFinish: (FinishedBroadcast) -> Void = { _ in }
  ) -> [[UInt8]] {
    var visited: [[UInt8]] = []
    queue.take(overheadBytes: overhead, limitBytes: limit, nodeCount: nodes, onFinish: onFinish) { payload in
      visited.append(bytes(of: payload))
    }
    return visited
  }

  @Test(arguments: [
    (3, 0, 0), (3, 1, 3), (3, 8, 3), (3, 9, 3), (3, 10, 6), (3, 98, 6), (3, 99, 6), (3, 100, 9), (4, 999, 12),
    (4, 1000, 16), (0, 50, 0), (100, 1_000_000, 255),
  ])
  func theRetransmitLimitIsTheMultiplierTimesTheDigits(multiplier: Int, nodes: Int, limit: Int) {
    #expect(BroadcastQueue.retransmitLimit(multiplier: multiplier, nodeCount: nodes) == limit)
  }

  @Test func fewestTransmissionsThenLongestThenNewest() throws {
    var queue = BroadcastQueue()
    for (name, payload) in [("a", "old"), ("b", "new"), ("c", "long one"), ("d", "x")] {
      try queue.queueNamed(Array(name.utf8).span.bytes, payload: Array(payload.utf8).span.bytes)
    }
    #expect(taken(&queue, limit: 2 + 8) == [Array("long one".utf8)])
    try queue.queueNamed(Array("e".utf8).span.bytes, payload: Array("y".utf8).span.bytes)
    #expect(taken(&queue) == ["new", "old", "y", "x", "long one"].map { Array($0.utf8) })
  }

  @Test func aNewNamedBroadcastReplacesTheQueuedOneOfItsNameOnly() throws {
    var queue = BroadcastQueue()
    var finished: [FinishedBroadcast] = []
    try queue.queueNamed([UInt8(1)].span.bytes, payload: [UInt8(10)].span.bytes, tag: 1)
    try queue.queuePlain([UInt8(11)].span.bytes, key: [UInt8(1)].span.bytes, tag: 2)
    try queue.queueUnique([UInt8(12)].span.bytes, tag: 3)
    try queue.queueNamed([UInt8(1)].span.bytes, payload: [UInt8(13)].span.bytes, tag: 4) { finished.append($0) }
    #expect(finished == [FinishedBroadcast(tag: 1, kind: .named, reason: .invalidated)])
    #expect(taken(&queue) == [[13], [12], [11]])
  }

  @Test func aMessageOverTheBudgetIsNeitherSentNorFinished() throws {
    var queue = BroadcastQueue(retransmitMultiplier: 1)
    try queue.queueUnique([UInt8](repeating: 1, count: 100).span.bytes)
    for _ in 0..<10 { #expect(taken(&queue, limit: 101) == []) }
    #expect(queue.count == 1)
    #expect(taken(&queue, limit: 102).count == 1)
    #expect(queue.count == 0)
  }

  @Test func whatIsTooLargeForAnyDatagramIsRefused() throws {
    var queue = BroadcastQueue()
    let large = [UInt8](repeating: 0, count: 65_536)
    #expect(throws: BroadcastQueueError.payloadTooLarge(byteCount: 65_536, maximumByteCount: 65_535)) {
      try queue.queueUnique(large.span.bytes)
    }
    #expect(throws: BroadcastQueueError.nameTooLong(byteCount: 65_536, maximumByteCount: 65_535)) {
      try queue.queueNamed(large.span.bytes, payload: RawSpan())
    }
    try queue.queueNamed(large.span.bytes.extracting(first: 65_535), payload: large.span.bytes.extracting(last: 65_535))
    #expect(taken(&queue, limit: 70_000).first?.count == 65_535)
  }

  @Test func theQueuePrunesItselfDownToItsMaximum() throws {
    var queue = BroadcastQueue(maximumCount: 3)
    var pruned: [UInt64] = []
    for tag in 1...5 { try queue.queueUnique([UInt8(1)].span.bytes, tag: UInt64(tag)) { pruned.append($0.tag) } }
    #expect(pruned == [1, 2])
    #expect(queue.count == 3)
  }

  @Test func numbersThatRunOutAreGivenAgainInTheSameOrder() throws {
    var queue = BroadcastQueue(
      retransmitMultiplier: 4, maximumCount: 100, hashSeed: 0, lastID: BroadcastKey.maximumID - 3)
    for byte in UInt8(1)...6 { try queue.queueUnique([byte].span.bytes) }
    #expect(taken(&queue) == [[6], [5], [4], [3], [2], [1]])
    #expect(taken(&queue) == [[6], [5], [4], [3], [2], [1]])
  }

  /// Every operation at random, on the queue and on the naive model; both must show the same at every step.
  @Test(arguments: 0..<24)
  func behavesAsTheNaiveModel(seed: Int) throws {
    var random = SplitMix64(seed: UInt64(seed))
    let multiplier = 1 + random.below(4)
    var queue = BroadcastQueue(retransmitMultiplier: multiplier, hashSeed: UInt64(seed))
    var model = BroadcastQueueModel(multiplier: multiplier)
    var finished: [FinishedBroadcast] = []
    let largeNames = seed % 2 == 0
    for step in 0..<1500 {
      let tag = UInt64(step)
      let payload = [UInt8](repeating: UInt8(step & 0xFF), count: random.below(random.chance(20) ? 300 : 24))
      let name = [UInt8]((0..<(largeNames ? random.below(20) : 1)).map { _ in UInt8(random.below(3)) })
      switch random.below(100) {
      case 0..<25:
        try queue.queueNamed(name.span.bytes, payload: payload.span.bytes, tag: tag) { finished.append($0) }
        model.queue(.named, name: name, payload: payload, tag: tag)
      case 25..<45:
        try queue.queueUnique(payload.span.bytes, tag: tag) { finished.append($0) }
        model.queue(.unique, name: [], payload: payload, tag: tag)
      case 45..<60:
        try queue.queuePlain(payload.span.bytes, key: name.span.bytes, tag: tag) { finished.append($0) }
        model.queue(.plain, name: name, payload: payload, tag: tag)
      case 60..<64:
        let remainder = UInt64(random.below(7))
        try queue.queuePlain(
          payload.span.bytes, tag: tag, onFinish: { finished.append($0) }, invalidates: { $1 % 7 == remainder })
        model.queue(.plain, name: [], payload: payload, tag: tag, invalidates: { $1 % 7 == remainder })
      case 64..<98:
        let overhead = random.below(4)
        let limit = random.below(600)
        let nodes = random.below(200)
        let visited = taken(&queue, overhead: overhead, limit: limit, nodes: nodes) { finished.append($0) }
        let expected = model.take(overheadBytes: overhead, limitBytes: limit, nodeCount: nodes)
        if visited != expected { Issue.record("step \(step): took \(visited) instead of \(expected)") }
      case 98:
        let keep = random.below(80)
        queue.prune(keeping: keep) { finished.append($0) }
        model.prune(keeping: keep)
      default:
        if random.chance(10) {
          queue.reset { finished.append($0) }
          model.reset()
        }
      }
      let isSame = queue.count == model.items.count && finished == model.finished
      try #require(isSame, "step \(step): \(finished) instead of \(model.finished)")
      finished.removeAll()
      model.finished.removeAll()
    }
    var tags: [UInt64] = []
    queue.forEach { _, _, _, tag in tags.append(tag) }
    #expect(tags == model.ordered.map(\.tag))
  }

  /// The order alone, at a size where leaves and inner nodes split, empty and merge.
  @Test(arguments: 0..<4)
  func theOrderKeepsItsKeysSorted(seed: Int) {
    var random = SplitMix64(seed: UInt64(100 + seed))
    var order = BroadcastOrder(nodeCapacity: 1)
    var keys: Set<UInt64> = []
    let range = UInt64(40_000)
    for phase in 0..<6 {
      let growing = phase % 2 == 0
      for _ in 0..<20_000 {
        let key = UInt64.random(in: 0..<range, using: &random)
        if random.chance(growing ? 70 : 20) {
          if keys.insert(key).inserted { order.insert(key, slot: UInt32(key)) }
        } else {
          let isThere = keys.remove(key) != nil
          let wasRemoved = order.remove(key)
          if wasRemoved != isThere { Issue.record("key \(key) is there: \(isThere)") }
        }
      }
      var position: UInt64 = 0
      var seen: [UInt64] = []
      while let item = order.ceiling(position) {
        seen.append(item.key)
        position = item.key + 1
      }
      #expect(seen == keys.sorted())
      let largest = order.maximum?.key
      #expect(largest == keys.max())
      let count = order.count
      #expect(count == keys.count)
    }
    while let item = order.removeCeiling(0, below: .max) { keys.remove(item.key) }
    #expect(keys.isEmpty)
  }

  /// The lists of what was not sent, with lengths from all of the range: they find what a sorted array finds.
  @Test(arguments: 0..<4)
  func theListsFindTheNewestOfTheLongestThatFits(seed: Int) {
    var random = SplitMix64(seed: UInt64(200 + seed))
    let lengths = (0..<12).map { _ in random.below(65_536) } + [0, 1, 255, 256, 65_535]
    var lists = BroadcastLists(capacity: 64)
    lists.grow(capacity: 512)
    var queued: [(slot: UInt32, length: Int)] = []
    var free = (0..<512 as Range<UInt32>).map { $0 }
    // Newest last; the order of the lists is by length, then from the back.
    func first(atMost length: Int) -> UInt32? {
      guard let longest = queued.map(\.length).filter({ $0 <= length }).max() else { return nil }
      return queued.last { $0.length == longest }?.slot
    }
    for step in 0..<6000 {
      if !free.isEmpty, random.chance(step % 1000 < 600 ? 70 : 30) {
        let slot = free.remove(at: random.below(free.count))
        let length = lengths[random.below(lengths.count)]
        lists.putNewest(slot, length: length)
        queued.append((slot, length))
      } else if !queued.isEmpty {
        let item = queued.remove(at: random.below(queued.count))
        lists.remove(item.slot, length: item.length)
        free.append(item.slot)
      }
      let limit = random.chance(50) ? lengths[random.below(lengths.count)] : random.below(65_536)
      let found = lists.newest(atMost: limit)
      let expected = first(atMost: limit)
      if found != expected { Issue.record("step \(step): \(String(describing: found)) at most \(limit)") }
      let shortest = queued.map(\.length).min()
      let last = lists.last
      if last != queued.first(where: { $0.length == shortest })?.slot { Issue.record("step \(step): the last") }
    }
    var order: [UInt32] = []
    var next = lists.first
    while let slot = next {
      order.append(slot)
      next = lists.following(slot, length: queued.first { $0.slot == slot }?.length ?? 0)
    }
    let sorted = queued.indices.sorted {
      queued[$0].length != queued[$1].length ? queued[$0].length > queued[$1].length : $0 > $1
    }
    #expect(order == sorted.map { queued[$0].slot })
  }
}
