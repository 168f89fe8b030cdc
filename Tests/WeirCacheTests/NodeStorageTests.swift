import CWeir
import Dispatch
import Foundation
import Logging
import Synchronization
import TestSupport
import Testing
import WeirCore
import WeirStorage
import WeirTransport

@testable import WeirCache

/// Real nodes whose disks are simulated, or held up.
@Suite("Nodes and their disks", .serialized)
struct NodeStorageTests {
  private static func useDisk(_ configuration: inout NodeConfiguration, _ disk: any FileSystem) {
    configuration.storage = .files(directory: "/node-\(configuration.id)", sync: .always)
    configuration.fileSystem = disk
    // What is said here is said on purpose.
    configuration.log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    configuration.logOptions = LogOptions(segmentBytes: 16 << 10, writeMode: .buffered, zeroFill: false)
    configuration.snapshotAfterBytes = 24 << 10
  }

  private static func makeNode(_ disk: any FileSystem, log: Logger? = nil) throws -> Node {
    var configuration = NodeConfiguration(
      id: 1, clusterID: 9, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0), initialVoters: [1], seed: 3,
      log: quietLog())
    useDisk(&configuration, disk)
    if let log { configuration.log = log }
    configuration.tickNanoseconds = 2_000_000
    return try Node(configuration, network: InMemoryNetwork())
  }

  /// What came of writing to a node until it ended, or had enough.
  private struct Life {
    var acknowledged: Set<Int> = []
    var wasRefusedAfterFailure = true
    var failure: String?
  }

  /// Writes to a node of its own until its disk fails or `count` writes are acknowledged.
  private static func live(_ disk: any FileSystem, from first: Int, count: Int) throws -> Life {
    var life = Life()
    let node: Node
    do { node = try makeNode(disk) } catch {
      // The disk failed while the log was opened: nothing was promised.
      life.failure = "\(error)"
      return life
    }
    defer { node.stop() }
    node.start()
    guard eventually(60, { node.isLeader || node.failure != nil }) else { throw HarnessError("no leader") }
    if let client = try? TestClient(node) {
      var next = first
      while life.failure == nil, next < first + count {
        let submitted = (next..<next + 8).map { number in
          (UInt32(number), setCommand("k\(number)", "v\(number)" + String(repeating: "x", count: 90)))
        }
        next += 8
        let before = client.outcomes.count
        let isTaken = client.submit(submitted)
        guard eventually(60, { node.failure != nil || !isTaken || client.wait(for: before + 8, seconds: 0.01) }) else {
          throw HarnessError("neither an answer nor an end")
        }
        life.failure = node.failure
      }
      _ = client.wait(for: .max, seconds: 0.001)
      life.acknowledged = Set(client.outcomes.filter { $0.value == .appliedFresh }.map { Int($0.key) })
      if life.failure != nil {
        let late = UInt32(1_000_000)
        let isTaken = client.submit([(late, setCommand("late", "write"))])
        _ = client.wait(for: .max, seconds: 0.001)
        life.wasRefusedAfterFailure = !isTaken || client.outcomes[late]?.isApplied != true
      }
    }
    return life
  }

  @Test("A torn tail is cut, and said")
  func tornTail() throws {
    let disk = SimulatedFileSystem(seed: 1)
    let life = try Self.live(disk, from: 0, count: 40)
    #expect(life.acknowledged.count == 40)
    let path = try #require(try disk.list("/node-1/log").last { $0.hasSuffix(".wal") }.map { "/node-1/log/" + $0 })
    var bytes = try #require(disk.contents(of: path))
    let end = try #require(bytes.lastIndex { $0 != 0 }) / 4096 * 4096 + 4096
    // What a write that never came to its end has left.
    for position in end..<end + 100 { bytes[position] = 0x77 }
    disk.setContents(of: path, to: bytes)
    let lines = LogLines()
    let node = try Self.makeNode(disk, log: lines.logger())
    defer { node.stop() }
    let said = lines.all.filter { $0.contains("torn tail") }
    #expect(said.count == 1 && said.first?.contains(path) == true && said.first?.contains("byte \(end)") == true)
    node.start()
    #expect(eventually { node.isLeader && node.store.get(Array("k39".utf8)) != nil })
  }

  /// Numbers of the operations that are made to fail: all of the first, then fewer.
  private static let sites: [Int] = Array(0..<36) + Array(stride(from: 36, to: 400, by: 13))

  @Test("EIO at each call of a node's life: it ends, acknowledges nothing after, and a power cut loses nothing")
  func everyCallSite() throws {
    var ended = 0
    var slowest: UInt64 = 0
    for site in Self.sites {
      let disk = SimulatedFileSystem(seed: UInt64(site))
      disk.faults.failures = [site: 5]
      let begin = cweir_monotonic_nanoseconds()
      let life = try Self.live(disk, from: 0, count: 2000)
      slowest = max(slowest, cweir_monotonic_nanoseconds() - begin)
      if life.failure != nil { ended += 1 }
      #expect(life.wasRefusedAfterFailure, "operation \(site): a write was acknowledged after the failure")
      disk.faults = SimulatedFaults()
      disk.crash(survivalPerMille: 0)
      let node = try Self.makeNode(disk)
      defer { node.stop() }
      node.start()
      guard eventually(60, { node.isLeader }) else {
        throw HarnessError("operation \(site): no leader after a restart")
      }
      guard eventually(60, { node.status.appliedIndex == node.status.lastIndex && node.status.lastIndex > 0 }) else {
        throw HarnessError("operation \(site): its log is not applied")
      }
      let lost = life.acknowledged.filter { node.store.get(Array("k\($0)".utf8)) == nil }
      #expect(lost.isEmpty, "operation \(site): \(lost.count) of \(life.acknowledged.count) writes are lost")
    }
    #expect(ended * 10 > Self.sites.count * 9, "\(ended) of \(Self.sites.count) failures were met")
  }

  /// A disk on which, from some moment on, no segment of a log can be made.
  private final class FullDisk: Sendable {
    private struct State {
      var isFull = false
      var created = 0
      var named = 0
      var refused = 0
    }

    private let state = Mutex(State())
    private let gate = Gate()
    /// Whether the preparation of a segment, which runs beside the writing, is held up until `release`.
    let isPreparationHeldUp: Bool

    init(isPreparationHeldUp: Bool) { self.isPreparationHeldUp = isPreparationHeldUp }

    /// Every segment of the log that has been begun has had the next one prepared, or at least tried.
    var isPreparationDone: Bool { state.withLock { $0.created > $0.named } }
    var hasRefused: Bool { state.withLock { $0.refused > 0 } }

    func fill() {
      if isPreparationHeldUp { gate.close() }
      state.withLock { $0.isFull = true }
    }

    func release() { gate.open() }

    func intercept(_ operation: FileError.Operation, _ path: String) throws(FileError) {
      guard path.contains("/spare-") else { return }
      let number: Int? = state.withLock { state in
        switch operation {
        case .create: state.created += 1
        case .rename: state.named += 1
        default: break
        }
        guard operation == .create, state.isFull else { return nil }
        state.refused += 1
        return state.refused
      }
      guard let number else { return }
      // The preparation comes first; who is held up is followed by the writer, whose segment is full by then.
      if number == 1 { gate.pass() }
      throw FileError(operation: .create, path: path, code: 28)
    }
  }

  @Test(
    "A full disk, met by the preparation or by the writer: writes are refused with a reason, reads go on, all is kept",
    arguments: [false, true])
  func diskFull(isMetByWriter: Bool) throws {
    let disk = SimulatedFileSystem(seed: 5)
    let full = FullDisk(isPreparationHeldUp: isMetByWriter)
    defer { full.release() }
    let intercepted = InterceptedFileSystem(disk) { (operation, path) throws(FileError) in
      try full.intercept(operation, path)
    }
    let node = try Self.makeNode(intercepted)
    node.start()
    guard eventually(60, { node.isLeader }) else { throw HarnessError("no leader") }
    let client = try TestClient(node)
    var number = 0
    var refused: [UInt32] = []
    while refused.isEmpty, number < 100 {
      let token = UInt32(number)
      #expect(client.submit([(token, setCommand("k\(number)", String(repeating: "x", count: 200)))]))
      guard client.wait(for: number + 1) else { throw HarnessError("no answer") }
      if client.outcomes[token] != .appliedFresh { refused.append(token) }
      number += 1
      if isMetByWriter, full.hasRefused { continue }
      // The next segment is prepared beside the writing, which waits here until that has been tried.
      guard eventually(60, { full.isPreparationDone }) else { throw HarnessError("nothing is prepared") }
      if number == 5 { full.fill() }
      if full.hasRefused, !isMetByWriter {
        guard eventually(60, { node.isOutOfSpace }) else { throw HarnessError("the warning does not arrive") }
      }
    }
    #expect(refused.map { client.outcomes[$0] } == [.outOfSpace])
    #expect(number > 5)
    // And so is everything that comes after.
    let late = UInt32(number)
    #expect(client.submit([(late, setCommand("k\(late)", "late"))]) && client.wait(for: number + 1))
    #expect(client.outcomes[late] == .outOfSpace)
    refused.append(late)
    #expect(node.isOutOfSpace)
    #expect(node.failure == nil, "the node is still there")
    #expect(client.confirmRead() == true)
    let kept = client.outcomes.filter { $0.value == .appliedFresh }.map(\.key)
    #expect(kept.count == number - 1)
    for token in kept { #expect(node.store.get(Array("k\(token)".utf8)) != nil) }
    full.release()
    node.stop()
    disk.crash(survivalPerMille: 0)
    let again = try Self.makeNode(disk)
    defer { again.stop() }
    again.start()
    guard eventually(60, { again.isLeader && again.status.appliedIndex == again.status.lastIndex }) else {
      throw HarnessError("no leader after the restart")
    }
    #expect(!again.isOutOfSpace)
    for token in kept { #expect(again.store.get(Array("k\(token)".utf8)) != nil) }
    for token in refused { #expect(again.store.get(Array("k\(token)".utf8)) == nil, "it was said to have no effect") }
    let second = try TestClient(again)
    #expect(second.submit([(1, setCommand("new", "write"))]) && second.wait(for: 1))
    #expect(second.outcomes[1] == .appliedFresh)
  }

  @Test("A leader whose disk is full hands over to a member that has room, and writing goes on")
  func leaderOutOfSpace() throws {
    let disks = (1...3).map { SimulatedFileSystem(seed: $0) }
    try withCluster(adjust: { Self.useDisk(&$0, disks[Int($0.id - 1)]) }) { cluster, leader in
      disks[Int(leader.id - 1)].faults.capacityBytes = 40 << 10
      var number = 0
      let succeeded = eventually {
        guard let current = cluster.leader, let client = try? TestClient(current) else { return false }
        for _ in 0..<20 {
          number += 1
          let command = setCommand("k\(number)", String(repeating: "x", count: 300))
          guard client.submit([(UInt32(number), command)]), client.wait(for: client.outcomes.count + 1, seconds: 1)
          else { return false }
        }
        return current.id != leader.id && client.outcomes.values.allSatisfy(\.isApplied)
      }
      #expect(succeeded)
      #expect(leader.isOutOfSpace || leader.failure != nil)
    }
  }

  @Test("The pace of a snapshot: rests add up to what the bytes take, and no rest is long")
  func pace() {
    var pace = Pace(bytesPerSecond: 1_000_000, nowNanoseconds: 1000)
    var now: UInt64 = 1000
    for _ in 0..<1000 {
      now += 50_000
      let pause = pace.pauseNanoseconds(after: 10_000, nowNanoseconds: now)
      #expect(pause <= Pace.longestPauseNanoseconds)
      now += pause
    }
    #expect(now - 1000 == 10_000_000_000)
    var unlimited = Pace(bytesPerSecond: .max, nowNanoseconds: 0)
    #expect(unlimited.pauseNanoseconds(after: 1 << 40, nowNanoseconds: 1) == 0)
  }

  @Test("A capture looks at a bounded number of records at a time, however many there are, while writes go on")
  func captureSteps() throws {
    let store = KeyValueStore(shardCount: 16, hashSeed: 1)
    let value = [UInt8](repeating: 7, count: 32)
    for number in 0..<100_000 {
      let command = try Command.encode(.set, key: Array("key\(number)".utf8), value: value)
      store.apply(command.span.bytes)
    }
    let capture = store.beginCapture()
    var bytes = 0
    var steps = 0
    var most = 0
    while let chunk = try capture.nextChunk(targetBytes: 64 << 10) {
      // Whole records, and at most one beyond what was asked for.
      most = max(most, chunk.count)
      bytes += chunk.count
      steps += 1
      for number in 0..<50 {
        let key = "key\((steps * 50 + number) % 100_000)"
        let command = try Command.encode(.set, key: Array(key.utf8), value: [UInt8](repeating: 8, count: 40))
        store.apply(command.span.bytes)
      }
    }
    #expect(most <= (64 << 10) + 8 + 16 + 48)
    #expect(steps >= bytes / (64 << 10))
    #expect(bytes == (0..<100_000).reduce(0) { $0 + 8 + "key\($1)".utf8.count + 32 }, "the state of when it began")
  }
}
