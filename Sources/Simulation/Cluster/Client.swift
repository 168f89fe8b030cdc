import WeirCore

/// What a client sends to a node.
struct ClientRequest: Sendable {
  var client: Int
  /// Tells a client's attempts apart: an answer to an earlier one is not taken for one to the present.
  var attempt: Int
  var kind: OperationKind
  var key: Int
  var sequence: UInt32
  var version: UInt64
}

/// What a node tells a client.
struct ClientAnswer: Sendable {
  enum Outcome: Sendable {
    /// Done; what was read, or written.
    case done(UInt64)
    /// The node did nothing, and nothing will come of the request.
    case refused
  }

  var client: Int
  var attempt: Int
  var node: Int
  var outcome: Outcome
}

/// One client: an operation at a time, asked of the node it believes to lead, again elsewhere if it is refused.
struct Client: Sendable {
  var random: RandomStream
  /// Counts operations; the state machine applies each once.
  var sequence: UInt32 = 0
  /// Counts requests.
  var attempt = 0
  var operations = 0
  /// Answers received since the cluster was healed.
  var answersSinceHealing = 0
  /// The node asked last.
  var node = 0
  var kind = OperationKind.get
  var key = 0
  var version: UInt64 = 0
  /// Position of the present operation in the history; nil between operations.
  var operation: Int?
  /// Whether an earlier attempt at the present operation may still take effect.
  var mayHaveEffect = false
  var refusals = 0
  var retries = 0
  var isWaiting = false

  init(seed: UInt64, client: Int, nodeCount: Int) {
    random = RandomStream(seed: seed, purpose: .workload, instance: UInt64(client))
    node = random.below(nodeCount)
  }

  /// Chooses the next operation.
  mutating func begin(client: Int, settings: WorkloadSettings) {
    operations += 1
    sequence += 1
    let isRead = random.chance(perMillion: settings.readPerMillion)
    let isDelete = random.chance(perMillion: settings.deletePerMillion)
    kind = isRead ? .get : isDelete ? .delete : .set
    key = random.below(settings.keys)
    version = kind.isWrite ? UInt64(client + 1) << 32 | UInt64(sequence) : 0
    mayHaveEffect = false
    refusals = 0
    retries = 0
  }

  func request(client: Int) -> ClientRequest {
    ClientRequest(client: client, attempt: attempt, kind: kind, key: key, sequence: sequence, version: version)
  }
}
