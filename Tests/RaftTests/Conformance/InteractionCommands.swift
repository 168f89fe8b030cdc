import Raft
import WeirCore

extension InteractionEnvironment {
  /// The vocabulary of the scripts.
  func run(_ directive: Directive) throws {
    switch directive.command {
    case "_breakpoint": break
    case "add-nodes": try addNodes(directive)
    case "campaign": try firstNode(directive).raw.campaign()
    case "compact": try compact(directive)
    case "deliver-msgs": try deliverMessages(directive)
    case "forget-leader": _ = try? firstNode(directive).raw.forgetLeader()
    case "log-level": try setLogLevel(directive)
    case "process-append-thread":
      try forEach(nodes(directive), heading: "processing append thread") { try processAppendThread($0) }
    case "process-apply-thread":
      try forEach(nodes(directive), heading: "processing apply thread") { try processApplyThread($0) }
    case "process-ready": try forEach(nodes(directive), heading: "handling Ready") { try processReady($0) }
    case "propose": try propose(directive)
    case "propose-conf-change": try proposeConfigurationChange(directive)
    case "raft-log": try output.write(firstNode(directive).storage.description)
    case "raft-state": writeState()
    case "report-unreachable": try reportUnreachable(directive)
    case "send-snapshot": try sendSnapshot(directive)
    case "set-randomized-election-timeout": try setElectionTimeout(directive)
    case "stabilize": try stabilize(directive)
    case "status": try output.write(firstNode(directive).raw.progressDescription)
    case "tick-election": try tick(directive) { $0.electionTicks }
    case "tick-heartbeat": try tick(directive) { $0.heartbeatTicks }
    case "transfer-leadership": try transferLeadership(directive)
    // What etcd's scripts never exercise has commands of this project's own.
    case "read-index": try readIndex(directive)
    case "report-snapshot": try reportSnapshot(directive)
    case "restart": try restart(directive)
    case "lease": try writeLease(directive)
    case "set-clock": try setClock(directive)
    default: throw ScriptError("unknown command")
    }
  }

  private func readIndex(_ directive: Directive) throws {
    guard directive.bareKeys.count == 2 else { throw ScriptError("read-index needs a node and a number") }
    try firstNode(directive).raw.readIndex(context: number(directive.bareKeys[1], default: 0))
  }

  /// `report-snapshot a b`, with `failed` if it did not arrive.
  private func reportSnapshot(_ directive: Directive) throws {
    guard directive.bareKeys.count >= 2 else { throw ScriptError("two nodes are needed") }
    try firstNode(directive).raw.reportSnapshot(
      number(directive.bareKeys[1], default: 0), succeeded: !directive.bareKeys.contains("failed"))
  }

  /// `set-clock 250 [n ...]`: these nodes, or all of them, see this time in milliseconds from now on.
  private func setClock(_ directive: Directive) throws {
    let milliseconds: UInt64 = try number(directive.bareKeys.first, default: 0)
    let chosen = try directive.bareKeys.dropFirst().map(node)
    for node in chosen.isEmpty ? nodes : chosen { node.raw.nowNanoseconds = milliseconds * 1_000_000 }
  }

  private func writeLease(_ directive: Directive) throws {
    let node = try firstNode(directive)
    let expiry = node.raw.leaseExpiryNanoseconds
    let now = node.raw.nowNanoseconds
    output.write(
      expiry == 0
        ? "no lease at \(now / 1_000_000) ms\n"
        : "\(node.raw.holdsLease(at: now) ? "held" : "over") at \(now / 1_000_000) ms, ends at \(expiry / 1_000_000) ms\n"
    )
  }

  /// A node starts again from what it has stored; what it had in flight within itself is lost.
  private func restart(_ directive: Directive) throws {
    let node = try firstNode(directive)
    var log = LogBuffer(anchorIndex: node.storage.anchor.index, anchorTerm: node.storage.anchor.term)
    for entry in node.storage.entries {
      log.append(term: entry.header.term, kind: entry.header.kind, payload: entry.payload.span.bytes)
    }
    let applied = node.latest.metadata
    let now = node.raw.nowNanoseconds
    node.appendWork = []
    node.applyWork = []
    node.raw = try RawNode(
      configuration: node.configuration, log: log, hardState: node.storage.hardState,
      configurationState: applied.configuration, applied: applied.index, availableSnapshot: node.latest, logger: output)
    node.raw.nowNanoseconds = now
  }

  private func bool(_ text: String?, default fallback: Bool = false) throws -> Bool {
    guard let text else { return fallback }
    if ["1", "t", "T", "TRUE", "true", "True"].contains(text) { return true }
    if ["0", "f", "F", "FALSE", "false", "False"].contains(text) { return false }
    throw ScriptError("strconv.ParseBool: parsing \"\(text)\": invalid syntax")
  }

  private func number<Number: FixedWidthInteger>(_ text: String?, default fallback: Number) throws -> Number {
    guard let text else { return fallback }
    guard let value = Number(text) else {
      throw ScriptError("strconv.ParseUint: parsing \"\(text)\": invalid syntax")
    }
    return value
  }

  private func ids(_ texts: [String]?) throws -> [NodeID] { try (texts ?? []).map { try number($0, default: 0) } }

  private func addNodes(_ directive: Directive) throws {
    let count: Int = try number(directive.bareKeys.first, default: 0)
    var snapshot = Snapshot()
    snapshot.metadata.index = try number(directive.value("index"), default: 0)
    snapshot.metadata.configuration.voters = try ids(directive.values("voters"))
    snapshot.metadata.configuration.learners = try ids(directive.values("learners"))
    snapshot.data = Array((directive.value("content") ?? "").utf8)
    if ["voters", "learners", "index", "content"].contains(where: directive.has) {
      guard snapshot.metadata.index > 1 else { throw ScriptError("index must be specified as > 1 due to bootstrap") }
      snapshot.metadata.term = 1
    }
    for _ in 0..<count {
      let configuration = try nodeConfiguration(directive, id: NodeID(nodes.count + 1))
      nodes.append(try InteractionNode(configuration: configuration, snapshot: snapshot, logger: output))
    }
  }

  private func nodeConfiguration(_ directive: Directive, id: NodeID) throws -> RaftConfiguration {
    var configuration = RaftConfiguration(id: id, electionTicks: 3, heartbeatTicks: 1)
    configuration.maximumMessageBytes = try number(directive.value("max-size-per-msg"), default: Int.max)
    configuration.maximumUncommittedBytes = try number(directive.value("max-uncommitted-size"), default: 0)
    configuration.maximumPendingReads = try number(directive.value("max-pending-reads"), default: 1 << 16)
    configuration.disableProposalForwarding = try bool(directive.value("disable-proposal-forwarding"))
    // What a lease rests on: an election timeout of 3 ticks of 100 ms, less 100 ms for the drift of clocks.
    configuration.refuseVotesWithinLease = try bool(directive.value("promises"))
    configuration.refuseVotesAfterStart = configuration.refuseVotesWithinLease
    configuration.maximumInflightMessages = try number(directive.value("inflight"), default: Int(Int32.max))
    configuration.asynchronousStorageWrites = try bool(directive.value("async-storage-writes"))
    configuration.preVote = try bool(directive.value("prevote"))
    configuration.checkQuorum = try bool(directive.value("checkquorum"))
    configuration.maximumCommittedBytesPerReady = try number(
      directive.value("max-committed-size-per-ready"), default: Int.max)
    configuration.disableConfigurationChangeValidation = try bool(directive.value("disable-conf-change-validation"))
    configuration.stepDownOnRemoval = try bool(directive.value("step-down-on-removal"))
    switch directive.value("read-only") {
    case nil, "safe": configuration.readMode = .safe
    case "lease-based": configuration.readMode = .leaseBased
    case let other: throw ScriptError("invalid read-only option \"\(other ?? "")\"")
    }
    return configuration
  }

  private func compact(_ directive: Directive) throws {
    let node = try firstNode(directive)
    guard directive.bareKeys.count == 2 else { throw ScriptError("compact needs a node and an index") }
    let index: LogIndex = try number(directive.bareKeys[1], default: 0)
    try node.storage.compact(through: index)
    node.raw.compact(through: index)
    output.write(node.storage.description)
  }

  private func deliverMessages(_ directive: Directive) throws {
    var type: MessageType?
    if let name = directive.value("type") {
      type = MessageType.allCases.first { $0.etcdName == name }
      if type == nil { throw ScriptError("unknown message type \(name)") }
    }
    var recipients: [(id: NodeID, drop: Bool)] = []
    for argument in directive.arguments {
      if argument.values.isEmpty { recipients.append((try number(argument.key, default: 0), false)) }
      if argument.key == "drop" { recipients += try ids(argument.values).map { ($0, true) } }
    }
    guard Set(recipients.map(\.id)).count == recipients.count else { throw ScriptError("both deliver and drop") }
    var handled = 0
    for recipient in recipients { handled += deliver(to: recipient.id, type: type, drop: recipient.drop) }
    if handled == 0 { output.write("no messages\n") }
  }

  private func level(_ text: String) throws -> Int {
    guard let level = InteractionOutput.levels.firstIndex(of: text.uppercased()) else {
      throw ScriptError("log levels must be either of [\(InteractionOutput.levels.joined(separator: " "))]")
    }
    return level
  }

  private func setLogLevel(_ directive: Directive) throws {
    output.level = try level(directive.bareKeys.first ?? "")
  }

  private func stabilize(_ directive: Directive) throws {
    let before = output.level
    defer { output.level = before }
    if let text = directive.value("log-level") { output.level = try level(text) }
    let chosen = try nodes(directive)
    try stabilize(chosen.isEmpty ? nodes : chosen)
  }

  private func propose(_ directive: Directive) throws {
    guard directive.bareKeys.count == 2 else { throw ScriptError("propose needs a node and a payload") }
    let payload = Array(directive.bareKeys[1].utf8)
    try firstNode(directive).raw.propose(payload: payload.span.bytes)
  }

  private func proposeConfigurationChange(_ directive: Directive) throws {
    let node = try firstNode(directive)
    var isV1 = false
    var transition = ConfigurationChangeV2.Transition.auto
    for argument in directive.arguments.dropFirst() {
      for value in argument.values {
        switch argument.key {
        case "v1": isV1 = try bool(value)
        case "transition": transition = try self.transition(value)
        default: throw ScriptError("unknown command \(argument.key)")
        }
      }
    }
    let changes = try MemberChange.parse(directive.input)
    guard isV1 else { return try node.raw.propose(ConfigurationChangeV2(transition: transition, changes: changes)) }
    guard changes.count <= 1, transition == .auto else {
      throw ScriptError("v1 conf change can only have one operation and no transition")
    }
    guard let change = changes.first else { throw ScriptError("v1 conf change without an operation") }
    try node.raw.propose(ConfigurationChange(change))
  }

  private func transition(_ text: String) throws -> ConfigurationChangeV2.Transition {
    switch text {
    case "auto": .auto
    case "implicit": .jointImplicit
    case "explicit": .jointExplicit
    default: throw ScriptError("unknown transition \(text)")
    }
  }

  private func writeState() {
    for node in nodes {
      let voter = node.raw.membership.isVoter(node.raw.id) ? "(Voter)" : "(Non-Voter)"
      output.write(
        "\(node.raw.id): \(node.raw.role.etcdName) \(voter) Term:\(node.raw.term) Lead:\(node.raw.leader)\n")
    }
  }

  private func reportUnreachable(_ directive: Directive) throws {
    let chosen = try nodes(directive)
    guard chosen.count == 2 else {
      throw ScriptError("must specify exactly two node indexes: node on which to report, and reported node")
    }
    chosen[0].raw.reportUnreachable(chosen[1].configuration.id)
  }

  private func sendSnapshot(_ directive: Directive) throws {
    guard directive.bareKeys.count == 2 else { throw ScriptError("two nodes are needed") }
    let node = try firstNode(directive)
    var message = Message(
      type: .snapshot, to: try number(directive.bareKeys[1], default: 0), from: node.raw.id, term: node.raw.term)
    message.attachment = MessageAttachment(snapshot: node.latest)
    messages.append(message)
    output.write(RaftDescription.message(message))
  }

  private func setElectionTimeout(_ directive: Directive) throws {
    let node = try firstNode(directive)
    node.raw.randomizedElectionTimeoutTicks = try number(directive.value("timeout"), default: 0)
  }

  private func tick(_ directive: Directive, _ count: (RaftConfiguration) -> Int) throws {
    let node = try firstNode(directive)
    for _ in 0..<count(node.configuration) { node.raw.tick() }
  }

  private func transferLeadership(_ directive: Directive) throws {
    let node = try node(directive.value("from") ?? "")
    node.raw.transferLeadership(to: try number(directive.value("to"), default: 0))
  }
}
