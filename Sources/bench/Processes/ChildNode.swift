import Foundation
import Load
import Synchronization
import WeirCore
import WeirTransport

/// A node process as its parent sees it.
///
/// Sendable: the conversation lies under the lock, the rest is set before anybody else sees it.
final class ChildNode: @unchecked Sendable {
  let id: NodeID
  /// Where it listens for clients and for gossip.
  private(set) var clientAddress = ""
  private(set) var gossipAddress = ""
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private let lock = NSLock()
  private var buffer = Data()
  private let isExpectedToEnd = Atomic<Bool>(false)
  private let status = Mutex<String?>(nil)

  /// What jemalloc is told, where it serves a node's process; it has to know before the process begins: one arena, for the
  /// reason that `cweir_share_malloc_arena` gives for glibc's malloc. 398 MiB for 137 MiB of keys and values that were all
  /// overwritten 6 times, 277 with one (`bench memory`). What embeds a node and loads it from threads of its own is left
  /// several: there one arena costs about a fifth more processor time a write.
  private static let mallocConfiguration = "narenas:1"

  /// Starts it. On a thread that lives as long as the child shall: the kernel ends a child together with the *thread* that
  /// made it.
  /// - Parameter snapshotBytesPerSecond: how fast it writes its snapshots at most; nil: as nodes do by themselves.
  init(
    id: NodeID, cluster: UInt64, configuration: ClusterConfiguration, eventLoop: EventLoopConfiguration,
    snapshotBytesPerSecond: Int? = nil
  ) throws {
    self.id = id
    process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    var arguments = ["node-process"]
    let options: [(String, String)] = [
      ("id", "\(id)"), ("nodes", "\(configuration.nodes)"), ("cluster", "\(cluster)"), ("parent", "\(getpid())"),
      ("tick-milliseconds", "\(configuration.tickMilliseconds)"),
      ("election-ticks", "\(configuration.electionTicks)"), ("heartbeat-ticks", "\(configuration.heartbeatTicks)"),
      ("sync", configuration.durability.description), ("mechanism", eventLoop.mechanism.rawValue),
      ("repoll", "\(eventLoop.repollNanoseconds / 1000)"),
    ]
    for (name, value) in options { arguments += ["--\(name)", value] }
    arguments.append(eventLoop.callersDrive ? "--callers-drive" : "--no-callers-drive")
    if let snapshotBytesPerSecond { arguments += ["--snapshot-bytes-per-second", "\(snapshotBytesPerSecond)"] }
    if let directory = configuration.directory { arguments += ["--directory", "\(directory)/node-\(id)"] }
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(["MALLOC_CONF": Self.mallocConfiguration]) {
      given, _ in given
    }
    process.standardInput = input
    process.standardOutput = output
    process.terminationHandler = { [weak self] process in self?.ended(process) }
    try process.run()
    let words = try lock.withLock { try receive() }.split(separator: " ").map(String.init)
    guard words.count == 3, words[0] == "address" else { throw TargetError("node process \(id) did not start") }
    clientAddress = words[1]
    gossipAddress = words[2]
  }

  /// Whatever happens to the parent's own run, no child outlives it.
  deinit { end() }

  var processID: Int32 { process.processIdentifier }

  /// How it ended, if it did although nobody asked it to.
  var unexpectedEnd: String? { status.withLock { $0 } }

  private func ended(_ process: Process) {
    guard !isExpectedToEnd.load(ordering: .acquiring) else { return }
    let kind = process.terminationReason == .uncaughtSignal ? "signal" : "status"
    let text = "node process \(id) ended unexpectedly, with \(kind) \(process.terminationStatus)"
    status.withLock { $0 = text }
    FileHandle.standardError.write(Data("bench: \(text)\n".utf8))
  }

  // MARK: Conversation

  /// Sends a line and returns the one that answers it.
  func ask(_ line: String) throws -> String {
    try lock.withLock {
      try send(line)
      return try receive()
    }
  }

  func report() throws -> NodeReport {
    let report = try JSONDecoder().decode(NodeReport.self, from: Data(try ask("report").utf8))
    if let failure = report.failure { throw TargetError("node \(id) has ended: \(failure)") }
    return report
  }

  private func send(_ line: String) throws {
    if let text = unexpectedEnd { throw TargetError(text) }
    try input.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8))
  }

  private func receive() throws -> String {
    while true {
      if let end = buffer.firstIndex(of: 10) {
        let line = String(decoding: buffer[buffer.startIndex..<end], as: UTF8.self)
        buffer = Data(buffer[buffer.index(after: end)...])
        return line
      }
      let more = output.fileHandleForReading.availableData
      guard !more.isEmpty else { throw TargetError(unexpectedEnd ?? "node process \(id) has ended") }
      buffer.append(more)
    }
  }

  // MARK: Ends

  /// Freezes or thaws the whole process, as a machine does that hangs.
  func setStopped(_ isStopped: Bool) { kill(process.processIdentifier, isStopped ? SIGSTOP : SIGCONT) }

  /// Ends it, by force if it does not listen. Returns when it has ended.
  func end() {
    isExpectedToEnd.store(true, ordering: .releasing)
    guard process.isRunning else { return }
    setStopped(false)
    try? input.fileHandleForWriting.close()
    let patience = Date().addingTimeInterval(5)
    while process.isRunning, Date() < patience { usleep(2000) }
    if process.isRunning { kill(process.processIdentifier, SIGKILL) }
    process.waitUntilExit()
  }
}
