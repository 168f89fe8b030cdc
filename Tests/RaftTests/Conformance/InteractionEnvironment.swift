import Foundation
import Raft
import WeirCore

/// The output of one directive: text, and the level below which logger lines are left out.
final class InteractionOutput: RaftLogger {
  /// 0 debug … 4 fatal, 5 none.
  var level = 0
  var text = ""

  var isQuiet: Bool { level == 5 }
  var minimumLevel: RaftLogLevel { .debug }

  static let levels = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE"]

  func write(_ text: String) {
    if !isQuiet { self.text += text }
  }

  func log(_ level: RaftLogLevel, _ text: String) {
    guard self.level <= level.rawValue else { return }
    write("\(Self.levels[level.rawValue]) \(text)\n")
  }

  /// Runs `body`; what it writes comes out indented by two.
  func indented(_ body: () throws -> Void) rethrows {
    let outer = text
    text = ""
    defer {
      var inner = text.components(separatedBy: "\n")
      if inner.last == "" { inner.removeLast() }
      text = outer + inner.map { "  " + $0 + "\n" }.joined()
    }
    try body()
  }
}

/// One node of a script: its state machine, its disk, and the work its storage threads have not done.
final class InteractionNode {
  let configuration: RaftConfiguration
  var raw: RawNode
  var storage: MemoryStorage
  var appendWork: [Message] = []
  var applyWork: [Message] = []
  /// The state after each entry applied: what the node offers as snapshots.
  var history: [Snapshot]
  var ready = Ready()

  init(configuration: RaftConfiguration, snapshot: Snapshot, logger: any RaftLogger) throws {
    self.configuration = configuration
    history = [snapshot]
    storage = MemoryStorage()
    if !snapshot.isEmpty { try storage.apply(snapshot) }
    raw = try RawNode(
      configuration: configuration,
      log: LogBuffer(anchorIndex: snapshot.metadata.index, anchorTerm: snapshot.metadata.term),
      configurationState: snapshot.metadata.configuration, applied: snapshot.metadata.index,
      availableSnapshot: snapshot, logger: logger)
  }

  var latest: Snapshot { history[history.count - 1] }
}

/// Runs the commands of interaction scripts against nodes whose messages lie in one ordered queue.
final class InteractionEnvironment {
  let output = InteractionOutput()
  var nodes: [InteractionNode] = []
  var messages: [Message] = []

  func handle(_ directive: Directive) -> String {
    output.text = ""
    do {
      try run(directive)
    } catch {
      if output.isQuiet { return "\(error)" }
      output.write("\(error)")
    }
    return output.text.isEmpty ? "ok" : output.text
  }

  func node(_ text: String) throws -> InteractionNode {
    guard let id = Int(text), id >= 1, id <= nodes.count else { throw ScriptError("no node \(text)") }
    return nodes[id - 1]
  }

  func firstNode(_ directive: Directive) throws -> InteractionNode {
    guard let key = directive.bareKeys.first else { throw ScriptError("a node is needed") }
    return try node(key)
  }

  func nodes(_ directive: Directive) throws -> [InteractionNode] { try directive.bareKeys.map(node) }

  // MARK: Ready, storage threads

  /// Runs `body` for each node, under a heading if there are several.
  func forEach(_ nodes: [InteractionNode], heading: String, _ body: (InteractionNode) throws -> Void) throws {
    for node in nodes {
      if nodes.count == 1 {
        try body(node)
      } else {
        output.write("> \(node.configuration.id) \(heading)\n")
        try output.indented { try body(node) }
      }
    }
  }

  func processReady(_ node: InteractionNode) throws {
    node.raw.ready(into: &node.ready)
    let ready = node.ready
    output.write(RaftDescription.ready(ready))
    if !node.configuration.asynchronousStorageWrites {
      try store(node, ready.hardState, ready.entries, ready.snapshot)
      try apply(node, ready.committedEntries)
    }
    for message in ready.messages {
      switch message.to {
      case .appendThread: node.appendWork.append(message)
      case .applyThread: node.applyWork.append(message)
      default: messages.append(message)
      }
    }
    if !node.configuration.asynchronousStorageWrites { node.raw.advance(ready) }
  }

  private func store(
    _ node: InteractionNode, _ hardState: HardState, _ entries: EntryBatch, _ snapshot: Snapshot?
  ) throws {
    if !hardState.isEmpty { node.storage.setHardState(hardState) }
    if let snapshot, !snapshot.isEmpty {
      guard entries.isEmpty else { throw ScriptError("can't apply snapshot and entries at the same time") }
      return try node.storage.apply(snapshot)
    }
    try node.storage.append(entries)
  }

  private func apply(_ node: InteractionNode, _ entries: EntryBatch) throws {
    var items: [(EntryHeader, [UInt8])] = []
    entries.forEach { header, payload in items.append((header, payload.withUnsafeBytes { [UInt8]($0) })) }
    for (header, data) in items {
      var update = data
      var configuration = node.latest.metadata.configuration
      switch header.kind {
      case .normal: break
      case .configurationChange:
        let change = try ConfigurationChange(decoding: data.span.bytes)
        update = change.context
        configuration = try node.raw.applyConfigurationChange(change)
      case .configurationChangeV2:
        let change = try ConfigurationChangeV2(decoding: data.span.bytes)
        update = change.context
        configuration = try node.raw.applyConfigurationChange(change)
      }
      node.history.append(
        Snapshot(
          metadata: SnapshotMetadata(index: header.index, term: header.term, configuration: configuration),
          data: node.latest.data + update))
      node.raw.setAvailableSnapshot(node.latest)
    }
  }

  func processAppendThread(_ node: InteractionNode) throws {
    guard !node.appendWork.isEmpty else { return output.write("no append work to perform") }
    let (message, responses) = takeWork(&node.appendWork)
    output.write("Processing:\n" + RaftDescription.message(message) + "\n")
    try store(
      node, HardState(term: message.term, vote: message.vote, commit: message.commit), message.entries,
      message.snapshot)
    release(responses)
  }

  func processApplyThread(_ node: InteractionNode) throws {
    guard !node.applyWork.isEmpty else { return output.write("no apply work to perform") }
    let (message, responses) = takeWork(&node.applyWork)
    output.write("Processing:\n" + RaftDescription.message(message) + "\n")
    try apply(node, message.entries)
    release(responses)
  }

  private func takeWork(_ work: inout [Message]) -> (Message, [Message]) {
    var message = work.removeFirst()
    let responses = message.responses
    message.attachment = message.snapshot.map { MessageAttachment(snapshot: $0) }
    return (message, responses)
  }

  private func release(_ responses: [Message]) {
    output.write("Responses:\n")
    for response in responses { output.write(RaftDescription.message(response) + "\n") }
    messages += responses
  }

  // MARK: Messages

  func deliver(to id: NodeID, type: MessageType?, drop: Bool) -> Int {
    let isTaken = { (message: Message) in
      let isLocal =
        message.from == message.to || [.appendThread, .applyThread].contains(message.from)
        || [.appendThread, .applyThread].contains(message.to)
      return message.to == id && !(drop && isLocal) && (type == nil || message.type == type)
    }
    let taken = messages.filter(isTaken)
    messages.removeAll(where: isTaken)
    for message in taken {
      output.write((drop ? "dropped: " : "") + RaftDescription.message(message) + "\n")
      if drop { continue }
      do { try nodes[Int(message.to - 1)].raw.step(message) } catch { output.write("\(error)\n") }
    }
    return taken.count
  }

  func stabilize(_ nodes: [InteractionNode]) throws {
    var done = false
    while !done {
      done = true
      for node in nodes where node.raw.hasReady {
        output.write("> \(node.configuration.id) handling Ready\n")
        try output.indented { try processReady(node) }
        done = false
      }
      for node in nodes where messages.contains(where: { $0.to == node.configuration.id }) {
        output.write("> \(node.configuration.id) receiving messages\n")
        output.indented { _ = deliver(to: node.configuration.id, type: nil, drop: false) }
        done = false
      }
      for node in nodes where !node.appendWork.isEmpty {
        output.write("> \(node.configuration.id) processing append thread\n")
        while !node.appendWork.isEmpty { try output.indented { try processAppendThread(node) } }
        done = false
      }
      for node in nodes where !node.applyWork.isEmpty {
        output.write("> \(node.configuration.id) processing apply thread\n")
        while !node.applyWork.isEmpty { try output.indented { try processApplyThread(node) } }
        done = false
      }
    }
  }
}
