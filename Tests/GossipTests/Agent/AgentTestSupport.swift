import Foundation
import Gossip
import Synchronization
import Testing

/// Waits until `condition` holds; records an issue if it does not within `seconds`.
///
/// However late the time is, it is looked at a hundred times: tests of other rooms block the threads that tasks share,
/// and one that had to wait for them all the while has not had its chance yet.
func eventually(
  _ what: String, seconds: Double = 30, sourceLocation: SourceLocation = #_sourceLocation,
  _ condition: @Sendable () async -> Bool
) async {
  let end = ContinuousClock.now + .seconds(seconds)
  var looks = 0
  while looks < 100 || ContinuousClock.now < end {
    if await condition() { return }
    looks += 1
    try? await Task.sleep(for: .milliseconds(10))
  }
  Issue.record("not within \(seconds) s: \(what)", sourceLocation: sourceLocation)
}

/// Timings for tests: as tight as a loaded machine allows without false suspicions.
var testTimings: MembershipConfiguration {
  var timings = MembershipConfiguration.local
  timings.probeIntervalNanoseconds = 300_000_000
  timings.probeTimeoutNanoseconds = 150_000_000
  timings.gossipIntervalNanoseconds = 20_000_000
  timings.pushPullIntervalNanoseconds = 1_000_000_000
  timings.rejoinIntervalNanoseconds = 500_000_000
  return timings
}

func testConfiguration(_ name: NodeName, ip: IPAddress = IPAddress(127, 0, 0, 1)) -> GossipNodeConfiguration {
  GossipNodeConfiguration(name: name, bind: GossipAddress(ip: ip, port: 0), membership: testTimings)
}

/// Runs `body` with nodes, the later ones joined to the first, and shuts them down whatever happens.
func withCluster(
  _ configurations: [GossipNodeConfiguration], hooks: [GossipHooks] = [],
  _ body: ([GossipNode]) async throws -> Void
) async throws {
  var nodes: [GossipNode] = []
  do {
    for (index, configuration) in configurations.enumerated() {
      let node = try GossipNode(configuration, hooks: index < hooks.count ? hooks[index] : GossipHooks())
      nodes.append(node)
      if let first = nodes.first, index > 0 { try await node.join([first.address.description]) }
    }
    let cluster = nodes
    for node in cluster {
      await eventually("\(node.name) sees all") { node.members.count == cluster.count }
    }
    try await body(nodes)
  } catch {
    for node in nodes { await node.shutdown() }
    throw error
  }
  for node in nodes { await node.shutdown() }
}

/// Hooks that keep what they are given.
final class RecordingHooks: GossipDelegate, MemberEventDelegate, ConflictDelegate, MergeDelegate, AliveDelegate,
  PingDelegate
{
  struct Record {
    var messages: [[UInt8]] = []
    var events: [MemberEvent] = []
    var conflicts: [NodeName] = []
    var remoteStates: [[UInt8]] = []
    var pings: [(NodeName, [UInt8])] = []
    var toBroadcast: [[UInt8]] = []
  }
  struct Refusal: Error {}

  let record = Mutex(Record())
  let state: [UInt8]
  let refusesMerges: Bool
  let refusedName: NodeName?

  init(state: [UInt8] = [], refusesMerges: Bool = false, refusedName: NodeName? = nil) {
    self.state = state
    self.refusesMerges = refusesMerges
    self.refusedName = refusedName
  }

  var messages: [[UInt8]] { record.withLock { $0.messages } }
  var events: [MemberEvent] { record.withLock { $0.events } }

  func receive(userMessage: [UInt8]) { record.withLock { $0.messages.append(userMessage) } }
  var providesBroadcasts: Bool { true }
  func broadcasts(overheadBytes: Int, limitBytes: Int) -> [[UInt8]] {
    record.withLock { record in
      let messages = record.toBroadcast
      record.toBroadcast = []
      return messages
    }
  }
  func localState(isJoin: Bool) -> [UInt8] { state }
  func mergeRemoteState(_ state: [UInt8], isJoin: Bool) { record.withLock { $0.remoteStates.append(state) } }
  func memberChanged(_ event: MemberEvent) { record.withLock { $0.events.append(event) } }
  func nameConflict(existing: Member, other: Member) { record.withLock { $0.conflicts.append(other.name) } }
  func approveMerge(of members: [Member]) throws { if refusesMerges { throw Refusal() } }
  func approveAlive(_ member: Member) throws { if member.name == refusedName { throw Refusal() } }
  func ackPayload() -> [UInt8]? { [4, 2] }
  func pingCompleted(_ member: Member, roundTripNanoseconds: UInt64, payload: [UInt8]) {
    record.withLock { $0.pings.append((member.name, payload)) }
  }

  var hooks: GossipHooks {
    GossipHooks(delegate: self, events: self, conflicts: self, merges: self, pings: self)
  }
}
