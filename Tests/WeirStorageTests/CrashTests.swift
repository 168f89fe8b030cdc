import Testing
import WeirCore

@testable import WeirStorage

@Suite("Recovery after crashes")
struct CrashTests {
  private let options = LogOptions.small(segmentBytes: 128 << 10, blockBytes: 256)

  /// A log of 200 batches in one segment without a sync mark, the states behind each, and where each ends in the file.
  private func makeLog() throws -> (bytes: [UInt8], states: [ModelLog], ends: [Int]) {
    let disk = SimulatedFileSystem()
    let opened = try openLog(disk, options)
    var history = ModelHistory(seed: 11)
    history.compacts = false
    var states = [history.state]
    var ends = [256]
    for _ in 0..<200 {
      opened.log.stage(history.next())
      try opened.log.commitBatch()
      states.append(history.state)
      ends.append(256 + opened.log.counters.bytes)
    }
    let bytes = try #require(disk.contents(of: "/log/0000000000000001.wal"))
    return (bytes, states, ends)
  }

  @Test("every byte prefix of 200 batches recovers exactly the whole ones", arguments: [false, true])
  func everyPrefix(isPreallocated: Bool) throws {
    let (bytes, states, ends) = try makeLog()
    var batches = 0
    let end = try #require(ends.last)
    for length in 256...end + 1 {
      // Where there are zeros already, a batch is whole as soon as only zeros are missing.
      while batches + 1 < ends.count,
        ends[batches + 1] <= length || isPreallocated && bytes[length..<ends[batches + 1]].allSatisfy({ $0 == 0 })
      { batches += 1 }
      let disk = SimulatedFileSystem()
      try disk.createDirectory("/log")
      var prefix = Array(bytes[..<length])
      if isPreallocated { prefix.append(contentsOf: repeatElement(0, count: bytes.count - length)) }
      disk.setContents(of: "/log/0000000000000001.wal", to: prefix)
      let replay = LogReplay(fileSystem: disk, directory: "/log", owner: 7, memorySegmentBytes: 4096)
      try replay.run()
      let log = replay.takeLog()
      try #require(replay.report.batches == batches && log.lastIndex == states[batches].lastIndex, "length \(length)")
      // In the middle of a batch the remains are seen, unless they are zeros like what was there before.
      if !isPreallocated, length > ends[batches], length - ends[batches] >= 96 {
        try #require(replay.report.cut != nil)
      }
      guard length % 61 == 0 else { continue }
      try requireGoesOn(disk, options, from: states[batches])
    }
    #expect(batches == 200)
  }

  @Test("a prefix that is shorter than the sync mark says is refused")
  func prefixAgainstMark() throws {
    let disk = SimulatedFileSystem()
    let opened = try openLog(disk, options)
    var history = ModelHistory(seed: 3)
    history.compacts = false
    for _ in 0..<40 {
      opened.log.stage(history.next())
      try opened.log.commitBatch()
    }
    try opened.log.writeMark(durably: true)
    let end = 256 + opened.log.counters.bytes
    let path = "/log/0000000000000001.wal"
    let bytes = try #require(disk.contents(of: path))
    for length in stride(from: 256, to: end, by: 7) {
      let cut = disk.copy()
      cut.setContents(of: path, to: Array(bytes[..<length]))
      let error = #expect(throws: StorageError.self) { try openLog(cut, options) }
      guard case .corrupted = error else {
        Issue.record("length \(length): \(String(describing: error))")
        return
      }
    }
    disk.setContents(of: path, to: Array(bytes[..<end]))
    disk.kill()
    #expect(try openLog(disk, options).state == history.state)
  }

  @Test("every subset of the last 8 unsynced writes recovers what its unbroken beginning says")
  func everySubset() throws {
    let disk = SimulatedFileSystem()
    let opened = try openLog(disk, .small(segmentBytes: 512 << 10, blockBytes: 256))
    var history = ModelHistory(seed: 5)
    var states = [history.state]
    for round in 0..<200 {
      for _ in 0..<8 {
        opened.log.stage(history.next())
        try opened.log.writeBatch()
        states.append(history.state)
      }
      let isChecked = isLongRun || round % 20 == 19
      if isChecked {
        let writes = disk.pendingWrites.filter { $0.path.hasSuffix(".wal") }
        try #require(writes.count == 8)
        let first = try #require(disk.pendingWrites.firstIndex { $0.path.hasSuffix(".wal") })
        for mask in 0..<256 {
          let cut = disk.copy()
          cut.crash { $0 < first || $0 >= first + 8 || mask & (1 << ($0 - first)) != 0 }
          let kept = (~mask).trailingZeroBitCount
          let expected = states[states.count - 9 + min(kept, 8)]
          let recovered = try reopen(cut, .small(blockBytes: 256))
          try #require(recovered.state == expected, "round \(round), mask \(mask)")
          try #require((recovered.report.cut != nil) == (kept < 8 && mask >> kept != 0))
        }
      }
      try opened.log.synchronize()
    }
  }

  @Test("torn and reordered sectors: what was synced is there, and what is there was written")
  func tornSectors() throws {
    for seed in 0..<UInt64(isLongRun ? 20_000 : 250) {
      var generator = SplitMix64(seed: seed)
      let disk = SimulatedFileSystem(seed: seed)
      let options = LogOptions.small(
        segmentBytes: 4096 << generator.below(4), blockBytes: 256 << generator.below(4),
        mode: generator.below(4) == 0 ? .direct : .buffered)
      var history = ModelHistory(seed: seed)
      history.maximumPayloadBytes = 900
      var states = [history.state]
      for _ in 0..<4 {
        let opened = try reopen(disk, options)
        // Behind a crash the history goes on from what survived.
        try #require(states.contains(opened.state), "seed \(seed): not a state from the last sync on")
        states = [opened.state]
        history = ModelHistory(seed: generator.next(), from: opened.state)
        history.maximumPayloadBytes = 900
        var synced = 0
        for _ in 0..<generator.below(40) {
          opened.log.stage(history.next())
          try opened.log.writeBatch()
          states.append(history.state)
          if generator.below(3) == 0 {
            try opened.log.synchronize()
            if generator.below(2) == 0 { try opened.log.writeMark(durably: generator.below(2) == 0) }
            synced = states.count - 1
          }
          if options.writeMode == .direct, options.blockBytes == 4096 { synced = states.count - 1 }
        }
        states.removeFirst(synced)
        if generator.below(4) == 0 { disk.kill() } else { disk.crash() }
      }
    }
  }
}
