import WeirCore

/// One member's part in a configuration change.
public struct MemberChange: Sendable, Hashable {
  /// What happens to the member; the numbers are those of etcd's raftpb, and go into the log.
  public enum Kind: UInt8, Sendable, CaseIterable {
    case addVoter = 0
    case remove = 1
    /// The application knows new facts about the member; Raft itself does nothing.
    case update = 2
    case addLearner = 3
  }

  public var kind: Kind
  /// 0 turns the change into nothing: how an application refuses a change that is already committed.
  public var nodeID: NodeID

  public init(_ kind: Kind, _ nodeID: NodeID) {
    self.kind = kind
    self.nodeID = nodeID
  }
}

/// A configuration change of one member (etcd's ConfChange): entries of kind `configurationChange`.
public struct ConfigurationChange: Sendable, Hashable {
  /// The application's own number for the change.
  public var id: UInt64
  public var change: MemberChange
  /// The application's own bytes, at most `ConfigurationChangeV2.maximumContextBytes`.
  public var context: [UInt8]

  public init(id: UInt64 = 0, _ change: MemberChange, context: [UInt8] = []) {
    self.id = id
    self.change = change
    self.context = context
  }

  /// The same change in the general form.
  public var v2: ConfigurationChangeV2 { ConfigurationChangeV2(changes: [change], context: context) }

  /// The payload of its entry: id (8 bytes, little-endian), kind (1), member (8), context.
  public func encoded() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.appendLittleEndian(id)
    bytes.append(change.kind.rawValue)
    bytes.appendLittleEndian(change.nodeID)
    bytes.append(contentsOf: context)
    return bytes
  }

  /// - Throws: `ConfigurationChangeError.malformed` if the payload is not one.
  public init(decoding payload: RawSpan) throws(ConfigurationChangeError) {
    guard payload.byteCount >= 17 else { throw .malformed }
    guard let kind = MemberChange.Kind(rawValue: payload.byte(at: 8)) else { throw .malformed }
    guard payload.byteCount <= 17 + ConfigurationChangeV2.maximumContextBytes else { throw .malformed }
    id = payload.littleEndianUInt64(at: 0)
    change = MemberChange(kind, payload.littleEndianUInt64(at: 9))
    context = payload.bytes(in: 17..<payload.byteCount)
  }
}

/// A configuration change of any number of members (etcd's ConfChangeV2): entries of kind `configurationChangeV2`.
///
/// A change of one member is applied at once (Raft dissertation, section 4.1); a change of several goes through a joint
/// configuration, in which decisions need a majority of the old and of the new members (section 4.3). The empty change
/// leaves a joint configuration.
public struct ConfigurationChangeV2: Sendable, Hashable {
  /// Whether to go through a joint configuration, and who leaves it; the numbers are etcd's, and go into the log.
  public enum Transition: UInt8, Sendable, CaseIterable {
    /// Joint if more than one member changes, left by the leader on its own.
    case auto = 0
    /// Joint in any case, left by the leader on its own.
    case jointImplicit = 1
    /// Joint in any case, left when the application proposes the empty change.
    case jointExplicit = 2
  }

  /// The most members one change may name.
  public static let maximumChanges = 1024
  /// The largest context in bytes.
  public static let maximumContextBytes = 64 << 10

  public var transition: Transition
  public var changes: [MemberChange]
  /// The application's own bytes, at most `maximumContextBytes`.
  public var context: [UInt8]

  public init(transition: Transition = .auto, changes: [MemberChange] = [], context: [UInt8] = []) {
    self.transition = transition
    self.changes = changes
    self.context = context
  }

  /// Whether the change goes through a joint configuration.
  public var entersJoint: Bool { transition != .auto || changes.count > 1 }

  /// Whether the leader leaves that joint configuration on its own.
  public var autoLeaves: Bool { transition != .jointExplicit }

  /// Whether the change leaves a joint configuration.
  public var leavesJoint: Bool { transition == .auto && changes.isEmpty }

  /// The payload of its entry: transition (1 byte), number of changes (2), each change's kind (1) and member (8),
  /// context. The empty change has the empty payload.
  public func encoded() -> [UInt8] {
    guard transition != .auto || !changes.isEmpty || !context.isEmpty else { return [] }
    invariant(changes.count <= Self.maximumChanges, "a change names at most maximumChanges members")
    var bytes: [UInt8] = [transition.rawValue, UInt8(changes.count & 0xFF), UInt8(changes.count >> 8)]
    for change in changes {
      bytes.append(change.kind.rawValue)
      bytes.appendLittleEndian(change.nodeID)
    }
    bytes.append(contentsOf: context)
    return bytes
  }

  /// - Throws: `ConfigurationChangeError.malformed` if the payload is not one.
  public init(decoding payload: RawSpan) throws(ConfigurationChangeError) {
    guard payload.byteCount > 0 else {
      self.init()
      return
    }
    guard payload.byteCount >= 3, let transition = Transition(rawValue: payload.byte(at: 0)) else { throw .malformed }
    let count = Int(payload.byte(at: 1)) | Int(payload.byte(at: 2)) << 8
    let end = 3 + 9 * count
    guard count <= Self.maximumChanges, payload.byteCount >= end,
      payload.byteCount <= end + Self.maximumContextBytes
    else { throw .malformed }
    var changes: [MemberChange] = []
    for position in 0..<count {
      guard let kind = MemberChange.Kind(rawValue: payload.byte(at: 3 + 9 * position)) else { throw .malformed }
      changes.append(MemberChange(kind, payload.littleEndianUInt64(at: 4 + 9 * position)))
    }
    self.init(transition: transition, changes: changes, context: payload.bytes(in: end..<payload.byteCount))
  }
}

/// Why a configuration change is refused. The texts are those of etcd's raft.
public enum ConfigurationChangeError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The payload is not a configuration change.
  case malformed
  case alreadyJoint
  case zeroVoterJoint
  case notJoint
  case simpleInJoint
  case removedAllVoters
  case moreThanOneVoterChanged

  public var description: String {
    switch self {
    case .malformed: "malformed configuration change"
    case .alreadyJoint: "config is already joint"
    case .zeroVoterJoint: "can't make a zero-voter config joint"
    case .notJoint: "can't leave a non-joint config"
    case .simpleInJoint: "can't apply simple config change in joint config"
    case .removedAllVoters: "removed all voters"
    case .moreThanOneVoterChanged: "more than one voter changed without entering joint config"
    }
  }
}

extension Array where Element == UInt8 {
  fileprivate mutating func appendLittleEndian(_ value: UInt64) {
    for shift in stride(from: UInt64(0), to: 64, by: 8) { append(UInt8(truncatingIfNeeded: value >> shift)) }
  }
}

extension RawSpan {
  // Each checks its bounds by `extracting`, which stops the process rather than read outside; callers have compared
  // the lengths before.
  func byte(at offset: Int) -> UInt8 { extracting(offset..<offset + 1).unsafeLoad(as: UInt8.self) }

  func littleEndianUInt64(at offset: Int) -> UInt64 {
    UInt64(littleEndian: extracting(offset..<offset + 8).unsafeLoadUnaligned(as: UInt64.self))
  }

  func bytes(in range: Range<Int>) -> [UInt8] { extracting(range).withUnsafeBytes { [UInt8]($0) } }
}
