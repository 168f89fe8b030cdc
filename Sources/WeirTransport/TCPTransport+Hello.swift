import CWeir
import WeirCore

/// Who may talk to whom.
extension TCPTransport {
  /// Bytes that are no hello: a port scanner, an HTTP client, another program.
  func refuseStranger(_ connection: Connection) {
    counters.connectionsRefused += 1
    log.warning("refused a connection: its first bytes are not the hello of a node")
    lose(connection, nil)
  }

  /// The hello of somebody who connected to this node.
  func receiveGreeting(_ hello: Hello, _ connection: Connection) {
    let verdict = judge(hello)
    guard verdict == .welcome else {
      counters.connectionsRefused += 1
      if verdict != .duplicate {
        log.warning("refused a connection from node \(hello.from) of cluster \(hello.clusterID): \(verdict)")
      }
      answer(connection, verdict, to: hello.from)
      discard(connection)
      return
    }
    connection.peer = hello.from
    connection.instance = hello.instance
    let accepted = accepted(connection, purpose: hello.channel)
    answer(accepted, .welcome, to: hello.from)
    guard connections[accepted.channel] != nil else { return }
    if hello.channel == .snapshots {
      accepted.state = .established
    } else {
      establish(accepted)
    }
  }

  /// An accepted connection learns from its hello what it is for.
  private func accepted(_ connection: Connection, purpose: Hello.Channel) -> Connection {
    guard purpose != connection.purpose else { return connection }
    let replacement = Connection(
      channel: connection.channel, descriptor: connection.descriptor, purpose: purpose, isDialer: false,
      peer: connection.peer, helloDeadlineNanoseconds: connection.helloDeadlineNanoseconds,
      configuration: configuration)
    replacement.instance = connection.instance
    replacement.lastHeardNanoseconds = connection.lastHeardNanoseconds
    connections[connection.channel] = replacement
    return replacement
  }

  private func judge(_ hello: Hello) -> HelloVerdict {
    guard hello.version == FrameHeader.version else { return .otherVersion }
    guard hello.clusterID == configuration.clusterID else { return .otherCluster }
    guard hello.to == configuration.nodeID else { return .notTheNodeYouWant }
    guard hello.from != configuration.nodeID, hello.from != .none else { return .impostor }
    guard let link = link(of: hello.from) else {
      return configuration.admitsUnknownNodes ? .welcome : .unknownNode
    }
    guard let existing = link.connection else {
      if hello.channel == .messages, let dialing = link.dialing, dialing.state == .awaitingHello,
        configuration.nodeID < hello.from
      {
        return .duplicate
      }
      return .welcome
    }
    if hello.instance != existing.instance {
      // A node that restarted comes with a new instance too; its old connection has ended by then, or falls silent.
      let now = cweir_monotonic_nanoseconds()
      let isAlive = now < existing.lastHeardNanoseconds + configuration.impostorWindowNanoseconds
      return isAlive ? .impostor : .welcome
    }
    let wouldReplaceOurs = hello.channel == .messages && existing.isDialer && configuration.nodeID < hello.from
    return wouldReplaceOurs ? .duplicate : .welcome
  }

  /// The answer to this node's greeting.
  func receiveAnswer(_ hello: Hello, _ connection: Connection) {
    let verdict = hello.verdict ?? .otherVersion
    let isRight =
      hello.version == FrameHeader.version && hello.clusterID == configuration.clusterID
      && hello.from == connection.peer
    guard verdict == .welcome, isRight else {
      let reason: HelloVerdict = verdict == .welcome ? .notTheNodeYouWant : verdict
      reportRefusal(reason, connection)
      return lose(connection, nil)
    }
    connection.instance = hello.instance
    if connection.purpose == .snapshots {
      connection.state = .established
      writable(channel: connection.channel)
    } else {
      establish(connection)
    }
  }

  private func reportRefusal(_ reason: HelloVerdict, _ connection: Connection) {
    guard let link = link(of: connection.peer), reason != .duplicate, link.lastRefusal != reason else { return }
    link.lastRefusal = reason
    log.warning(
      "node \(connection.peer) at \(link.address?.description ?? "?") refused this node \(configuration.nodeID): \(reason)"
    )
  }

  /// The connection carries messages from now on, in place of any other to the same peer.
  private func establish(_ connection: Connection) {
    let link =
      link(of: connection.peer)
      ?? {
        let link = PeerLink(
          peer: connection.peer, address: nil, maximumQueuedBytes: configuration.maximumQueuedBytesPerPeer,
          nextAttemptNanoseconds: .max)
        links.append(link)
        return link
      }()
    if let dialing = link.dialing, dialing !== connection { discard(dialing) }
    link.dialing = nil
    let wasConnected = link.connection != nil
    if let old = link.connection {
      discard(old)
      link.outbound.removeAll()
      link.isUnreachable = true
    }
    link.connection = connection
    link.failedAttempts = 0
    link.lastRefusal = nil
    connection.state = .established
    counters.connectionsMade += 1
    log.debug("connected to node \(connection.peer)")
    if !wasConnected { delegate?.transportConnectionChanged(connection.peer, isConnected: true) }
  }
}
