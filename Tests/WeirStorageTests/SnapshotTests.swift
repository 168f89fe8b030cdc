import Testing
import WeirCore

@testable import WeirStorage

@Suite("Snapshots")
struct SnapshotTests {
  private static let configuration = ConfigurationState(
    voters: [1, 2, 3], votersOutgoing: [2, 3, 4], learners: [5], learnersNext: [4], autoLeave: true)

  private static func metadata(_ index: LogIndex, _ term: Term = 2) -> SnapshotMetadata {
    SnapshotMetadata(index: index, term: term, configuration: configuration)
  }

  private static func part(_ number: Int, _ byteCount: Int) -> [UInt8] {
    (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ number) }
  }

  private func write(
    _ store: SnapshotStore, _ metadata: SnapshotMetadata, parts: [[UInt8]]
  ) throws -> SnapshotStore.Stored {
    let writer = try store.create(metadata)
    for part in parts { try writer.append(part.span.bytes) }
    return try writer.finish()
  }

  private func read(_ store: SnapshotStore, _ stored: SnapshotStore.Stored) throws -> [[UInt8]] {
    var parts: [[UInt8]] = []
    try store.reader(stored).forEachChunk { part in parts.append(part.withUnsafeBytes { Array($0) }) }
    return parts
  }

  @Test(
    "what was written is read, with its configuration, after a power cut",
    arguments: [[], [10], [1, 1 << 20, 3], [700, 5_000]])
  func roundTrip(sizes: [Int]) throws {
    let disk = SimulatedFileSystem()
    let parts = sizes.enumerated().map { Self.part($0.offset, $0.element) }
    let store = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots")
    let stored = try write(store, Self.metadata(100), parts: parts)
    disk.crash(survivalPerMille: 0)
    let again = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots")
    let newest = try #require(try again.newest())
    #expect(newest == stored)
    #expect(newest.metadata.configuration == Self.configuration)
    #expect(try read(again, newest) == parts)
  }

  @Test("the newest ones are kept; one that was not finished leaves nothing")
  func retention() throws {
    let disk = SimulatedFileSystem()
    let store = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots", retained: 3)
    for index in 1...6 as ClosedRange<UInt64> { _ = try write(store, Self.metadata(index * 10), parts: [[1]]) }
    #expect(try store.list().map(\.metadata.index) == [60, 50, 40])
    let unfinished = try store.create(Self.metadata(70))
    try unfinished.append(Self.part(1, 3).span.bytes)
    disk.kill()
    let again = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots", retained: 3)
    #expect(try again.list().map(\.metadata.index) == [60, 50, 40])
    #expect(try disk.list("/snapshots").count == 3)
  }

  @Test(
    "a snapshot is written over one that is not retained any more: whole, of its own size, and nothing else is lost")
  func spareFile() throws {
    let disk = SimulatedFileSystem(seed: 4)
    let store = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots", retained: 2)
    func parts(_ index: UInt64) -> [[UInt8]] { (0..<Int(index % 7)).map { Self.part($0 + Int(index), 300_000) } }
    for index in 1...20 as ClosedRange<UInt64> {
      let writer = try store.create(Self.metadata(index))
      for part in parts(index) { try writer.append(part.span.bytes) }
      let stored = try writer.finish(keepsSpare: true)
      #expect(disk.contents(of: stored.path)?.count == stored.fileBytes)
      #expect(try store.list().map(\.metadata.index) == [index, index - 1].filter { $0 > 0 })
      // Two that count, and one to be written over.
      #expect(try disk.list("/snapshots").count == min(Int(index), 3))
      for stored in try store.list() { #expect(try read(store, stored) == parts(stored.metadata.index)) }
    }
  }

  @Test("a power cut at each operation of a snapshot that is written over another: those that are retained are whole")
  func crashOverSpare() throws {
    func work(_ disk: SimulatedFileSystem, _ newest: inout UInt64) throws {
      let store = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots", retained: 2)
      for index in 1...5 as ClosedRange<UInt64> {
        let writer = try store.create(Self.metadata(index))
        try writer.append(Self.part(Int(index), 900).span.bytes)
        _ = try writer.finish(keepsSpare: true)
        newest = index
      }
    }
    let clean = SimulatedFileSystem()
    var newest: UInt64 = 0
    try work(clean, &newest)
    #expect(newest == 5)
    for number in 0..<clean.operationCount {
      for seed in 0..<4 as Range<UInt64> {
        let disk = SimulatedFileSystem(seed: seed)
        disk.faults.failures = [number: 5]
        newest = 0
        do {
          try work(disk, &newest)
          Issue.record("operation \(number) did not fail")
        } catch is StorageError {}
        disk.faults = .init()
        disk.crash()
        let store = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots", retained: 2)
        let kept = try store.list()
        try #require(kept.first?.metadata.index ?? 0 >= newest, "operation \(number): a finished one is gone")
        for stored in kept {
          let parts = try read(store, stored)
          try #require(parts == [Self.part(Int(stored.metadata.index), 900)], "operation \(number)")
        }
      }
    }
  }

  @Test(
    "on real files, of all sizes around a write and a page", arguments: [0, 1, 3900, 4096, 65_000, 65_536, 300_000])
  func realFiles(byteCount: Int) throws {
    try withTemporaryDirectory { directory in
      let store = try SnapshotStore.open(fileSystem: RealFileSystem(), directory: directory)
      let part = Self.part(5, byteCount)
      let stored = try write(store, Self.metadata(40), parts: [part])
      #expect(try store.newest() == stored)
      #expect(try read(store, stored) == (byteCount == 0 ? [] : [part]))
      let size = try RealFileSystem().openForReading(stored.path).sizeBytes()
      #expect(size == stored.fileBytes)
    }
  }

  @Test("a damaged snapshot is passed over for the one before; every bit counts")
  func damage() throws {
    let disk = SimulatedFileSystem()
    let store = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots", retained: 3)
    let older = try write(store, Self.metadata(10), parts: [[9]])
    let newer = try write(store, Self.metadata(20), parts: [Self.part(1, 100), Self.part(2, 60)])
    #expect(try store.newest() == newer)
    for byte in 0..<newer.fileBytes {
      for bit in 0..<8 {
        disk.flipBit(bit, ofByte: byte, in: newer.path)
        do {
          try #require(try store.newest() == older, "byte \(byte)")
        } catch let error as StorageError {
          guard case .unknownVersion = error else { throw error }
        }
        disk.flipBit(bit, ofByte: byte, in: newer.path)
      }
    }
    let bytes = try #require(disk.contents(of: newer.path))
    for length in 0..<bytes.count {
      disk.setContents(of: newer.path, to: Array(bytes[..<length]))
      try #require(try store.newest() == older, "length \(length)")
    }
    disk.setContents(of: newer.path, to: bytes + [0])
    #expect(try store.newest() == older)
  }

  @Test("chunks left out, swapped or doubled are noticed")
  func chunkOrder() throws {
    let disk = SimulatedFileSystem()
    let store = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots")
    let stored = try write(store, Self.metadata(20), parts: (0..<4).map { Self.part($0, 50) })
    let bytes = try #require(disk.contents(of: stored.path))
    let end = bytes.count - 24
    let chunks = (0..<4).map { Array(bytes[(end - (4 - $0) * 58)..<(end - (3 - $0) * 58)]) }
    let header = Array(bytes[..<(end - 4 * 58)])
    for order in [[0, 1, 2], [0, 1, 1, 2, 3], [0, 2, 1, 3], [1, 2, 3], [0, 1, 2, 3, 3]] {
      disk.setContents(
        of: stored.path, to: header + order.flatMap { chunks[$0] } + Array(bytes[end...]))
      #expect(throws: StorageError.self, "\(order)") { try store.verify(stored) }
    }
  }

  @Test("a part longer than a chunk is read as several, and nothing of it is lost")
  func longParts() throws {
    let disk = SimulatedFileSystem()
    let store = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots")
    // A value of the largest size with its key.
    let parts = [Self.part(1, 10), Self.part(2, (1 << 20) + 5000), Self.part(3, 3 << 20)]
    let stored = try write(store, Self.metadata(7), parts: parts)
    #expect(try store.newest() == stored)
    let read = try read(store, stored)
    #expect(read.count == 6)
    let isEqual = Array(read.joined()) == Array(parts.joined())
    #expect(isEqual)
  }

  @Test("a sealed snapshot does not count before it is published, and goes with the next start")
  func sealed() throws {
    let disk = SimulatedFileSystem()
    let store = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots")
    let older = try write(store, Self.metadata(10), parts: [[1]])
    let writer = try store.create(Self.metadata(20))
    try writer.append(Self.part(2, 900).span.bytes)
    try writer.seal()
    try writer.verify()
    #expect(try store.newest() == older)
    let crashed = disk.copy()
    crashed.crash(survivalPerMille: 1000)
    let again = try SnapshotStore.open(fileSystem: crashed, directory: "/snapshots")
    #expect(try again.newest() == older)
    #expect(try crashed.list("/snapshots").count == 1)
    let stored = try writer.publish()
    disk.crash(survivalPerMille: 0)
    let last = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots")
    #expect(try last.newest() == stored)
    #expect(try read(last, stored) == [Self.part(2, 900)])
    // Given up, it leaves nothing.
    let unwanted = try last.create(Self.metadata(30))
    try unwanted.seal()
    unwanted.cancel()
    #expect(try disk.list("/snapshots").count == 2)
  }

  @Test("what the disk made of a sealed snapshot is seen before it gets its name; every bit counts")
  func damageBeforePublishing() throws {
    let disk = SimulatedFileSystem()
    let store = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots")
    let writer = try store.create(Self.metadata(20))
    try writer.append(Self.part(1, 40).span.bytes)
    try writer.seal()
    let path = "/snapshots/" + (try #require(try disk.list("/snapshots").first))
    let size = try #require(disk.contents(of: path)).count
    for byte in 0..<size {
      disk.flipBit(byte, ofByte: byte, in: path)
      #expect(throws: StorageError.self, "byte \(byte)") { try writer.verify() }
      disk.flipBit(byte, ofByte: byte, in: path)
    }
    try writer.verify()
  }

  @Test("an error at each file operation, and a crash after it: the older or the newer snapshot is there, whole")
  func errorEverywhere() throws {
    func work(_ disk: SimulatedFileSystem) throws {
      let store = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots", retained: 1)
      _ = try write(store, Self.metadata(20), parts: [Self.part(2, 900)])
      let writer = try store.create(Self.metadata(30))
      try writer.append(Self.part(3, 900).span.bytes)
      try writer.seal()
      try writer.verify()
      _ = try writer.publish(keepsSpare: true)
    }
    let base = SimulatedFileSystem()
    let first = try SnapshotStore.open(fileSystem: base, directory: "/snapshots", retained: 1)
    _ = try write(first, Self.metadata(10), parts: [Self.part(1, 900)])
    let clean = base.copy()
    try work(clean)
    let operations = clean.operationCount
    for number in 0..<operations {
      let disk = base.copy(seed: UInt64(number))
      disk.faults.failures = [number: 5]
      #expect(throws: StorageError.self, "operation \(number)") { try work(disk) }
      disk.faults = .init()
      disk.crash()
      let store = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots", retained: 1)
      let newest = try #require(try store.newest(), "operation \(number)")
      #expect([10, 20, 30].contains(newest.metadata.index))
      _ = try read(store, newest)
    }
  }
}
