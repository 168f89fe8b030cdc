/// The network between simulated members.
public struct GossipNetwork: Sendable, Hashable {
  /// Packets lost, and segments of streams that have to be sent again.
  public var lossPerMillion = 0
  /// Packets that arrive twice.
  public var duplicatePerMillion = 0
  /// One way, at least.
  public var minimumDelayNanoseconds = 200_000
  /// One way, at most, but for the slow ones.
  public var maximumDelayNanoseconds = 2_000_000
  /// Packets that take up to `slowDelayNanoseconds`: the tail of the distribution, which also reorders.
  public var slowPerMillion = 0
  public var slowDelayNanoseconds = 400_000_000

  public init() {}

  /// Nothing is lost, nothing is slow.
  public static let calm = GossipNetwork()

  /// Loses so many percent of all packets.
  public static func losing(percent: Int) -> GossipNetwork {
    var network = GossipNetwork()
    network.lossPerMillion = percent * 10_000
    return network
  }

  /// How long one packet takes.
  func delay(_ random: inout RandomStream) -> UInt64 {
    let usual = random.between(minimumDelayNanoseconds, maximumDelayNanoseconds)
    guard random.chance(perMillion: slowPerMillion) else { return UInt64(max(0, usual)) }
    return UInt64(max(0, usual + random.below(slowDelayNanoseconds)))
  }

  /// How long a segment of a stream takes: TCP sends a lost one again, first after `firstRetryNanoseconds`, then after twice
  /// that, and so on. nil when it gives up.
  func segmentDelay(_ random: inout RandomStream, firstRetryNanoseconds: UInt64) -> UInt64? {
    var waited: UInt64 = 0
    var retry = firstRetryNanoseconds
    for _ in 0..<6 {
      guard random.chance(perMillion: lossPerMillion) else { return waited + delay(&random) }
      waited += retry
      retry *= 2
    }
    return nil
  }
}
