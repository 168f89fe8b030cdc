import Testing
import WeirCore

/// A log as an array of entries.
private struct LogModel {
  struct Entry: Equatable {
    var term: Term
    var kind: EntryKind
    var payload: [UInt8]
  }

  var anchorIndex: LogIndex = 0
  var anchorTerm: Term = 0
  var entries: [Entry] = []

  var lastIndex: LogIndex { anchorIndex + UInt64(entries.count) }
  var lastTerm: Term { entries.last?.term ?? anchorTerm }

  func term(at index: LogIndex) -> Term? {
    if index == anchorIndex { return anchorTerm }
    guard index > anchorIndex, index <= lastIndex else { return nil }
    return entries[Int(index - anchorIndex - 1)].term
  }

  func size(_ index: LogIndex) -> Int { (32 + entries[Int(index - anchorIndex - 1)].payload.count + 7) / 8 * 8 }

  func range(_ lower: LogIndex, _ upper: LogIndex, maximumBytes: Int) -> [Entry] {
    var result: [Entry] = []
    var total = 0
    var index = lower
    while index <= upper {
      total += size(index)
      if !result.isEmpty, total > maximumBytes { break }
      result.append(entries[Int(index - anchorIndex - 1)])
      index += 1
    }
    return result
  }
}

@Suite struct LogBufferModelTests {
  private func contents(_ batch: EntryBatch) -> [LogModel.Entry] {
    var result: [LogModel.Entry] = []
    batch.forEach { header, payload in
      result.append(.init(term: header.term, kind: header.kind, payload: bytes(of: payload)))
    }
    return result
  }

  /// Whether the frames verify from the first byte to the last, with the indexes they should have.
  private func verifies(_ batch: EntryBatch) throws -> Bool {
    var copy: [UInt8] = []
    batch.forEachSlice { copy += $0.slab.bytes(in: $0.offset..<$0.offset + $0.byteCount) }
    let again = try EntryBatch.verifying(slab: slab(of: copy), range: 0..<copy.count, firstIndex: batch.firstIndex)
    return again.count == batch.count && copy.count == batch.byteCount
  }

  private func randomEntry(_ random: inout SplitMix64) -> LogModel.Entry {
    let size = random.chance(2) ? random.below(9000) : random.below(random.chance(30) ? 900 : 40)
    let kind = EntryKind.allCases.randomElement(using: &random) ?? .normal
    return .init(term: 0, kind: kind, payload: (0..<size).map { _ in UInt8(truncatingIfNeeded: random.next()) })
  }

  /// Every operation at random on small segments; batches are kept for a while, and must show to the end what they showed
  /// at the start, whatever happened to the log.
  @Test(arguments: 0..<24)
  func behavesAsTheNaiveModel(seed: Int) throws {
    var random = SplitMix64(seed: UInt64(1000 + seed))
    var log = LogBuffer(configuration: .init(segmentBytes: 4096, maximumSpareSegments: 1 + seed % 4))
    var builder = EntryBatchBuilder(capacity: 512)
    var model = LogModel()
    var kept: [(batch: EntryBatch, contents: [LogModel.Entry])] = []
    let maximumKept = seed % 3 == 0 ? 0 : 12
    for step in 0..<1500 {
      let term = model.lastTerm + (random.chance(5) ? UInt64(1 + random.below(3)) : 0)
      switch random.below(100) {
      case 0..<35:
        var entry = randomEntry(&random)
        entry.term = max(term, 1)
        let index: LogIndex
        if random.chance(50) {
          index = log.append(term: entry.term, kind: entry.kind, payload: entry.payload.span.bytes)
        } else {
          index = log.append(term: entry.term, kind: entry.kind, payloadBytes: entry.payload.count) { span in
            for (position, byte) in entry.payload.enumerated() {
              span.storeBytes(of: byte, toByteOffset: position, as: UInt8.self)
            }
          }
        }
        model.entries.append(entry)
        #expect(index == model.lastIndex)
      case 35..<50:
        let entries = (0..<random.below(20)).map { _ in randomEntry(&random) }
        for entry in entries { builder.append(kind: entry.kind, payload: entry.payload) }
        let proposals = builder.finish()
        if maximumKept > 0, !proposals.isEmpty { kept.append((proposals, entries)) }
        log.append(proposals: proposals, term: max(term, 1))
        model.entries += entries.map { .init(term: max(term, 1), kind: $0.kind, payload: $0.payload) }
      case 50..<65:
        // A leader's entries, the first of which the follower has already.
        var leader = LogBuffer(configuration: .init(segmentBytes: 4096), anchorIndex: 0, anchorTerm: model.lastTerm)
        let overlap = random.below(3)
        let anchor = model.lastIndex - min(model.lastIndex, UInt64(overlap))
        leader.reset(anchorIndex: anchor, anchorTerm: model.lastTerm)
        while leader.lastIndex < model.lastIndex { leader.append(term: max(model.lastTerm, 1), payload: RawSpan()) }
        let entries = (0..<1 + random.below(40)).map { _ in randomEntry(&random) }
        for entry in entries {
          leader.append(term: max(term, 1), kind: entry.kind, payload: entry.payload.span.bytes)
          model.entries.append(.init(term: max(term, 1), kind: entry.kind, payload: entry.payload))
        }
        log.append(leader.batch(from: leader.firstIndex, through: leader.lastIndex), from: log.lastIndex + 1)
      case 65..<75:
        guard !model.entries.isEmpty else { continue }
        let back = random.below(random.chance(20) ? model.entries.count : min(5, model.entries.count)) + 1
        let from = model.lastIndex - UInt64(back) + 1
        log.truncateSuffix(from: from)
        model.entries.removeLast(back)
      case 75..<85:
        guard !model.entries.isEmpty else { continue }
        let drop = random.below(random.chance(50) ? model.entries.count : min(30, model.entries.count)) + 1
        let through = model.anchorIndex + UInt64(drop)
        let droppedTerm = model.term(at: through)
        log.releasePrefix(through: through)
        model.anchorTerm = try #require(droppedTerm)
        model.anchorIndex = through
        model.entries.removeFirst(drop)
      case 85:
        guard random.chance(20) else { continue }
        model = LogModel(anchorIndex: model.lastIndex + 100, anchorTerm: model.lastTerm + 1)
        log.reset(anchorIndex: model.anchorIndex, anchorTerm: model.anchorTerm)
      default:
        guard !model.entries.isEmpty else { continue }
        let lower = model.anchorIndex + 1 + UInt64(random.below(model.entries.count))
        let upper = lower + UInt64(random.below(Int(model.lastIndex - lower) + 1))
        let limit = random.chance(50) ? Int.max : random.below(5000)
        let batch = log.batch(from: lower, through: upper, maximumBytes: limit)
        let expected = model.range(lower, upper, maximumBytes: limit)
        #expect(batch.firstIndex == lower)
        #expect(contents(batch) == expected)
        #expect(try verifies(batch))
        if maximumKept > 0 { kept.append((batch, expected)) }
      }
      while kept.count > maximumKept { kept.removeFirst() }
      let shape = (log.anchorIndex, log.anchorTerm, log.lastIndex, log.lastTerm, log.count)
      try #require(
        shape == (model.anchorIndex, model.anchorTerm, model.lastIndex, model.lastTerm, model.entries.count))
      if step % 16 == 0 {
        for (batch, contents) in kept { #expect(self.contents(batch) == contents) }
        for _ in 0..<10 {
          let index = model.anchorIndex + UInt64(random.below(model.entries.count + 3))
          let term = log.term(at: index)
          #expect(term == model.term(at: index))
          let seen = log.withEntry(at: index) { header, payload in
            LogModel.Entry(term: header.term, kind: header.kind, payload: bytes(of: payload))
          }
          let isHeld = index > model.anchorIndex && index <= model.lastIndex
          #expect(seen == (isHeld ? model.entries[Int(index - model.anchorIndex - 1)] : nil))
        }
        let liveBytes = log.liveBytes
        let total =
          model.entries.isEmpty ? 0 : (model.anchorIndex + 1...model.lastIndex).reduce(0) { $0 + model.size($1) }
        #expect(liveBytes == total)
      }
    }
  }

  /// Memory is that of what is held, plus the spare segments, however long the log lives.
  @Test func memoryStaysBounded() {
    var log = LogBuffer(configuration: .init(segmentBytes: 4096, maximumSpareSegments: 2))
    let payload = [UInt8](repeating: 7, count: 100)
    for _ in 0..<20_000 {
      log.append(term: 1, payload: payload.span.bytes)
      if log.count > 200 { log.releasePrefix(through: log.firstIndex + 99) }
      if log.lastIndex % 7 == 0 { log.truncateSuffix(from: log.lastIndex) }
    }
    let memoryBytes = log.memoryBytes
    #expect(memoryBytes <= 200 * 136 + 4 * 4096 + 32 * 1024)
  }

  /// What a lagging reader still holds is not written again, even if the log turns over many times meanwhile.
  @Test func aHeldBatchKeepsItsSegmentOutOfReuse() {
    var log = LogBuffer(configuration: .init(segmentBytes: 4096, maximumSpareSegments: 8))
    log.append(term: 1, payload: [UInt8](repeating: 1, count: 1000).span.bytes)
    let held = log.batch(from: 1, through: 1)
    for _ in 0..<100 {
      log.append(term: 1, payload: [UInt8](repeating: 2, count: 1000).span.bytes)
      log.releasePrefix(through: log.lastIndex)
    }
    #expect(contents(held).first?.payload == [UInt8](repeating: 1, count: 1000))
  }
}
