import ArgumentParser
import CWeir
import Foundation
import Gossip
import Logging
import WeirCache
import WeirCore
import WeirStorage
import WeirTransport

/// `weir node`: a member of a cluster, until it is told to stop.
struct NodeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "node", abstract: "Runs a node.",
    discussion: """
      The first node of a cluster is started with --bootstrap, every other one with --join and the HTTP address of any \
      member. What a node was told once is in its data directory: it is started again with the same options, or \
      without --bootstrap and --join.

        weir node --id 1 --bootstrap
        weir node --id 2 --http 127.0.0.1:6001 --raft 127.0.0.1:7001 --gossip 127.0.0.1:8001 --join 127.0.0.1:6000
        curl -L 'http://127.0.0.1:6001/set?key=a&value=1'

      SIGTERM and SIGINT hand a leadership over, say goodbye to the others, and end the node.
      """)

  @Option(help: "The node's number in its cluster, above 0; never used for another node.")
  var id: UInt64

  @Option(name: .customLong("data-dir"), help: "Folder of its log and snapshots. (default: ./weir-<id>)")
  var dataDirectory: String?

  @Option(help: "Where to serve HTTP clients.")
  var http = "127.0.0.1:6000"

  @Option(help: "Where to serve cache clients, in RESP2. (default: nowhere)")
  var resp: String?

  @Option(
    name: .customLong("resp-reads"),
    help: "How cache clients' reads are answered: safe, or lease, which costs no message and trusts clocks.")
  var respReads = "safe"

  @Option(help: "Where to listen for other nodes' Raft messages, and what they are told to connect to.")
  var raft = "127.0.0.1:7000"

  @Option(help: "Where to gossip, UDP and TCP.")
  var gossip = "127.0.0.1:8000"

  @Option(
    name: .customLong("gossip-join"),
    help: "Gossip addresses of other nodes, separated by commas; the rest is learned from them.")
  var gossipJoin = ""

  @Option(help: "HTTP addresses of members to join through, separated by commas.")
  var join = ""

  @Option(name: .customLong("join-timeout"), help: "Seconds until joining is given up.")
  var joinTimeout = 60

  @Flag(help: "Begin a new cluster of which this node is the only voter, unless its data directory holds one already.")
  var bootstrap = false

  @Option(name: .customLong("cluster-id"), help: "Number of the cluster: nodes of another one are refused.")
  var clusterID: UInt64 = 1

  @Option(help: "When the log is on the disk: always (before anything is answered), interval:<ms> or off.")
  var sync = "always"

  @Option(
    name: .customLong("cpu-latency"),
    help: ArgumentHelp(
      """
      Keeps the machine's processors from idle states that take longer than so many µs to leave; 0: they poll, which shortens \
      lone operations and costs power. Usually for root only. (default: they are left as they are)
      """, valueName: "µs"))
  var cpuLatency: Int32?

  @Flag(
    name: .customLong("stop-with-input"),
    help: ArgumentHelp("Stop when standard input ends, as it does with whoever started this node.", visibility: .hidden)
  )
  var stopsWithInput = false

  @Option(name: .customLong("log-level"), help: "trace, debug, info, notice, warning, error or critical.")
  var logLevel = "info"

  func validate() throws {
    guard id > 0 else { throw ValidationError("--id is above 0") }
    guard SyncPolicy(sync) != nil else { throw ValidationError("--sync is always, interval:<ms> or off") }
    guard Logger.Level(rawValue: logLevel) != nil else { throw ValidationError("--log-level knows no '\(logLevel)'") }
    guard respReads == "safe" || respReads == "lease" else { throw ValidationError("--resp-reads is safe or lease") }
    guard (cpuLatency ?? 0) >= 0 else { throw ValidationError("--cpu-latency is 0 or more") }
    guard GossipAddress(gossip) != nil else { throw ValidationError("--gossip is a numeric address and a port") }
    guard !bootstrap || join.isEmpty else { throw ValidationError("--bootstrap and --join exclude each other") }
    guard (1...86_400).contains(joinTimeout) else { throw ValidationError("--join-timeout is 1 to 86400 seconds") }
  }

  func run() throws {
    cweir_share_malloc_arena()
    let level = Logger.Level(rawValue: logLevel) ?? .info
    LoggingSystem.bootstrap { label in
      var handler = StreamLogHandler.standardError(label: label)
      handler.logLevel = level
      return handler
    }
    let idleStates = try CPULatencyRequest.asked(cpuLatency)
    try withExtendedLifetime(idleStates) { try NodeDaemon(self).run() }
  }
}
