import Testing
import WeirCore

@testable import WeirStorage

/// The proofs of recovery on files that held other segments before: what those left behind must count as nothing.
@Suite("Recovery of segments that were used before")
struct RecyclingTests {
  /// A log that has just begun a segment in a file that was used before, and holds nothing but one batch in it: each batch
  /// so far was one entry, and dropped all entries.
  private func makeRecycledLog(_ disk: SimulatedFileSystem, _ options: LogOptions) throws -> (
    log: WriteAheadLog, path: String, state: ModelLog
  ) {
    let opened = try openLog(disk, options)
    var segments = 0
    for index in 1...100_000 as ClosedRange<LogIndex> {
      opened.log.append(
        makeEntries(from: index, count: 1, term: 1, payloadBytes: Int(index * 37 % 700)),
        hardState: HardState(term: 1, vote: 1, commit: index))
      opened.log.compact(through: index, term: 1)
      try opened.log.commitBatch()
      let counters = opened.log.counters
      if counters.segments > segments, counters.recycledSegments >= 3 {
        let names = try disk.list("/log").filter { $0.hasSuffix(".wal") }
        let name = try #require(names.last)
        #expect(names.count == 1, "what was before is put aside")
        let state = ModelLog(hardState: HardState(term: 1, vote: 1, commit: index), anchorIndex: index, entries: [])
        return (opened.log, "/log/" + name, state)
      }
      segments = counters.segments
    }
    throw StorageError.closed
  }

  @Test("every byte prefix of 200 batches over what was there before recovers exactly the whole ones")
  func everyPrefix() throws {
    let options = LogOptions.small(segmentBytes: 80 << 10, blockBytes: 256)
    let disk = SimulatedFileSystem()
    let (log, path, state) = try makeRecycledLog(disk, options)
    let before = try #require(disk.contents(of: path))
    let written = log.counters.bytes
    // One batch is there already, whose size is where the first of old ones is not any more.
    var ends: [Int] = []
    _ = try LogInspector.inspect(fileSystem: disk, directory: "/log") { event in
      if case .batch(_, let offset, let header) = event {
        ends.append(offset + LogFormat.roundUp(LogFormat.batchHeaderBytes + header.frameBytes, toBlocksOf: 256))
      }
    }
    try #require(ends.count == 1)
    let base = ends[0]
    var history = ModelHistory(seed: 11, from: state)
    history.compacts = false
    var states = [history.state]
    for _ in 0..<200 {
      log.stage(history.next())
      try log.commitBatch()
      states.append(history.state)
      ends.append(base + log.counters.bytes - written)
    }
    let bytes = try #require(disk.contents(of: path))
    let end = try #require(ends.last)
    try #require(before[base..<end].contains { $0 != 0 }, "old bytes are where the new ones go")
    var batches = 0
    disk.setContents(of: path, to: before)
    let file = try disk.open(path, mode: .direct)
    for length in base...end + 1 {
      // A batch is whole as soon as what is missing of it is there by chance (or zero, like what was there before).
      while batches + 1 < ends.count,
        ends[batches + 1] <= length || bytes[length..<ends[batches + 1]] == before[length..<ends[batches + 1]]
      { batches += 1 }
      if length > base { try file.write([bytes[length - 1]].span.bytes, at: length - 1) }
      let replay = LogReplay(fileSystem: disk, directory: "/log", owner: 7, memorySegmentBytes: 4096)
      try replay.run()
      let entries = replay.takeLog()
      try #require(
        replay.report.batches == batches + 1 && entries.lastIndex == states[batches].lastIndex, "length \(length)")
      if length > ends[batches], length - ends[batches] >= 96 { try #require(replay.report.cut != nil) }
      guard length % 61 == 0 else { continue }
      try requireGoesOn(disk.copy(), options, from: states[batches])
    }
    #expect(batches == 200)
  }

  @Test("every subset of the last 8 unsynced writes in such a segment recovers what its unbroken beginning says")
  func everySubset() throws {
    let disk = SimulatedFileSystem()
    let options = LogOptions.small(segmentBytes: 32 << 10, blockBytes: 256)
    let opened = try openLog(disk, options)
    var history = ModelHistory(seed: 5)
    var states = [history.state]
    var checked = 0
    for round in 0..<400 {
      let segments = opened.log.counters.segments
      for _ in 0..<8 {
        opened.log.stage(history.next())
        try opened.log.writeBatch()
        states.append(history.state)
      }
      let writes = disk.pendingWrites
      // A round in which a segment begins has synced what was before it.
      if opened.log.counters.segments == segments, opened.log.counters.recycledSegments > 2, isLongRun || round % 8 == 0
      {
        try #require(writes.filter { $0.path.hasSuffix(".wal") }.count == 8)
        let first = try #require(writes.firstIndex { $0.path.hasSuffix(".wal") })
        checked += 1
        for mask in 0..<256 {
          let cut = disk.copy()
          cut.crash { $0 < first || $0 >= first + 8 || mask & (1 << ($0 - first)) != 0 }
          let kept = (~mask).trailingZeroBitCount
          let recovered = try reopen(cut, options)
          try #require(recovered.state == states[states.count - 9 + min(kept, 8)], "round \(round), mask \(mask)")
          try #require((recovered.report.cut != nil) == (kept < 8 && mask >> kept != 0))
        }
      }
      try opened.log.synchronize()
    }
    #expect(checked > 10)
    #expect(opened.log.counters.recycledSegments > 10)
  }

  @Test("every bit of every byte of a closed log: refused, unless it is one that an earlier segment left behind")
  func everyBit() throws {
    let disk = SimulatedFileSystem()
    let options = LogOptions.small(segmentBytes: 6 << 10, blockBytes: 256)
    let (log, path, state) = try makeRecycledLog(disk, options)
    var history = ModelHistory(seed: 21, from: state)
    history.compacts = false
    for _ in 0..<30 {
      log.stage(history.next())
      try log.commitBatch()
    }
    try log.close()
    disk.kill()
    #expect(try disk.list("/log").contains(String(path.dropFirst(5))))
    // Which bytes of which file are the log.
    var used: [String: Int] = [:]
    _ = try LogInspector.inspect(fileSystem: disk, directory: "/log") { event in
      switch event {
      case .segment(let path, let header): used[path] = header.blockBytes
      case .batch(let path, let offset, let header):
        used[path] = offset + LogFormat.roundUp(LogFormat.batchHeaderBytes + header.frameBytes, toBlocksOf: 256)
      default: break
      }
    }
    #expect(used.count > 1)
    let whole = try outcome(disk, options)
    var left = 0
    for (path, end) in used.sorted(by: { $0.key < $1.key }) {
      let count = try #require(disk.contents(of: path)).count
      for byte in 0..<count {
        for bit in 0..<8 where byte < end || bit == byte % 8 {
          disk.flipBit(bit, ofByte: byte, in: path)
          let found = try outcome(disk, options)
          disk.flipBit(bit, ofByte: byte, in: path)
          try #require(found == (byte < end ? nil : whole), "\(path), byte \(byte)")
          if byte >= end { left += 1 }
        }
      }
    }
    #expect(left > 0, "there are bytes behind the log's end")
  }

  /// What a log says; nil if it is refused.
  private func outcome(_ disk: SimulatedFileSystem, _ options: LogOptions) throws -> ModelLog? {
    let replay = LogReplay(fileSystem: disk, directory: "/log", owner: options.owner, memorySegmentBytes: 4096)
    do throws(StorageError) {
      try replay.run()
    } catch {
      switch error {
      case .corrupted, .unknownVersion, .wrongOwner: return nil
      default: throw error
      }
    }
    #expect(replay.report.cut == nil)
    let log = replay.takeLog()
    return ModelLog(hardState: replay.tail.hardState, anchorIndex: log.anchorIndex, entries: entries(of: log))
  }

  @Test("a power cut at each file operation of a log that uses its files again: all that was acknowledged is there")
  func crashEverywhere() throws {
    let options = LogOptions.small(segmentBytes: 4 << 10, blockBytes: 256)
    func work(_ disk: SimulatedFileSystem, _ states: inout [ModelLog], _ acknowledged: inout Int) throws -> LogCounters
    {
      let opened = try openLog(disk, options)
      for index in 1...60 as ClosedRange<LogIndex> {
        opened.log.append(
          makeEntries(from: index, count: 1, term: 1, payloadBytes: 400),
          hardState: HardState(term: 1, vote: 1, commit: index))
        if index > 3 { opened.log.compact(through: index - 3, term: 1) }
        let first = max(4, index) - 3
        states.append(
          ModelLog(
            hardState: HardState(term: 1, vote: 1, commit: index), anchorIndex: index > 3 ? first : 0,
            entries: ((index > 3 ? first + 1 : 1)...index).map {
              ModelEntry(index: $0, term: 1, payload: makePayload($0, 1, 400))
            }))
        try opened.log.commitBatch()
        acknowledged = states.count - 1
      }
      return opened.log.counters
    }
    let clean = SimulatedFileSystem()
    var states = [ModelLog()]
    var acknowledged = 0
    let counters = try work(clean, &states, &acknowledged)
    #expect(counters.recycledSegments > 3)
    for number in 0..<clean.operationCount {
      for seed in 0..<UInt64(isLongRun ? 100 : 4) {
        let disk = SimulatedFileSystem(seed: seed << 32 | UInt64(number))
        disk.faults.failures = [number: 5]
        states = [ModelLog()]
        acknowledged = 0
        #expect(throws: StorageError.self) { try work(disk, &states, &acknowledged) }
        disk.faults = .init()
        disk.crash()
        let recovered = try reopen(disk, options).state
        try #require(states[acknowledged...].contains(recovered), "operation \(number), seed \(seed)")
      }
    }
  }

  @Test("a file that has not its size any more is not used again; no more are kept than asked for")
  func whatIsKept() throws {
    for limit in [0, 2, 5] {
      let disk = SimulatedFileSystem()
      var options = LogOptions.small(segmentBytes: 4 << 10)
      options.maximumSpareSegments = limit
      let opened = try openLog(disk, options)
      for index in 1...60 as ClosedRange<LogIndex> {
        opened.log.append(makeEntries(from: index, count: 1, term: 1, payloadBytes: 600))
        try opened.log.commitBatch()
      }
      if limit == 5 {
        let name = try #require(try disk.list("/log").first { $0.hasSuffix(".wal") })
        try disk.open("/log/" + name, mode: .buffered).truncate(toBytes: 2 << 10)
      }
      opened.log.compact(through: 60, term: 1)
      try opened.log.commitBatch()
      let spares = try disk.list("/log").filter { $0.hasPrefix("spare-") }
      #expect(spares.count == (limit == 5 ? 4 : limit))
      #expect(try disk.list("/log").filter { $0.hasSuffix(".wal") }.count == 1)
      for index in 61...90 as ClosedRange<LogIndex> {
        opened.log.append(makeEntries(from: index, count: 1, term: 1, payloadBytes: 600))
        try opened.log.commitBatch()
      }
      // With none to spare none is ever used again; else the ones that follow come back as well.
      #expect(
        limit == 0 ? opened.log.counters.recycledSegments == 0 : opened.log.counters.recycledSegments >= limit - 1)
      disk.crash(survivalPerMille: 0)
      #expect(try reopen(disk, options).entries.map(\.index) == Array(61...90))
    }
  }
}
