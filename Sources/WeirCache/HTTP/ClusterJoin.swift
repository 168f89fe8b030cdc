import CWeir
import Glibc
import HTTPWire
import Logging
import WeirCore
import WeirTransport

/// Asks to be made a voter, of any member, until it succeeds: members come up in any order, and a cluster may be in the
/// middle of an election.
public struct ClusterJoin: Sendable {
  /// Why it was given up.
  public struct Failure: Error, Sendable, Hashable, CustomStringConvertible {
    public var reason: String

    public var description: String { "the cluster could not be joined: \(reason)" }
  }

  public var id: NodeID
  /// Where this node listens for peers, `host:port`.
  public var raftAddress: String
  /// Where members serve HTTP, asked in turn.
  public var members: [SocketAddress]

  public init(id: NodeID, raftAddress: String, members: [SocketAddress]) {
    self.id = id
    self.raftAddress = raftAddress
    self.members = members
  }

  /// Blocks until this node is a member.
  /// - Throws: `Failure` at once for what will not change, and at the deadline (CLOCK_MONOTONIC) otherwise.
  public func run(deadlineNanoseconds: UInt64, log: Logger) throws(Failure) {
    var last = "no member was named"
    var attempt = 0
    while !members.isEmpty, cweir_monotonic_nanoseconds() < deadlineNanoseconds {
      if attempt > 0 { usleep(Self.pauseMicroseconds) }
      let member = members[attempt % members.count]
      attempt += 1
      switch ask(member, deadlineNanoseconds) {
      case .joined: return
      case .again(let reason):
        last = "\(member): \(reason)"
        log.info("joining: \(last)")
      case .never(let reason): throw Failure(reason: "\(member): \(reason)")
      }
    }
    throw Failure(reason: last)
  }

  private static var pauseMicroseconds: UInt32 { 200_000 }
  private static var maximumRedirects: Int { 4 }

  private enum Step {
    case joined
    case again(String)
    case never(String)
  }

  private func ask(_ member: SocketAddress, _ deadline: UInt64) -> Step {
    let target = "/join?id=\(id)&peerAddress=\(raftAddress)"
    var address = member
    for _ in 0..<Self.maximumRedirects {
      let answer: HTTPExchange.Answer
      let patience = min(deadline, cweir_monotonic_nanoseconds() &+ 15_000_000_000)
      do throws(HTTPExchange.Failure) {
        answer = try HTTPExchange.request(.post, target, at: address, deadlineNanoseconds: patience)
      } catch {
        return .again(error.description)
      }
      switch answer.code {
      case 200: return .joined
      case 307:
        guard let next = answer.location.flatMap(Self.authority) else { return .again("it redirects to nowhere") }
        address = next
      // Another change is under way, or the outcome is unknown: asking again does no harm.
      case 409, 503, 504: return .again(answer.text)
      default: return .never("\(answer.code) \(answer.text)")
      }
    }
    return .again("it redirects in circles")
  }

  private static func authority(_ location: String) -> SocketAddress? {
    guard location.hasPrefix("http://") else { return nil }
    return try? SocketAddress(parsing: String(location.dropFirst(7).prefix { $0 != "/" }))
  }
}
