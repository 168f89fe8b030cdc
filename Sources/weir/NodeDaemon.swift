import ArgumentParser
import CWeir
import Dispatch
import Foundation
import Gossip
import Logging
import Synchronization
import WeirCache
import WeirCore
import WeirStorage
import WeirTransport

/// A running `weir node`: the node, its gossip and its door for clients.
final class NodeDaemon {
  private let command: NodeCommand
  private let log = Logger(label: "weir")
  private let node: Node
  private let gossip: GossipMembership
  private let server: HTTPServer
  private let cache: RESPServer?

  /// Opens everything, and serves HTTP from here on; the node takes part once `run` is called.
  init(_ command: NodeCommand) throws {
    self.command = command
    node = try Node(try Self.configuration(command))
    guard let raftAddress = node.address, !raftAddress.isWildcard, let bind = GossipAddress(command.gossip) else {
      throw ValidationError("--raft and --gossip name addresses that other nodes can connect to")
    }
    let directory = ClientDirectory()
    let door = HTTPServerConfiguration(listenAddress: try SocketAddress(parsing: command.http))
    server = try HTTPServer(
      handler: NodeAPI(node: node, httpAddress: directory.address, metrics: directory.metrics), configuration: door,
      log: log)
    cache = try Self.makeCache(command, node, directory, log)
    let advertised = Self.advertised(server.address, raftAddress)
    let advertisedCache = cache.map { Self.advertised($0.address, raftAddress) } ?? ""
    gossip = try GossipMembership(
      node: node, bind: bind, clientAddress: advertised, respAddress: advertisedCache, log: log)
    directory.set(gossip, server)
    log.info(
      "node \(node.id): raft \(raftAddress), http \(advertised), resp \(cache == nil ? "off" : advertisedCache), gossip \(gossip.agent.address)"
    )
  }

  private static func makeCache(
    _ command: NodeCommand, _ node: Node, _ directory: ClientDirectory, _ log: Logger
  ) throws -> RESPServer? {
    guard let resp = command.resp else { return nil }
    var configuration = RESPServerConfiguration(listenAddress: try SocketAddress(parsing: resp))
    configuration.consistency = ReadConsistency(rawValue: command.respReads) ?? .safe
    return try RESPServer(node: node, configuration: configuration, log: log, directory: directory.respAddresses)
  }

  /// What others are told to connect to: who listens everywhere is found where its Raft messages go.
  private static func advertised(_ address: SocketAddress, _ raftAddress: SocketAddress) -> String {
    address.isWildcard ? raftAddress.host + ":\(address.port)" : "\(address)"
  }

  private static func configuration(_ command: NodeCommand) throws -> NodeConfiguration {
    var configuration = NodeConfiguration(
      id: command.id, clusterID: command.clusterID, listenAddress: try SocketAddress(parsing: command.raft),
      initialVoters: command.bootstrap ? [command.id] : [], seed: .random(in: .min ... .max),
      log: Logger(label: "weir.node"))
    configuration.storage = .files(
      directory: command.dataDirectory ?? "weir-\(command.id)", sync: SyncPolicy(command.sync) ?? .always)
    return configuration
  }

  /// Takes part until a signal asks it to stop.
  /// - Throws: exit code 70 if the node ended by itself, since its disk failed.
  func run() throws {
    let stopRequested = DispatchSemaphore(value: 0)
    let signals = TerminationSignals(first: { stopRequested.signal() }, later: { Foundation.exit(130) })
    defer { withExtendedLifetime(signals) {} }
    if command.stopsWithInput { stopWithInput(stopRequested) }
    node.start()
    startGossiping()
    if !isMember { startJoining() }
    while stopRequested.wait(timeout: .now() + .milliseconds(100)) == .timedOut {
      guard let failure = node.failure else { continue }
      log.critical("node \(node.id) has ended: \(failure)")
      server.stop()
      cache?.stop()
      gossip.stop()
      node.stop()
      throw ExitCode(70)
    }
    stop()
  }

  private func stopWithInput(_ stopRequested: DispatchSemaphore) {
    Thread.detachNewThread {
      while true {
        let bytes = FileHandle.standardInput.availableData
        guard !bytes.isEmpty else { break }
      }
      stopRequested.signal()
    }
  }

  /// Whether its own log says so: a node that comes back with the rest of its cluster has nobody to ask yet.
  private var isMember: Bool {
    guard let configuration = try? waitForCallback({ self.node.membership(completion: $0) }).get().configuration
    else { return false }
    return configuration.voters.contains(node.id) || configuration.learners.contains(node.id)
  }

  /// Tries for as long as it takes. A cluster works without gossip where its addresses are in the log, so failing is told
  /// and no more.
  private func startGossiping() {
    let addresses = command.gossipJoin.split(separator: ",").compactMap { GossipAddress($0) }
    guard !addresses.isEmpty else { return }
    let (gossip, log) = (gossip, log)
    Thread.detachNewThread {
      while true {
        do throws(GossipNodeError) { return try gossip.join(addresses) } catch GossipNodeError.isShutDown {
          return
        } catch {
          log.warning("gossip: nobody at \(addresses) answers yet: \(error)")
          usleep(1_000_000)
        }
      }
    }
  }

  private func startJoining() {
    guard !command.join.isEmpty, let raftAddress = node.address else { return }
    let (log, command, id) = (log, command, node.id)
    Thread.detachNewThread {
      do {
        let members = try command.join.split(separator: ",").map { try SocketAddress(parsing: String($0)) }
        let join = ClusterJoin(id: id, raftAddress: raftAddress.description, members: members)
        let deadline = cweir_monotonic_nanoseconds() + UInt64(command.joinTimeout) * 1_000_000_000
        try join.run(deadlineNanoseconds: deadline, log: log)
        log.info("node \(id) is a member")
      } catch {
        log.critical("\(error)")
        Foundation.exit(1)
      }
    }
  }

  private func stop() {
    log.info("node \(node.id) is stopping")
    server.stop()
    cache?.stop()
    handOver()
    gossip.leave()
    gossip.stop()
    node.stop()
  }

  /// A leader that just goes leaves the others to wait for an election.
  private func handOver() {
    let node = node
    guard node.isLeader, let membership = try? waitForCallback({ node.membership(completion: $0) }).get(),
      let successor = membership.configuration.voters.first(where: { $0 != node.id })
    else { return }
    waitForCallback { node.transferLeadership(to: successor, timeoutNanoseconds: 2_000_000_000, completion: $0) }
  }
}

/// Where members serve clients, as gossip tells it: made before there is gossip, which announces where the server that asks
/// this listens.
private final class ClientDirectory: Sendable {
  private let sources = Mutex<(gossip: GossipMembership, server: HTTPServer)?>(nil)

  func set(_ gossip: GossipMembership, _ server: HTTPServer) { sources.withLock { $0 = (gossip, server) } }

  @Sendable func address(_ id: NodeID) -> String? {
    let gossip = sources.withLock { $0?.gossip }
    return gossip?.members.first { $0.raftID == id && !$0.clientAddress.isEmpty }?.clientAddress
  }

  @Sendable func respAddresses() -> [NodeID: String] {
    let gossip = sources.withLock { $0?.gossip }
    let known = gossip?.members.filter { !$0.respAddress.isEmpty } ?? []
    return Dictionary(known.map { ($0.raftID, $0.respAddress) }) { first, _ in first }
  }

  @Sendable func metrics() -> [Metric] {
    guard let (gossip, server) = sources.withLock(\.self) else { return [] }
    let answers = server.answersByClass.enumerated().dropFirst().map { digit, count in
      Metric.Sample(Double(count), labels: ["code": "\(digit)xx"])
    }
    return [
      Metric("weir_http_answers_total", .counter, answers, help: "Answers by class of status."),
      Metric("weir_gossip_members", .gauge, Double(gossip.members.count), help: "Members that gossip knows to live."),
    ]
  }
}
