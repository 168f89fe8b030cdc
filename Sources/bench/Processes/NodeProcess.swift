import ArgumentParser
import CWeir
import Foundation
import Gossip
import Load
import Logging
import Synchronization
import WeirCache
import WeirCore
import WeirStorage
import WeirTransport

/// `bench node-process`: one node as a process of its own, driven by lines on standard input. Started by commands that
/// keep each node in a process, and ended with them: by the end of its input, and by the kernel should its parent be
/// killed.
///
/// The nodes find each other by gossip.
///
///     out: address 127.0.0.1:4712 127.0.0.1:4713    (for clients, for gossip)
///     in:  join 127.0.0.1:4713                       out: joined
///     in:  start                                     out: started    (once it knows all the others)
///     in:  report                                    out: a `NodeReport` as JSON
///     in:  snapshot                                  out: begun      (`NodeReport.snapshots` counts)
///     in:  stop                                      out: stopped
struct NodeProcess: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "node-process", abstract: "One node, for the commands that keep each in a process of its own.",
    shouldDisplay: false)

  @Option var id: UInt64
  @Option var nodes: Int
  @Option var cluster: UInt64
  @Option var parent: Int32
  @Option var tickMilliseconds: Int
  @Option var electionTicks: Int
  @Option var heartbeatTicks: Int
  @Option var sync: Durability
  @Option var directory: String?
  @Option var snapshotBytesPerSecond: Int?
  @OptionGroup var eventLoop: EventLoopOptions

  func validate() throws {
    guard (1...9).contains(nodes), (1...UInt64(nodes)).contains(id) else {
      throw ValidationError("--id must be 1 to --nodes, and --nodes 1...9")
    }
    guard sync == .memory || directory != nil else { throw ValidationError("--sync needs --directory") }
  }

  func run() throws {
    cweir_share_malloc_arena()
    // Ctrl-C goes to every process of the terminal. What becomes of it is the parent's to decide.
    for number in [SIGINT, SIGTERM] { signal(number, SIG_IGN) }
    // The kernel ends this process with its parent; asked after it was told so, in case the parent is gone already.
    guard cweir_end_with_parent(parent) == 1 else { return }
    var log = Logger(label: "weir.\(id)") { StreamLogHandler.standardError(label: $0) }
    log.logLevel = .error
    let node = try Node(try settings(log))
    let server = try ClientServer(
      node: node,
      configuration: ClientServerConfiguration(
        listenAddress: try SocketAddress(host: "127.0.0.1", port: 0), eventLoop: eventLoop.configuration), log: log)
    let gossip = try GossipMembership(
      node: node, bind: GossipAddress(ip: IPAddress(127, 0, 0, 1), port: 0),
      clientAddress: server.address.description, membership: .local, log: log)
    defer {
      gossip.stop()
      server.stop()
      node.stop()
    }
    Self.say("address \(server.address) \(gossip.agent.address)")
    try serve(node, gossip)
  }

  private func settings(_ log: Logger) throws -> NodeConfiguration {
    var configuration = NodeConfiguration(
      id: id, clusterID: cluster, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0),
      initialVoters: (1...UInt64(nodes)).map { $0 }, seed: cluster &+ id, log: log)
    configuration.eventLoop = eventLoop.configuration
    configuration.tickNanoseconds = UInt64(tickMilliseconds) * 1_000_000
    configuration.electionTicks = electionTicks
    configuration.heartbeatTicks = heartbeatTicks
    if let snapshotBytesPerSecond { configuration.snapshotBytesPerSecond = snapshotBytesPerSecond }
    if let directory, let policy = sync.syncPolicy {
      configuration.storage = .files(directory: directory, sync: policy)
    }
    return configuration
  }

  private func serve(_ node: Node, _ gossip: GossipMembership) throws {
    let snapshots = CountedSnapshots()
    _ = node.observe { event in
      if case .snapshotInstalled = event { snapshots.installed.wrappingAdd(1, ordering: .releasing) }
    }
    while let line = readLine() {
      let words = line.split(separator: " ").map(String.init)
      switch words.first {
      case "join" where words.count == 2:
        guard let address = GossipAddress(words[1]) else { throw UsageError("no address: \(words[1])") }
        try gossip.join([address])
        Self.say("joined")
      case "start":
        try waitForOthers(gossip)
        node.start()
        Self.say("started")
      case "report":
        Self.say(try NodeReport(of: node, gossip.statistics, snapshots).line())
      case "snapshot":
        node.writeSnapshot { result in
          if case .success = result {
            snapshots.count.wrappingAdd(1, ordering: .releasing)
          } else {
            snapshots.refused.wrappingAdd(1, ordering: .releasing)
          }
        }
        Self.say("begun")
      case "stop": return Self.say("stopped")
      default: throw UsageError("node-process does not understand '\(line)'")
      }
    }
  }

  /// A node that starts before it knows the others loses its first election and waits for the next.
  private func waitForOthers(_ gossip: GossipMembership) throws {
    let deadline = cweir_monotonic_nanoseconds() + 30_000_000_000
    while gossip.introducedNodes.count < nodes - 1 {
      guard cweir_monotonic_nanoseconds() < deadline else { throw IntroductionTimeout() }
      usleep(1000)
    }
  }

  private static func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }
}

/// How many snapshots were written because they were asked for, and how many came from a leader.
final class CountedSnapshots: Sendable {
  let count = Atomic<UInt64>(0)
  let installed = Atomic<UInt64>(0)
  /// Those that could not be: one was being written already.
  let refused = Atomic<UInt64>(0)
}

/// What a node process says of itself.
struct NodeReport: Codable {
  var id: UInt64
  var isLeader: Bool
  var holdsLease: Bool
  var leader: UInt64
  var commitIndex: UInt64
  var appliedIndex: UInt64
  var stateHash: UInt64
  var keys: UInt64
  /// Bytes of keys and values.
  var liveBytes: UInt64
  /// The most memory that this process has had resident.
  var peakResidentBytes: UInt64
  var snapshots: UInt64
  var snapshotsRefused: UInt64
  /// States of a leader that took the place of this node's own.
  var snapshotsInstalled: UInt64
  var processCPUNanoseconds: UInt64
  var messagesSent: UInt64
  var bytesSent: UInt64
  var messagesDropped: UInt64
  var wakeups: UInt64
  var syncs: UInt64
  var electionsWon: UInt64
  var gossipPackets: UInt64
  var gossipBytes: UInt64
  var gossipCPUNanoseconds: UInt64
  /// Why the node has ended, if it has.
  var failure: String?

  init(of node: Node, _ gossip: GossipStatistics, _ snapshots: CountedSnapshots) {
    self.snapshots = snapshots.count.load(ordering: .acquiring)
    snapshotsRefused = snapshots.refused.load(ordering: .acquiring)
    snapshotsInstalled = snapshots.installed.load(ordering: .acquiring)
    let status = node.status
    let counters = node.counters
    id = node.id
    isLeader = node.isLeader
    holdsLease = node.holdsLease
    leader = status.leader
    commitIndex = status.commitIndex
    appliedIndex = status.appliedIndex
    stateHash = node.store.stateHash
    keys = UInt64(node.store.count)
    liveBytes = UInt64(node.store.liveBytes)
    peakResidentBytes = Self.peakResidentBytes()
    processCPUNanoseconds = cweir_process_cpu_nanoseconds()
    messagesSent = counters.messagesSent
    bytesSent = counters.bytesSent
    messagesDropped = counters.messagesDropped
    wakeups = counters.wakeups
    syncs = counters.syncs
    electionsWon = counters.electionsWon
    gossipPackets = UInt64(gossip.packetsSent)
    gossipBytes = UInt64(gossip.packetBytesSent) + UInt64(gossip.streamBytesSent)
    gossipCPUNanoseconds = gossip.cpuNanoseconds
    failure = node.failure
  }

  /// VmHWM of this process, 0 where there is none.
  private static func peakResidentBytes() -> UInt64 {
    guard let text = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8),
      let line = text.split(separator: "\n").first(where: { $0.hasPrefix("VmHWM:") }),
      let kibibytes = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap({ UInt64($0) })
    else { return 0 }
    return kibibytes * 1024
  }

  func line() throws -> String { String(decoding: try JSONEncoder().encode(self), as: UTF8.self) }
}
