import ArgumentParser
import CWeir
import Foundation
import Load
import Logging
import WeirCache
import WeirCore
import WeirTransport

/// `bench node-process`: one node as a process of its own, driven by lines on standard input. Started by
/// `bench processes`, and ended with it: by the end of its input, and by the kernel should the parent be killed.
///
///     out: address 127.0.0.1:4711
///     in:  peer 1 127.0.0.1:4711     (one line for each)
///     in:  start                     out: started
///     in:  transfer 1                out: transferred, or not
///     in:  report                    out: report <cpu ns> <messages> <bytes> <wake-ups> <applied index> <state hash>
///     in:  stop                      out: stopped
struct NodeProcess: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "node-process", abstract: "One node, for bench processes.", shouldDisplay: false)

  @Option var id: UInt64
  @Option var nodes: Int
  @Option var cluster: UInt64
  @Option var parent: Int32
  @Option var sync = Durability.memory
  /// The folder of this node alone.
  @Option(name: .customLong("data-dir")) var dataDir: String?
  @OptionGroup var eventLoop: EventLoopOptions

  func validate() throws {
    guard (1...9).contains(nodes), (1...UInt64(nodes)).contains(id) else {
      throw ValidationError("--id must be 1 to --nodes, and --nodes 1...9")
    }
  }

  func run() throws {
    // The kernel ends this process with its parent; asked after it was told so, in case the parent is gone already.
    guard cweir_end_with_parent(parent) == 1 else { return }
    let node = try Self.makeNode(
      id: id, nodes: nodes, cluster: cluster, eventLoop: eventLoop.configuration,
      storage: Self.storage(sync, in: dataDir))
    guard let address = node.address else { return }
    Self.say("address \(address)")
    while let line = readLine() {
      let words = line.split(separator: " ").map(String.init)
      switch words.first {
      case "peer" where words.count == 3:
        if let peer = UInt64(words[1]) { node.addPeer(peer, address: try SocketAddress(parsing: words[2])) }
      case "start":
        node.start()
        Self.say("started")
      case "transfer" where words.count == 2:
        Self.say(Self.transfer(node, to: UInt64(words[1]) ?? 0) ? "transferred" : "not")
      case "report": Self.say(Self.report(node))
      case "stop":
        node.stop()
        return Self.say("stopped")
      default: throw UsageError("node-process does not understand '\(line)'")
      }
    }
    node.stop()
  }

  /// Where a node of its own process keeps its log.
  static func storage(_ sync: Durability, in directory: String?) -> NodeStorage {
    guard let policy = sync.syncPolicy, let directory else { return .memory }
    return .files(directory: directory, sync: policy)
  }

  static func makeNode(
    id: UInt64, nodes: Int, cluster: UInt64, eventLoop: EventLoopConfiguration, storage: NodeStorage
  ) throws -> Node {
    var log = Logger(label: "weir")
    log.logLevel = .error
    var configuration = NodeConfiguration(
      id: id, clusterID: cluster, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0),
      initialVoters: (1...UInt64(nodes)).map { $0 }, seed: cluster &+ id, log: log)
    configuration.eventLoop = eventLoop
    configuration.storage = storage
    return try Node(configuration)
  }

  private static func transfer(_ node: Node, to target: UInt64) -> Bool {
    guard node.isLeader else { return false }
    let done = DispatchSemaphore(value: 0)
    let result = LockedFlag()
    Task {
      do {
        try await node.transferLeadership(to: target)
        result.set()
      } catch {}
      done.signal()
    }
    done.wait()
    return result.isSet
  }

  private static func report(_ node: Node) -> String {
    let counters = node.counters
    return "report \(cweir_process_cpu_nanoseconds()) \(counters.messagesSent) \(counters.bytesSent) "
      + "\(counters.wakeups) \(node.status.appliedIndex) \(node.store.stateHash) \(node.store.count)"
  }

  private static func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }
}

/// A flag that one thread sets and another reads.
final class LockedFlag: @unchecked Sendable {
  // Sendable: under the lock.
  private let lock = NSLock()
  private var value = false

  func set() { lock.withLock { value = true } }
  var isSet: Bool { lock.withLock { value } }
}

/// A node process as its parent sees it.
final class ChildNode {
  struct Report {
    var cpuNanoseconds: UInt64
    var messages: UInt64
    var bytes: UInt64
    var wakeups: UInt64
    var appliedIndex: UInt64
    var stateHash: UInt64
    var keys: UInt64
  }

  let id: UInt64
  private(set) var address = ""
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private var buffer = Data()

  init(
    id: UInt64, nodes: Int, cluster: UInt64, eventLoop: EventLoopOptions, sync: Durability, directory: String?
  ) throws {
    self.id = id
    process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    process.arguments = [
      "node-process", "--id", "\(id)", "--nodes", "\(nodes)", "--cluster", "\(cluster)", "--parent", "\(getpid())",
      "--mechanism", eventLoop.mechanism.rawValue, "--repoll", "\(eventLoop.repoll)",
      "--sync", sync.description,
    ]
    if let directory { process.arguments? += ["--data-dir", directory] }
    process.standardInput = input
    process.standardOutput = output
    try process.run()
    let line = try receive()
    guard line.hasPrefix("address ") else { throw UsageError("node \(id) did not start: '\(line)'") }
    address = String(line.dropFirst(8))
  }

  /// Whatever happens to the parent's own run, no child outlives it.
  deinit { end() }

  var isRunning: Bool { process.isRunning }
  var processID: Int32 { process.processIdentifier }

  func send(_ line: String) throws { try input.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8)) }

  /// The next line that the child writes.
  func receive() throws -> String {
    while true {
      if let end = buffer.firstIndex(of: 10) {
        let line = String(decoding: buffer[buffer.startIndex..<end], as: UTF8.self)
        buffer = Data(buffer[buffer.index(after: end)...])
        return line
      }
      let more = output.fileHandleForReading.availableData
      guard !more.isEmpty else { throw UsageError("node process \(id) has ended") }
      buffer.append(more)
    }
  }

  func ask(_ line: String) throws -> String {
    try send(line)
    return try receive()
  }

  func report() throws -> Report {
    let words = try ask("report").split(separator: " ").compactMap { UInt64($0) }
    guard words.count == 7 else { throw UsageError("node process \(id) answered nonsense") }
    return Report(
      cpuNanoseconds: words[0], messages: words[1], bytes: words[2], wakeups: words[3], appliedIndex: words[4],
      stateHash: words[5], keys: words[6])
  }

  func end() {
    guard process.isRunning else { return }
    try? input.fileHandleForWriting.close()
    let patience = Date().addingTimeInterval(5)
    while process.isRunning, Date() < patience { usleep(5000) }
    if process.isRunning { kill(process.processIdentifier, SIGKILL) }
    process.waitUntilExit()
  }
}
