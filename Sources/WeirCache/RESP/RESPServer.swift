import Logging
import RESPWire
import WeirCore
import WeirTransport

/// Settings of a node's door for cache clients.
public struct RESPServerConfiguration: Sendable {
  /// Where to listen; port 0 lets the system choose.
  public var listenAddress: SocketAddress
  public var eventLoop: EventLoopConfiguration
  public var limits = RESPLimits()
  /// How reads are answered that do not follow `READONLY`: `safe` or `lease`.
  public var consistency = ReadConsistency.safe
  /// Connections that are served at once; more are closed at once.
  public var maximumConnections = 10_000
  /// Writes of all connections that may be under way; more wait where they came from.
  public var maximumInFlight = 1 << 16
  /// The same in bytes; below what a node takes from one lane at once.
  public var maximumInFlightBytes = 8 << 20
  /// Writes, and reads, of one connection that may be under way; more wait where they came from.
  public var maximumInFlightPerConnection = 4096
  /// Commands of one connection that may wait, in bytes. Beyond it nothing more is read from it.
  public var maximumWaitingBytes = 8 << 20
  /// Answers of one connection that may wait, in bytes. Beyond it none of its commands is begun.
  public var maximumPendingBytes = 16 << 20

  public init(listenAddress: SocketAddress, eventLoop: EventLoopConfiguration = .init()) {
    self.listenAddress = listenAddress
    self.eventLoop = eventLoop
  }
}

/// Serves cache clients (redis-cli, redis-benchmark, any Redis library) on a serial queue of its own beside that of the node:
/// strings, counters and deadlines, in RESP2.
///
/// What has arrived in a turn, from all connections, is proposed as one batch, and their Safe reads share a ticket. Only the
/// leader serves, as node and as cluster: to clients of a Redis cluster all slots belong to the leader. Any other node
/// answers `MOVED` with the leader's address, which such clients follow by themselves and others show to a person, or
/// `CLUSTERDOWN` while nobody leads, which they repeat. A node that forwarded instead would add a hop to every command of
/// a client that could have known better, and could not say whether a write that it never heard of again took effect;
/// `MOVED` is only said of commands that had none. Reads that may be stale are served by every node, after `READONLY`,
/// which is how such clients ask for that; while it is loading a state from its leader, a node answers them `LOADING`.
public final class RESPServer: Sendable {
  private let shell: ServingShell<RESPConnection>

  /// Begins to listen and to serve.
  /// - Parameter directory: where members serve RESP, `host:port`, as far as that is known. Called on the server's queue.
  /// - Throws: `TransportError` if it cannot listen.
  public init(
    node: Node, configuration: RESPServerConfiguration, log: Logger,
    directory: @escaping @Sendable () -> [NodeID: String]
  ) throws(TransportError) {
    shell = try ServingShell(
      label: "weir.resp.\(node.id)", listenAddress: configuration.listenAddress, eventLoop: configuration.eventLoop
    ) {
      RESPServing(node: node, configuration: configuration, directory: directory, loop: $0, listener: $1, log: log)
    }
  }

  /// Where it listens, with the port that the system chose.
  public var address: SocketAddress { shell.address }

  /// Ends it: no thread or socket of it remains when this returns. Before its node is stopped.
  public func stop() { shell.stop() }
}
