import Testing
import WeirCore

@testable import WeirStorage

@Suite("Damage and failing disks")
struct DamageTests {
  private static let path = "/log/0000000000000001.wal"

  /// A closed log in one segment, and the row of states that it went through.
  private func makeClosedLog(bytes: Int, options: LogOptions, payloadBytes: Int) throws -> (
    SimulatedFileSystem, [ModelLog]
  ) {
    let disk = SimulatedFileSystem()
    let opened = try openLog(disk, options)
    var history = ModelHistory(seed: 21)
    history.compacts = false
    history.maximumPayloadBytes = payloadBytes
    var states = [history.state]
    while opened.log.counters.bytes + options.blockBytes < bytes {
      opened.log.stage(history.next())
      try opened.log.commitBatch()
      states.append(history.state)
    }
    try opened.log.close()
    disk.kill()
    return (disk, states)
  }

  /// Flips a bit and opens the log.
  /// - Returns: whether the damage was refused; else what was read is what had been written.
  private func isRefused(
    _ disk: SimulatedFileSystem, byte: Int, bit: Int, in path: String = path, expecting state: ModelLog,
    _ options: LogOptions
  ) throws -> Bool {
    disk.flipBit(bit, ofByte: byte, in: path)
    defer { disk.flipBit(bit, ofByte: byte, in: path) }
    let replay = LogReplay(
      fileSystem: disk, directory: "/log", owner: options.owner, memorySegmentBytes: 4096)
    do throws(StorageError) {
      try replay.run()
    } catch {
      switch error {
      case .corrupted, .unknownVersion, .wrongOwner: return true
      default: throw error
      }
    }
    let log = replay.takeLog()
    try #require(log.lastIndex == state.lastIndex && replay.tail.hardState == state.hardState, "byte \(byte)")
    try #require(replay.report.cut == nil, "byte \(byte): an acknowledged batch was cut")
    return false
  }

  @Test("every bit of every byte of a closed log: refused with the place, never a wrong record, never cut")
  func everyBit() throws {
    let options = LogOptions.small(segmentBytes: 10 << 10, blockBytes: 256)
    let (disk, states) = try makeClosedLog(bytes: 8 << 10, options: options, payloadBytes: 120)
    let last = try #require(states.last)
    let written = 8 << 10
    var refused = 0
    for byte in 0..<written - 256 {
      for bit in 0..<8 where try isRefused(disk, byte: byte, bit: bit, expecting: last, options) { refused += 1 }
    }
    // Only unused bytes of the file can be damaged without notice, and there are none among these.
    #expect(refused == (written - 256) * 8)
  }

  @Test("a bit flip in each byte of a log of 1 MiB")
  func largeLog() throws {
    let options = LogOptions.small(segmentBytes: 1 << 20, blockBytes: 512)
    let (disk, states) = try makeClosedLog(bytes: (1 << 20) - 8192, options: options, payloadBytes: 3000)
    let last = try #require(states.last)
    let end = (1 << 20) - 16384
    var generator = SplitMix64(seed: 4)
    let bytes = isLongRun ? Array(0..<end) : (0..<1500).map { _ in generator.below(end) }
    for byte in bytes {
      try #require(
        try isRefused(disk, byte: byte, bit: generator.below(8), expecting: last, options), "byte \(byte)")
    }
  }

  @Test("damage to the last batch is refused if the sync mark was written, and cut if not")
  func lastBatch() throws {
    let options = LogOptions.small()
    for isMarked in [true, false] {
      let disk = SimulatedFileSystem()
      let opened = try openLog(disk, options)
      opened.log.append(makeEntries(from: 1, count: 2, term: 1))
      try opened.log.commitBatch()
      let start = 512 + opened.log.counters.bytes
      opened.log.append(makeEntries(from: 3, count: 2, term: 1))
      try opened.log.commitBatch()
      if isMarked { try opened.log.writeMark(durably: false) }
      disk.kill()
      disk.flipBit(3, ofByte: start + 200, in: Self.path)
      if isMarked {
        #expect(
          throws: StorageError.corrupted(
            .init(
              path: Self.path, offsetBytes: start,
              reason: "the checksum of the batch's entries does not match, but the log was durable up to log offset "
                + "\(start + 512) (here: \(start))"))
        ) { try openLog(disk, options) }
      } else {
        let recovered = try openLog(disk, options)
        #expect(recovered.entries.map(\.index) == [1, 2])
        #expect(recovered.report.cut?.offsetBytes == start)
      }
    }
  }

  @Test("a lost, a swapped and a missing segment are refused; segments before a gap that nobody needs are not")
  func segmentRow() throws {
    let disk = SimulatedFileSystem()
    let options = LogOptions.small(segmentBytes: 4 << 10)
    let opened = try openLog(disk, options)
    for index in 1...60 as ClosedRange<UInt64> {
      opened.log.append(makeEntries(from: index, count: 1, term: 1, payloadBytes: 300))
      try opened.log.commitBatch()
    }
    try opened.log.close()
    disk.kill()
    let names = try disk.list("/log").filter { $0.hasSuffix(".wal") }
    try #require(names.count > 5)
    for name in names {
      let cut = disk.copy()
      try cut.remove("/log/" + name)
      #expect(throws: StorageError.self, "\(name) is missing") { try openLog(cut, options) }
    }
    let swapped = disk.copy()
    let contents = try #require(swapped.contents(of: "/log/" + names[1]))
    swapped.setContents(of: "/log/" + names[2], to: contents)
    #expect(throws: StorageError.self) { try openLog(swapped, options) }
  }

  @Test("a batch that was written to the wrong place is never read as one")
  func misdirectedWrites() throws {
    var refusals = 0
    for seed in 0..<UInt64(isLongRun ? 5000 : 200) {
      let disk = SimulatedFileSystem(seed: seed)
      let options = LogOptions.small(segmentBytes: 8 << 10)
      let opened = try openLog(disk, options)
      disk.faults.misdirectedWritesPerMillion = 100_000
      var history = ModelHistory(seed: seed)
      history.compacts = false
      var states: Set<ModelLog> = [history.state]
      for _ in 0..<20 {
        opened.log.stage(history.next())
        try opened.log.commitBatch()
        states.insert(history.state)
      }
      try opened.log.writeMark(durably: true)
      disk.faults = .init()
      disk.crash()
      do {
        let recovered = try openLog(disk, options)
        #expect(states.contains(recovered.state), "seed \(seed)")
      } catch {
        refusals += 1
      }
    }
    #expect(refusals > 0)
  }

  @Test("a disk that lies about syncing loses acknowledged entries, and this test sees it")
  func lyingDisk() throws {
    var losses = 0
    for seed in 0..<50 as Range<UInt64> {
      let disk = SimulatedFileSystem(seed: seed)
      let opened = try openLog(disk, .small())
      disk.faults.lostSyncsPerMillion = 500_000
      for index in 1...10 as ClosedRange<UInt64> {
        opened.log.append(makeEntries(from: index, count: 1, term: 1))
        try opened.log.commitBatch()
      }
      disk.crash(survivalPerMille: 0)
      let recovered = try? openLog(disk, .small())
      if recovered?.entries.count != 10 { losses += 1 }
    }
    #expect(losses > 10)
  }

  /// Opens, writes, rolls, compacts; says what was acknowledged.
  private func work(_ disk: SimulatedFileSystem, _ acknowledged: inout [ModelLog], _ written: inout [ModelLog]) throws {
    let opened = try openLog(disk, .small(segmentBytes: 4 << 10))
    var history = ModelHistory(seed: 8)
    history.maximumPayloadBytes = 700
    for _ in 0..<40 {
      opened.log.stage(history.next())
      written.append(history.state)
      do {
        try opened.log.commitBatch()
      } catch {
        // The log is at its end: nothing gets through any more.
        #expect(opened.log.failure == error)
        opened.log.append(EntryBatch(), hardState: HardState(term: 99, vote: 1, commit: 0))
        #expect(throws: error) { try opened.log.commitBatch() }
        #expect(throws: error) { try opened.log.synchronize() }
        throw error
      }
      acknowledged.append(history.state)
    }
    try opened.log.close()
  }

  @Test(
    "an error at each single file operation: the log ends, and everything acknowledged is there", arguments: [5, 28])
  func errorEverywhere(code: Int32) throws {
    let clean = SimulatedFileSystem()
    var acknowledged: [ModelLog] = []
    var written: [ModelLog] = []
    try work(clean, &acknowledged, &written)
    let operations = clean.operationCount
    #expect(operations > 100)
    for number in 0..<operations {
      for isCrash in [true, false] {
        let disk = SimulatedFileSystem(seed: UInt64(number))
        disk.faults.failures = [number: code]
        acknowledged = [ModelLog()]
        written = [ModelLog()]
        #expect(throws: StorageError.self, "operation \(number)") { try work(disk, &acknowledged, &written) }
        disk.faults = .init()
        if isCrash { disk.crash() } else { disk.kill() }
        let recovered = try reopen(disk, .small(segmentBytes: 4 << 10)).state
        let legal = written.suffix(from: acknowledged.count - 1)
        try #require(legal.contains(recovered), "operation \(number), crash \(isCrash)")
      }
    }
  }

  @Test("a failed sync is final: what the cache still shows is written again before it is believed")
  func failedSync() throws {
    let disk = SimulatedFileSystem(seed: 2)
    var opened = try openLog(disk, .small())
    opened.log.append(makeEntries(from: 1, count: 3, term: 1))
    try opened.log.commitBatch()
    opened.log.append(makeEntries(from: 4, count: 1, term: 1))
    disk.faults.failedSyncsPerMillion = 1_000_000
    #expect(throws: StorageError.self) { try opened.log.commitBatch() }
    disk.faults = .init()
    #expect(throws: StorageError.self) { try opened.log.commitBatch() }
    // The process ends, the machine goes on: the cache shows the fourth entry, the disk does not have it.
    disk.kill()
    opened = try openLog(disk, .small())
    #expect(opened.entries.count == 4)
    disk.crash(survivalPerMille: 0)
    #expect(try openLog(disk, .small()).entries.count == 4)
  }

  @Test("a full disk: no more is taken, all is kept, it opens while full, and goes on with space")
  func diskFull() throws {
    let disk = SimulatedFileSystem()
    let options = LogOptions.small(segmentBytes: 8 << 10)
    disk.faults.capacityBytes = 30 << 10
    var opened = try openLog(disk, options)
    var next: LogIndex = 1
    var failure: StorageError?
    while failure == nil {
      opened.log.append(makeEntries(from: next, count: 1, term: 1, payloadBytes: 400))
      do throws(StorageError) {
        try opened.log.commitBatch()
        next += 1
      } catch {
        failure = error
      }
    }
    guard case .diskFull = failure else {
      Issue.record("\(String(describing: failure))")
      return
    }
    #expect(next > 10)
    disk.crash()
    opened = try openLog(disk, options)
    #expect(opened.entries.count == Int(next) - 1)
    disk.crash()
    disk.faults.capacityBytes = nil
    opened = try openLog(disk, options)
    for _ in 0..<20 {
      opened.log.append(makeEntries(from: next, count: 1, term: 1, payloadBytes: 400))
      try opened.log.commitBatch()
      next += 1
    }
    disk.crash()
    #expect(try openLog(disk, options).entries.count == Int(next) - 1)
  }
}
