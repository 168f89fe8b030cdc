@_spi(Testing) import Raft
import WeirCore

/// One node of a test, with what it has handed out so far.
final class TestNode {
  var raw: RawNode
  var ready = Ready()
  var readStates: [ReadState] = []
  var refusedReads: [UInt64] = []
  var appliedPayloads: [[UInt8]] = []

  init(_ raw: consuming RawNode) { self.raw = raw }
}

/// Nodes that hand each other messages at once, unless a link is cut.
struct TestCluster {
  private(set) var nodes: [TestNode]
  /// Messages for which this says no are lost.
  var passes: (Message) -> Bool = { _ in true }
  /// Every message that was sent, lost ones included.
  var sent: [Message] = []

  /// - Parameter bootstraps: the nodes begin with nothing and make the voters themselves, as a new cluster does.
  init(
    voters: [NodeID], learners: [NodeID] = [], bootstraps: Bool = false,
    logger: (any RaftLogger)? = nil, configure: (inout RaftConfiguration) -> Void = { _ in }
  ) throws {
    nodes = try (voters + learners).sorted().map { id in
      var configuration = RaftConfiguration(id: id)
      configuration.randomSeed = id
      configure(&configuration)
      let members = bootstraps ? ConfigurationState() : ConfigurationState(voters: voters, learners: learners)
      let node = TestNode(
        try RawNode(configuration: configuration, log: LogBuffer(), configurationState: members, logger: logger))
      if bootstraps { try node.raw.bootstrap(voters: voters) }
      return node
    }
  }

  func node(_ id: NodeID) -> TestNode { nodes[nodes.firstIndex { $0.raw.id == id } ?? 0] }

  func setNow(_ nanoseconds: UInt64) {
    for node in nodes { node.raw.nowNanoseconds = nanoseconds }
  }

  func tickAll() {
    for node in nodes { node.raw.tick() }
  }

  mutating func elect(_ id: NodeID) throws {
    try node(id).raw.campaign()
    try settle()
  }

  func propose(_ text: String, at id: NodeID) throws { try node(id).raw.propose(payload: Array(text.utf8).span.bytes) }

  /// Takes what the node hands out, once, and gives back its messages.
  mutating func drain(_ node: TestNode) throws -> [Message] {
    guard node.raw.hasReady else { return [] }
    node.raw.ready(into: &node.ready)
    node.readStates += node.ready.readStates
    node.refusedReads += node.ready.refusedReads
    var items: [(EntryHeader, [UInt8])] = []
    node.ready.committedEntries.forEach { header, payload in
      items.append((header, payload.withUnsafeBytes { [UInt8]($0) }))
    }
    for (header, payload) in items {
      switch header.kind {
      case .normal: node.appliedPayloads.append(payload)
      case .configurationChange:
        try node.raw.applyConfigurationChange(ConfigurationChange(decoding: payload.span.bytes))
      case .configurationChangeV2:
        try node.raw.applyConfigurationChange(ConfigurationChangeV2(decoding: payload.span.bytes))
      }
    }
    let messages = node.ready.messages
    node.raw.advance(node.ready)
    sent += messages
    return messages
  }

  /// Delivers until nobody has anything to do.
  mutating func settle() throws {
    var queue: [Message] = []
    var isBusy = true
    while isBusy {
      isBusy = false
      for node in nodes where node.raw.hasReady {
        queue += try drain(node)
        isBusy = true
      }
      let batch = queue
      queue.removeAll()
      for message in batch where passes(message) {
        isBusy = true
        do { try node(message.to).raw.step(message) } catch RaftError.proposalDropped {}
      }
    }
  }
}

/// Keeps what a node says.
final class RecordedLines: RaftLogger {
  let minimumLevel: RaftLogLevel
  var lines: [String] = []

  init(minimumLevel: RaftLogLevel = .debug) { self.minimumLevel = minimumLevel }

  func log(_ level: RaftLogLevel, _ text: String) { lines.append("\(level) \(text)") }
}
