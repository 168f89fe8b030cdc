import Testing

@testable import Gossip

/// A membership under test, with its clock and what it has sent and said.
final class MembershipHarness {
  private(set) var membership: Membership
  private(set) var now: UInt64 = 0
  /// Decoded messages sent since the last `takeSent`, in order.
  private(set) var sent: [(to: GossipAddress, messages: [GossipMessage], withChecksum: Bool)] = []
  private(set) var events: [MemberEvent] = []
  private(set) var actions: [Action] = []
  private(set) var delivered: [[UInt8]] = []
  private var cache = ByteStringCache()

  /// Whether every ping that goes out while time passes is answered at once.
  var answersPings = false

  static let address = GossipAddress(ip: IPAddress(10, 0, 0, 1), port: 7946)

  init(
    name: NodeName = "self", metadata: [UInt8] = [], seed: UInt64 = 1,
    configure: (inout MembershipConfiguration) -> Void = { _ in }
  ) throws {
    var configuration = MembershipConfiguration.lan
    configure(&configuration)
    membership = try Membership(
      name: name, address: Self.address, metadata: metadata, configuration: configuration, seed: seed,
      nowNanoseconds: 0)
    collect()
    forgetHistory()
  }

  static func peerAddress(_ number: UInt8) -> GossipAddress {
    GossipAddress(ip: IPAddress(10, 0, 1, number), port: 7946)
  }

  /// Makes `count` members p1, p2, … known, alive with incarnation 1.
  func addPeers(_ count: UInt8) {
    for number in 1...count {
      receive(.alive(alive(NodeName("p\(number)"), incarnation: 1, address: Self.peerAddress(number))))
    }
    forgetHistory()
  }

  func alive(_ name: NodeName, incarnation: UInt32, address: GossipAddress, meta: [UInt8] = []) -> Alive {
    Alive(incarnation: incarnation, node: name, address: address, meta: meta)
  }

  func receive(_ message: GossipMessage, from source: GossipAddress = peerAddress(200)) {
    membership.receive(message, from: source, nowNanoseconds: now)
    collect()
  }

  /// Calls into the membership and collects what it decides.
  func perform<Result>(_ body: (inout Membership, UInt64) throws -> Result) rethrows -> Result {
    let result = try body(&membership, now)
    collect()
    return result
  }

  /// Lets time pass, deadline by deadline.
  func advance(by nanoseconds: UInt64, until isDone: () -> Bool = { false }) {
    let end = now + nanoseconds
    while membership.nextDeadlineNanoseconds <= end, !isDone() {
      now = max(now, membership.nextDeadlineNanoseconds)
      let sentBefore = sent.count
      membership.tick(nowNanoseconds: now)
      collect()
      if answersPings { answerPings(in: sent[sentBefore...]) }
    }
    if !isDone() { now = end }
  }

  private func answerPings(in packets: ArraySlice<(to: GossipAddress, messages: [GossipMessage], withChecksum: Bool)>) {
    for packet in packets {
      for case .ping(let ping) in packet.messages {
        receive(.ack(Ack(sequenceNumber: ping.sequenceNumber)), from: packet.to)
      }
    }
  }

  func state(of name: NodeName) -> NodeStateKind? { membership.member(named: name)?.state }
  func incarnation(of name: NodeName) -> UInt32? { membership.member(named: name)?.incarnation }

  func forgetHistory() {
    sent.removeAll()
    events.removeAll()
    actions.removeAll()
    delivered.removeAll()
  }

  func forgetHistoryOfPackets() {
    sent.removeAll()
  }

  /// Every message sent since the history was last forgotten.
  var sentMessages: [GossipMessage] { sent.flatMap(\.messages) }

  private func collect() {
    for action in membership.outbox.actions {
      actions.append(action)
      switch action {
      case .sendPacket(let address, let body, let withChecksum):
        sent.append((address, decode(Array(membership.outbox.bytes[body])), withChecksum))
      case .event(let event): events.append(event)
      case .deliver(let range): delivered.append(Array(membership.outbox.bytes[range]))
      default: break
      }
    }
    membership.clearOutbox()
  }

  private func decode(_ body: [UInt8]) -> [GossipMessage] {
    guard let first = body.first, let type = MessageType(rawValue: first) else {
      Issue.record("a packet without a type")
      return []
    }
    guard type == .compound else {
      do {
        return [try GossipMessage(type: type, body: body.span.extracting(1..<body.count), cache: &cache)]
      } catch {
        Issue.record("sent what cannot be decoded: \(error)")
        return []
      }
    }
    let count = Int(body[1])
    var start = 2 + 2 * count
    var messages: [GossipMessage] = []
    for part in 0..<count {
      let length = Int(body[2 + 2 * part]) << 8 | Int(body[3 + 2 * part])
      messages += decode(Array(body[start..<(start + length)]))
      start += length
    }
    #expect(start == body.count)
    return messages
  }
}

/// One millisecond and one second in nanoseconds.
let millisecond: UInt64 = 1_000_000
let second: UInt64 = 1_000_000_000
