import Synchronization
import WeirCore

/// The same transport without sockets: nodes of one process exchange messages through mailboxes. For tests of what lies
/// above, and to see what the sockets cost.
///
/// The network may be cut between any two nodes. Messages are copied by reference, in order, and those to a node that
/// is gone are dropped.
public final class InMemoryNetwork: Sendable {
  private struct State {
    var ends: [NodeID: InMemoryTransport.Inbox] = [:]
    var cuts: Set<Cut> = []
  }

  private struct Cut: Hashable {
    var from: NodeID
    var to: NodeID
  }

  private let state = Mutex(State())

  public init() {}

  /// Whether messages from `from` to `to` are lost.
  public func setCut(from: NodeID, to: NodeID, _ isCut: Bool) {
    state.withLock { state in
      if isCut { state.cuts.insert(Cut(from: from, to: to)) } else { state.cuts.remove(Cut(from: from, to: to)) }
    }
  }

  func attach(_ inbox: InMemoryTransport.Inbox, as node: NodeID) { state.withLock { $0.ends[node] = inbox } }
  func detach(_ node: NodeID) { state.withLock { $0.ends[node] = nil } }

  func inbox(from: NodeID, to: NodeID) -> InMemoryTransport.Inbox? {
    state.withLock { $0.cuts.contains(Cut(from: from, to: to)) ? nil : $0.ends[to] }
  }
}

/// One node's end of an `InMemoryNetwork`. Confined to the event loop's queue.
public final class InMemoryTransport: PeerTransport {
  /// Messages that have arrived. Sendable: the array lies under the lock, the rest is immutable.
  final class Inbox: Sendable {
    let messages = Mutex<[Message]>([])
    let wake: @Sendable () -> Void

    init(wake: @escaping @Sendable () -> Void) { self.wake = wake }
  }

  public weak var delegate: (any TransportDelegate)?
  public private(set) var counters = TransportCounters()
  private let network: InMemoryNetwork
  private let node: NodeID
  private let inbox: Inbox
  private var peers: [NodeID] = []
  private var queued: [(peer: NodeID, messages: [Message])] = []
  private var unreachable: [NodeID] = []

  public init(network: InMemoryNetwork, node: NodeID, loop: any EventLoop) {
    self.network = network
    self.node = node
    inbox = Inbox { loop.wake() }
    network.attach(inbox, as: node)
  }

  public func addPeer(_ peer: NodeID, address: SocketAddress) { addPeer(peer) }

  public func addPeer(_ peer: NodeID) {
    guard !peers.contains(peer) else { return }
    peers.append(peer)
    queued.append((peer, []))
  }

  public func removePeer(_ peer: NodeID) {
    peers.removeAll { $0 == peer }
    queued.removeAll { $0.peer == peer }
  }

  public func send(_ message: Message) {
    guard let position = queued.firstIndex(where: { $0.peer == message.to }) else {
      counters.messagesDropped += 1
      return
    }
    queued[position].messages.append(message)
  }

  public func sendSnapshot(_ message: Message, source: any SnapshotSource) {
    guard let inbox = network.inbox(from: node, to: message.to), let snapshot = message.snapshot else {
      delegate?.transportSnapshotSent(message.to, succeeded: false)
      return
    }
    var data: [UInt8] = []
    do {
      while let chunk = try source.nextChunk(targetBytes: 1 << 20) { data.append(contentsOf: chunk) }
    } catch {
      delegate?.transportSnapshotSent(message.to, succeeded: false)
      return
    }
    var whole = message
    whole.attachment = MessageAttachment(snapshot: Snapshot(metadata: snapshot.metadata, data: data))
    inbox.messages.withLock { $0.append(whole) }
    inbox.wake()
    delegate?.transportSnapshotSent(message.to, succeeded: true)
  }

  public func flush() {
    for position in queued.indices where !queued[position].messages.isEmpty {
      let peer = queued[position].peer
      let messages = queued[position].messages
      queued[position].messages.removeAll(keepingCapacity: true)
      guard let inbox = network.inbox(from: node, to: peer) else {
        counters.messagesDropped += UInt64(messages.count)
        unreachable.append(peer)
        continue
      }
      counters.messagesSent += UInt64(messages.count)
      inbox.messages.withLock { $0.append(contentsOf: messages) }
      inbox.wake()
    }
  }

  public func advance(nowNanoseconds: UInt64) -> UInt64 {
    for peer in unreachable { delegate?.transportUnreachable(peer) }
    unreachable.removeAll(keepingCapacity: true)
    var arrived: [Message] = []
    inbox.messages.withLock { swap(&$0, &arrived) }
    for message in arrived where network.inbox(from: message.from, to: node) != nil { receive(message) }
    return .max
  }

  private func receive(_ message: Message) {
    counters.messagesReceived += 1
    guard message.type == .snapshot, let snapshot = message.snapshot else {
      var message = message
      delegate?.transportReceived(&message)
      return
    }
    var head = message
    head.attachment = MessageAttachment(snapshot: Snapshot(metadata: snapshot.metadata))
    guard let sink = delegate?.transportSnapshotBegan(head) else { return }
    // The sink may go when it has answered, which for a file is later.
    sink.append(snapshot.data) { [weak self] result in
      if case .failure = result { self?.counters.messagesDropped += 1 }
    }
    sink.finish { _ in withExtendedLifetime(sink) {} }
  }

  /// Whether messages wait to be received.
  public var hasWork: Bool { inbox.messages.withLock { !$0.isEmpty } }

  public func isConnected(_ peer: NodeID) -> Bool { network.inbox(from: node, to: peer) != nil }

  public func close() { network.detach(node) }
}
