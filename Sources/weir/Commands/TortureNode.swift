import ArgumentParser
import CWeir
import Dispatch
import Foundation
import Logging
import Synchronization
import WeirCache
import WeirCore
import WeirStorage
import WeirTransport

/// `weir torture-node`: a node that writes as fast as it may while it leads, until it is killed, and says on standard
/// output what was acknowledged. Whoever kills it starts it again and asks what is missing (`NodeTortureTests`).
///
///     out: address 127.0.0.1:4711
///     in:  peer 2 127.0.0.1:4712     (one line for each)
///     in:  start                     out: started
///                                    out: a 17 18 19         (writes that were acknowledged, as they are)
///                                    out: fault WRITE PATH   (the failure that was asked for strikes)
///                                    out: failed WHY         (the node has ended by itself; exit code 70 follows)
///     in:  rest                      out: resting            (no more writes, and none under way)
///     in:  status                    out: status <leads 0/1> <applied> <commit> <state hash> <keys>
///     in:  missing 1 4 10-20 25-25   out: missing 0           (of the writes of node 1 in its life 4, locally)
///     in:  stop                      out: stopped
struct TortureNode: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "torture-node", abstract: "A node that writes until it is killed; for tests.", shouldDisplay: false)

  @Option var id: UInt64
  @Option var nodes: Int
  @Option(help: "Counts how often this node was started: part of every key.") var life: UInt64
  @Option(name: .customLong("data-dir")) var dataDir: String
  @Option var sync = "always"
  @Flag(help: "Hold writes in memory until they are synced, so that a kill is a power cut.") var holdUntilSync = false
  @Flag(help: "Write through the cache and sync, in place of direct writes.") var buffered = false
  @Option(help: "Where to fail: OPERATION:NUMBER:ERRNO, the number from 0 counted from the start of the node.")
  var fail: String?

  func run() throws {
    let output = LineOutput()
    let node = try Node(makeConfiguration(output))
    guard let address = node.address else { return }
    output.write("address \(address)")
    let writer = try TortureWriter(node: node, life: life, output: output)
    watch(node, output)
    while let line = readLine() {
      let words = line.split(separator: " ").map(String.init)
      switch words.first {
      case "peer" where words.count == 3:
        if let peer = UInt64(words[1]) { node.addPeer(peer, address: try SocketAddress(parsing: words[2])) }
      case "start":
        node.start()
        writer.start()
        output.write("started")
      case "rest":
        writer.rest()
        output.write("resting")
      case "status":
        let status = node.status
        output.write(
          "status \(node.isLeader ? 1 : 0) \(status.appliedIndex) \(status.commitIndex) \(node.store.stateHash) "
            + "\(node.store.count)")
      case "missing" where words.count >= 3: output.write("missing \(Self.missing(words, node))")
      case "stop":
        writer.rest()
        node.stop()
        return output.write("stopped")
      default: throw ValidationError("torture-node does not understand '\(line)'")
      }
    }
    node.stop()
  }

  private func makeConfiguration(_ output: LineOutput) throws -> NodeConfiguration {
    guard let policy = SyncPolicy(sync) else { throw ValidationError("--sync is always, interval:<ms> or off") }
    let log = Logger(label: "weir") { _ in SwiftLogNoOpLogHandler() }
    var configuration = NodeConfiguration(
      id: id, clusterID: 0x7072_7475, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0),
      initialVoters: (1...UInt64(nodes)).map { $0 }, seed: id &+ life &* 1000, log: log)
    configuration.tickNanoseconds = 15_000_000
    configuration.storage = .files(directory: dataDir, sync: policy)
    configuration.logOptions = LogOptions(
      segmentBytes: 256 << 10, writeMode: buffered ? .buffered : .direct, zeroFill: false)
    configuration.snapshotAfterBytes = 1 << 20
    let base: any FileSystem = holdUntilSync ? HoldUntilSyncFileSystem(leakSeed: id &+ life) : RealFileSystem()
    configuration.fileSystem = try fail.map { try Self.failing(base, $0, output) } ?? base
    return configuration
  }

  /// A file system whose operation of a kind and number fails.
  private static func failing(
    _ base: any FileSystem, _ text: String, _ output: LineOutput
  ) throws -> InterceptedFileSystem {
    let words = text.split(separator: ":")
    guard words.count == 3, let operation = FileError.Operation(rawValue: String(words[0])), let wanted = Int(words[1]),
      let code = Int32(words[2])
    else { throw ValidationError("--fail takes OPERATION:NUMBER:ERRNO") }
    let count = Mutex(0)
    return InterceptedFileSystem(base) { (kind, path) throws(FileError) in
      guard kind == operation else { return }
      let number = count.withLock { count in
        defer { count += 1 }
        return count
      }
      guard number == wanted else { return }
      output.write("fault \(kind.rawValue) \(path)")
      throw FileError(operation: kind, path: path, code: code)
    }
  }

  /// A node that has ended by itself ends its process.
  private func watch(_ node: Node, _ output: LineOutput) {
    Thread.detachNewThread {
      while true {
        if let failure = node.failure {
          output.write("failed \(failure)")
          Foundation.exit(70)
        }
        usleep(1000)
      }
    }
  }

  /// How many of the named writes this node does not hold as they were written.
  private static func missing(_ words: [String], _ node: Node) -> Int {
    var count = 0
    for range in words.dropFirst(3) {
      let ends = range.split(separator: "-").compactMap { UInt64($0) }
      guard ends.count == 2, ends[0] <= ends[1] else { continue }
      for number in ends[0]...ends[1] {
        let key = Array("\(words[1]).\(words[2]).\(number)".utf8)
        let value = node.store.get(key)
        if value?.starts(with: key) != true { count += 1 }
      }
    }
    return count
  }
}

/// Writes while its node leads, a bounded number at a time.
private final class TortureWriter: @unchecked Sendable {
  // Sendable: all but the flags is used by its own thread only.
  private let node: Node
  private let output: LineOutput
  private let keyPrefix: String
  private let lane: SessionLane
  private let parker = Parker()
  private let isResting = Atomic<Bool>(false)
  private let hasRested = DispatchSemaphore(value: 0)
  private let isStarted = Atomic<Bool>(false)

  init(node: Node, life: UInt64, output: LineOutput) throws {
    self.node = node
    self.output = output
    keyPrefix = "\(node.id).\(life)."
    lane = try node.openLane(capacity: 4096, parker: parker)
  }

  func start() {
    isStarted.store(true, ordering: .releasing)
    Thread.detachNewThread { self.work() }
  }

  /// Returns once no write is under way any more.
  func rest() {
    guard isStarted.load(ordering: .acquiring), !isResting.exchange(true, ordering: .acquiringAndReleasing) else {
      return
    }
    hasRested.wait()
  }

  private func work() {
    var next: UInt64 = 0
    var underWay = 0
    var builder = EntryBatchBuilder()
    // The token names a write within the newest 2^32.
    while true {
      let mayWrite = node.isLeader && !isResting.load(ordering: .acquiring)
      if mayWrite, underWay < 256 {
        let count = 1 + Int(next % 17)
        let first = next
        for number in first..<first + UInt64(count) { append(number, &builder) }
        next += UInt64(count)
        let tokens = (first..<next).map { UInt32(truncatingIfNeeded: $0) }
        if node.submit(builder.finish(), tokens: tokens, lane: lane) { underWay += count }
      }
      var acknowledged: [UInt32] = []
      underWay -= lane.drain { completion in
        if completion.outcome == .appliedFresh { acknowledged.append(completion.token) }
      }
      if !acknowledged.isEmpty { output.write("a " + acknowledged.map(String.init).joined(separator: " ")) }
      if isResting.load(ordering: .acquiring), underWay == 0 {
        hasRested.signal()
        return
      }
      if !mayWrite || underWay >= 256 {
        parker.park(untilNanoseconds: cweir_monotonic_nanoseconds() + 2_000_000)
      }
    }
  }

  private func append(_ number: UInt64, _ builder: inout EntryBatchBuilder) {
    let key = keyPrefix + String(number)
    let value = Array(key.utf8) + [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: Int(number % 300))
    if let command = try? Command.encode(.set, key: Array(key.utf8), value: value) { builder.append(payload: command) }
  }
}

/// Lines to standard output, each handed to the system at once and whole.
final class LineOutput: Sendable {
  private let lock = Mutex(())

  func write(_ line: String) {
    lock.withLock { _ in FileHandle.standardOutput.write(Data((line + "\n").utf8)) }
  }
}
