import CWeir
import Glibc
import RESPWire
import WeirCore

/// What a connection answers by itself: how clients introduce themselves, and what they and people ask about the server.
extension RESPServing {
  func answerLocally(_ verb: RESPVerb, _ words: RESPWords, _ connection: RESPConnection) {
    switch verb {
    case .ping where words.count <= 2: ping(words, &connection.output.bytes)
    case .ping: Self.append(.wrongCount(.ping), to: &connection.output.bytes)
    case .echo: words.with(1) { RESPReply.appendBulk($0, to: &connection.output.bytes) }
    case .hello: hello(words, connection)
    case .auth: RESPReply.appendError("ERR this node knows no users and no passwords", to: &connection.output.bytes)
    case .quit:
      RESPReply.appendSimple("OK", to: &connection.output.bytes)
      connection.isEnding = true
    case .reset:
      connection.reset()
      RESPReply.appendSimple("RESET", to: &connection.output.bytes)
    case .select:
      if words.number(1) == 0 {
        RESPReply.appendSimple("OK", to: &connection.output.bytes)
      } else {
        RESPReply.appendError("ERR there is database 0 only", to: &connection.output.bytes)
      }
    case .readonly, .readwrite:
      connection.readsStale = verb == .readonly
      RESPReply.appendSimple("OK", to: &connection.output.bytes)
    case .command: describeCommands(words, &connection.output.bytes)
    case .client: client(words, connection)
    case .config: config(words, &connection.output.bytes)
    case .info: RESPReply.appendBulk(infoText, to: &connection.output.bytes)
    case .time: time(&connection.output.bytes)
    case .dbsize:
      if let size = node.store.size {
        RESPReply.appendInteger(Int64(size.keys), to: &connection.output.bytes)
      } else {
        RESPReply.appendError(Self.loadingText, to: &connection.output.bytes)
      }
    case .cluster: cluster(words, &connection.output.bytes)
    default: Self.append(.syntax, to: &connection.output.bytes)
    }
  }

  /// A name that is none, or a known one with too many words or too few.
  func appendUnknown(_ words: RESPWords, to output: inout [UInt8]) {
    if let verb = words.with(0, RESPVerb.named) {
      Self.append(.wrongCount(verb), to: &output)
    } else {
      RESPReply.appendError("ERR unknown command '\(words.text(0).prefix(64))'", to: &output)
    }
  }

  private static func append(_ refusal: RESPRefusal, to output: inout [UInt8]) {
    RESPReply.appendError(refusal.text, to: &output)
  }

  // MARK: Connections

  private func ping(_ words: RESPWords, _ output: inout [UInt8]) {
    if words.count == 2 {
      words.with(1) { RESPReply.appendBulk($0, to: &output) }
    } else {
      RESPReply.appendSimple("PONG", to: &output)
    }
  }

  private func hello(_ words: RESPWords, _ connection: RESPConnection) {
    if words.count >= 2, words.number(1) != 2 {
      return RESPReply.appendError("NOPROTO this node speaks protocol version 2", to: &connection.output.bytes)
    }
    var position = 2
    var name: [UInt8]?
    while position < words.count {
      guard words.name(position) == RESPName("setname"), position + 1 < words.count else {
        return Self.append(.syntax, to: &connection.output.bytes)
      }
      name = words.array(position + 1)
      position += 2
    }
    if let name { connection.name = name }
    let role = node.isLeader ? "master" : "replica"
    RESPReply.appendArray(14, to: &connection.output.bytes)
    for (field, value) in [("server", "weir"), ("version", Self.modelVersion), ("mode", "cluster"), ("role", role)] {
      RESPReply.appendBulk(field, to: &connection.output.bytes)
      RESPReply.appendBulk(value, to: &connection.output.bytes)
    }
    for (field, value) in [("proto", 2), ("id", Int64(connection.id))] {
      RESPReply.appendBulk(field, to: &connection.output.bytes)
      RESPReply.appendInteger(value, to: &connection.output.bytes)
    }
    RESPReply.appendBulk("modules", to: &connection.output.bytes)
    RESPReply.appendArray(0, to: &connection.output.bytes)
  }

  private func client(_ words: RESPWords, _ connection: RESPConnection) {
    switch (words.text(1).lowercased(), words.count) {
    case ("setname", 3):
      guard words.bytes[words.places[2]].allSatisfy({ (0x21...0x7E).contains($0) }), words.places[2].count <= 256 else {
        return RESPReply.appendError("ERR a name has at most 256 printable characters", to: &connection.output.bytes)
      }
      connection.name = words.array(2)
      RESPReply.appendSimple("OK", to: &connection.output.bytes)
    case ("setinfo", 4), ("no-evict", 3), ("no-touch", 3): RESPReply.appendSimple("OK", to: &connection.output.bytes)
    case ("getname", 2): RESPReply.appendBulk(connection.name, to: &connection.output.bytes)
    case ("id", 2): RESPReply.appendInteger(Int64(connection.id), to: &connection.output.bytes)
    case ("info", 2), ("list", 2):
      let text = "id=\(connection.id) name=\(String(decoding: connection.name, as: UTF8.self)) db=0 resp=2\n"
      RESPReply.appendBulk(text, to: &connection.output.bytes)
    default: Self.append(.unsupported("CLIENT \(words.text(1).prefix(32))"), to: &connection.output.bytes)
    }
  }

  // MARK: The server

  /// The version of Redis whose commands these are: clients look at it to know what they may use.
  private static var modelVersion: String { "6.2.0" }

  private func config(_ words: RESPWords, _ output: inout [UInt8]) {
    guard words.text(1).lowercased() == "get", words.count >= 3 else {
      return Self.append(.unsupported("CONFIG but GET"), to: &output)
    }
    let settings = [
      "appendonly": "yes", "save": "", "maxmemory": "0", "databases": "1", "timeout": "0",
      "maxclients": "\(configuration.maximumConnections)",
    ]
    let asked = (2..<words.count).map { words.text($0).lowercased() }
    let found = asked.contains("*") ? settings.keys.sorted() : asked.filter { settings[$0] != nil }
    RESPReply.appendArray(2 * found.count, to: &output)
    for name in found {
      RESPReply.appendBulk(name, to: &output)
      RESPReply.appendBulk(settings[name] ?? "", to: &output)
    }
  }

  private func time(_ output: inout [UInt8]) {
    RESPReply.appendArray(2, to: &output)
    RESPReply.appendBulk("\(now / 1000)", to: &output)
    RESPReply.appendBulk("\(now % 1000 * 1000)", to: &output)
  }

  private var infoText: String {
    let (status, size) = (node.status, node.store.size)
    // No line while there is nothing to count: as Redis has none for a database without keys, clients know how to do without.
    let keyspace = size.map { "db0:keys=\($0.keys),expires=\($0.deadlines)\r\n" } ?? ""
    let seconds = (cweir_monotonic_nanoseconds() &- startNanoseconds) / 1_000_000_000
    return """
      # Server\r
      redis_version:\(Self.modelVersion)\r
      server_name:weir\r
      redis_mode:cluster\r
      process_id:\(getpid())\r
      tcp_port:\(configuration.listenAddress.port)\r
      uptime_in_seconds:\(seconds)\r
      \r
      # Clients\r
      connected_clients:\(connections.count)\r
      maxclients:\(configuration.maximumConnections)\r
      \r
      # Persistence\r
      loading:\(size == nil ? 1 : 0)\r
      \r
      # Stats\r
      total_commands_processed:\(commandCount)\r
      \r
      # Replication\r
      role:\(node.isLeader ? "master" : "slave")\r
      raft_id:\(status.id)\r
      raft_leader:\(status.leader)\r
      raft_term:\(status.term)\r
      raft_commit_index:\(status.commitIndex)\r
      raft_applied_index:\(status.appliedIndex)\r
      read_consistency:\(configuration.consistency.rawValue)\r
      \r
      # Memory\r
      used_memory_dataset:\(node.store.memoryBytes)\r
      \r
      # Cluster\r
      cluster_enabled:1\r
      \r
      # Keyspace\r
      \(keyspace)
      """
  }

  // MARK: Commands

  private func describeCommands(_ words: RESPWords, _ output: inout [UInt8]) {
    switch words.count == 1 ? "" : words.text(1).lowercased() {
    case "": describe(RESPVerb.allCases.map { $0 }, &output)
    case "count": RESPReply.appendInteger(Int64(RESPVerb.allCases.count), to: &output)
    case "info": describe((2..<words.count).map { words.with($0, RESPVerb.named) }, &output)
    case "list":
      RESPReply.appendArray(RESPVerb.allCases.count, to: &output)
      for verb in RESPVerb.allCases { RESPReply.appendBulk(verb.rawValue, to: &output) }
    // Nothing to tell: redis-cli then knows no hints.
    case "docs": RESPReply.appendArray(0, to: &output)
    default: Self.append(.unsupported("COMMAND \(words.text(1).prefix(32))"), to: &output)
    }
  }

  private func describe(_ verbs: [RESPVerb?], _ output: inout [UInt8]) {
    RESPReply.appendArray(verbs.count, to: &output)
    for verb in verbs {
      guard let verb else {
        RESPReply.appendNull(to: &output)
        continue
      }
      let shape = verb.shape
      RESPReply.appendArray(6, to: &output)
      RESPReply.appendBulk(verb.rawValue, to: &output)
      RESPReply.appendInteger(Int64(shape.arity), to: &output)
      RESPReply.appendArray(1, to: &output)
      switch shape.kind {
      case .write: RESPReply.appendSimple("write", to: &output)
      case .read: RESPReply.appendSimple("readonly", to: &output)
      case .local: RESPReply.appendSimple("fast", to: &output)
      }
      for number in [shape.firstKey, shape.lastKey, shape.keyStep] {
        RESPReply.appendInteger(Int64(number), to: &output)
      }
    }
  }
}
