import WeirCore

/// What a client asks of the replicated registers.
public enum OperationKind: UInt8, Sendable, CaseIterable {
  case get = 0
  case set = 1
  case delete = 2

  public var isWrite: Bool { self != .get }
}

/// The payload of a client's entry: who writes which version to which register.
///
/// Every write carries a version that no other has, deletions too, so that a read names the very write it saw: histories
/// of such registers can be checked in O(n log n).
struct Command: Hashable, Sendable {
  static let headerBytes = 24

  var client: UInt32
  /// Counts a client's operations: a state machine applies each at most once, as the network may duplicate a forwarded
  /// proposal.
  var sequence: UInt32
  var key: UInt32
  var kind: OperationKind
  var version: UInt64

  /// Encodes into `bytes`, filled up with zeros to `sizeBytes` where that is more.
  func encode(sizeBytes: Int, into bytes: inout [UInt8]) {
    bytes.removeAll(keepingCapacity: true)
    Self.append(UInt64(client) | UInt64(sequence) << 32, to: &bytes)
    Self.append(UInt64(key) | UInt64(kind.rawValue) << 32, to: &bytes)
    Self.append(version, to: &bytes)
    while bytes.count < sizeBytes { bytes.append(0) }
  }

  init(client: UInt32, sequence: UInt32, key: UInt32, kind: OperationKind, version: UInt64) {
    self.client = client
    self.sequence = sequence
    self.key = key
    self.kind = kind
    self.version = version
  }

  /// The command in a payload, or nil if it is none.
  init?(decoding payload: RawSpan) {
    guard payload.byteCount >= Self.headerBytes else { return nil }
    let first = UInt64(littleEndian: payload.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt64.self))
    let second = UInt64(littleEndian: payload.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt64.self))
    version = UInt64(littleEndian: payload.unsafeLoadUnaligned(fromByteOffset: 16, as: UInt64.self))
    guard let kind = OperationKind(rawValue: UInt8(truncatingIfNeeded: second >> 32)) else { return nil }
    self.kind = kind
    client = UInt32(truncatingIfNeeded: first)
    sequence = UInt32(truncatingIfNeeded: first >> 32)
    key = UInt32(truncatingIfNeeded: second)
  }

  static func append(_ word: UInt64, to bytes: inout [UInt8]) {
    for shift in stride(from: UInt64(0), to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: word >> shift)) }
  }
}

/// The replicated state machine: registers, and how far each client has come.
struct RegisterMachine: Sendable, Hashable {
  /// The version in each register; 0 where nothing was ever written.
  private(set) var versions: [UInt64]
  /// The last operation applied of each client.
  private(set) var sessions: [UInt32]
  private(set) var appliedIndex: LogIndex = 0
  private(set) var appliedTerm: Term = 0
  /// Digest of every entry applied so far, in order. Two replicas at the same index have the same.
  private(set) var digest: UInt64 = 0

  init(keys: Int, clients: Int) {
    versions = Array(repeating: 0, count: keys)
    sessions = Array(repeating: 0, count: clients)
  }

  /// The state that a cluster begins with.
  mutating func begin(at index: LogIndex, term: Term) {
    appliedIndex = index
    appliedTerm = term
    digest = 0x5EED
  }

  /// Applies one entry.
  /// - Returns: the command that it carried, if it was a client's.
  @discardableResult
  mutating func apply(_ header: EntryHeader, _ payload: RawSpan, remembersSessions: Bool = true) -> Command? {
    appliedIndex = header.index
    appliedTerm = header.term
    digest = Self.chain(digest, header, payload)
    guard header.kind == .normal, let command = Command(decoding: payload) else { return nil }
    let client = Int(command.client)
    guard client < sessions.count, Int(command.key) < versions.count else { return command }
    if remembersSessions, sessions[client] >= command.sequence { return command }
    sessions[client] = max(sessions[client], command.sequence)
    versions[Int(command.key)] = command.version
    return command
  }

  /// Whether the entry holds an operation that was applied before.
  func holds(_ payload: RawSpan, _ header: EntryHeader) -> Bool {
    guard header.kind == .normal, let command = Command(decoding: payload) else { return false }
    return Int(command.client) < sessions.count && sessions[Int(command.client)] >= command.sequence
  }

  /// Pretends to have applied everything up to `index`.
  mutating func skip(to index: LogIndex) { appliedIndex = max(appliedIndex, index) }

  /// Continues a digest of entries by one entry: also the hash chain by which logs are compared.
  static func chain(_ previous: UInt64, _ header: EntryHeader, _ payload: RawSpan) -> UInt64 {
    var hash = TraceHash()
    hash.add(previous)
    hash.add(header.index)
    hash.add(header.term << 8 | UInt64(header.kind.rawValue))
    hash.add(bytes: payload)
    return hash.value
  }

  /// The state as bytes: what a snapshot carries.
  func encode() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(8 * (5 + versions.count + sessions.count))
    for word in [appliedIndex, appliedTerm, digest, UInt64(versions.count), UInt64(sessions.count)] {
      Command.append(word, to: &bytes)
    }
    for version in versions { Command.append(version, to: &bytes) }
    for session in sessions { Command.append(UInt64(session), to: &bytes) }
    return bytes
  }

  /// The state in bytes that `encode` made, or nil if they are others.
  init?(decoding bytes: [UInt8]) {
    guard bytes.count >= 40, bytes.count % 8 == 0 else { return nil }
    var words: [UInt64] = []
    words.reserveCapacity(bytes.count / 8)
    for start in stride(from: 0, to: bytes.count, by: 8) {
      var word: UInt64 = 0
      for position in 0..<8 { word |= UInt64(bytes[start + position]) << UInt64(8 * position) }
      words.append(word)
    }
    guard words[3] <= 1 << 20, words[4] <= 1 << 20, words.count == 5 + Int(words[3]) + Int(words[4]) else { return nil }
    appliedIndex = words[0]
    appliedTerm = words[1]
    digest = words[2]
    versions = Array(words[5..<5 + Int(words[3])])
    sessions = words[(5 + Int(words[3]))...].map { UInt32(truncatingIfNeeded: $0) }
  }
}
