import Raft
import Synchronization
import Testing
import WeirCore
import WeirTransport

@testable import WeirCache

@Suite struct ClientTests {
  /// 3 s: what these tests ask of a leader counts on its being one until they are through.
  private static let electionTicks = 150

  private func withLeader(
    _ nodeCount: Int = 3, _ body: (EmbeddedCluster, Node) async throws -> Void
  ) async throws {
    let cluster = try EmbeddedCluster(nodeCount: nodeCount, seed: 11, log: quietLog()) { configuration in
      configuration.tickNanoseconds = 20_000_000
      configuration.electionTicks = Self.electionTicks
    }
    defer { cluster.stop() }
    try await body(cluster, cluster.elect())
  }

  @Test func applyReadBarrierAndVerify() async throws {
    try await withLeader { _, leader in
      let first = try await leader.apply(setCommand("a", "1"))
      let second = try await leader.apply(setCommand("a", "2"))
      #expect(!first.existed && second.existed && second.index > first.index)
      for consistency in ReadConsistency.allCases {
        #expect(try await leader.read(Array("a".utf8), consistency) == Array("2".utf8))
        #expect(try await leader.read(Array("absent".utf8), consistency) == nil)
      }
      let index = try await leader.barrier()
      #expect(index > second.index)
      #expect(leader.status.appliedIndex >= index)
      try await leader.verifyLeader()
    }
  }

  @Test func manyTasksAtOnceEachGetTheirOwnAnswer() async throws {
    try await withLeader { _, leader in
      let indexes = try await withThrowingTaskGroup(of: LogIndex.self) { group in
        for task in 0..<500 {
          group.addTask { try await leader.apply(setCommand("key\(task)", "\(task)")).index }
        }
        var indexes: Set<LogIndex> = []
        for try await index in group { indexes.insert(index) }
        return indexes
      }
      #expect(indexes.count == 500)
      #expect(leader.store.count == 500)
      // Proposals that waited together were proposed together.
      #expect(leader.counters.proposalBatches < 501)
    }
  }

  @Test func whatIsNoCommandIsRefusedBeforeItEntersTheLog() async throws {
    try await withLeader(1) { _, leader in
      let error = await #expect(throws: NodeError.self) { _ = try await leader.apply([9, 9, 9]) }
      #expect(error == .invalidCommand(.malformed))
    }
  }

  @Test func withoutAQuorumTheCommitTimeoutSaysThatTheOutcomeIsUnknown() async throws {
    try await withLeader(3) { cluster, leader in
      for node in cluster.nodes where node !== leader { node.stop() }
      let timeouts = ApplyTimeouts(enqueueNanoseconds: 50_000_000, commitNanoseconds: 200_000_000)
      let error = await #expect(throws: NodeError.self) {
        _ = try await leader.apply(setCommand("a", "b"), timeouts: timeouts)
      }
      #expect(error == .commitTimeout)
    }
  }

  @Test func aNodeThatDoesNotTakeProposalsInTimeHasNotTakenThem() async throws {
    // Not started: nothing ever drains its lanes.
    let configuration = NodeConfiguration(
      id: 1, clusterID: 5, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0), initialVoters: [1], seed: 1,
      log: quietLog())
    let node = try Node(configuration)
    let timeouts = ApplyTimeouts(enqueueNanoseconds: 50_000_000, commitNanoseconds: 60_000_000_000)
    let error = await #expect(throws: NodeError.self) {
      _ = try await node.apply(setCommand("late", "b"), timeouts: timeouts)
    }
    #expect(error == .enqueueTimeout)
    node.start()
    #expect(eventually { node.isLeader })
    try await node.apply(setCommand("in time", "b"))
    #expect(node.store.get(Array("late".utf8)) == nil)
    #expect(node.store.get(Array("in time".utf8)) != nil)
    node.stop()
    let stopped = await #expect(throws: NodeError.self) { _ = try await node.apply(setCommand("a", "b")) }
    #expect(stopped == .shutdown)
  }

  @Test func tooMuchAtOnceIsRefusedAsOverload() async throws {
    let configuration: NodeConfiguration = try {
      var configuration = NodeConfiguration(
        id: 1, clusterID: 5, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0), initialVoters: [1],
        seed: 1, log: quietLog())
      configuration.maximumLaneBytes = 4096
      return configuration
    }()
    let node = try Node(configuration)
    let overloads = Atomic<Int>(0)
    let others = Atomic<Int>(0)
    for key in 0..<100 {
      node.apply(setCommand("key\(key)", String(repeating: "x", count: 200))) { result in
        if case .failure(.overloaded) = result {
          overloads.add(1, ordering: .relaxed)
        } else {
          others.add(1, ordering: .relaxed)
        }
      }
    }
    #expect(overloads.load(ordering: .relaxed) > 50)
    node.start()
    node.stop()
    #expect(eventually { overloads.load(ordering: .relaxed) + others.load(ordering: .relaxed) == 100 })
  }

  @Test func leadershipMovesToTheChosenNode() async throws {
    try await withLeader { cluster, leader in
      let target = try #require(cluster.nodes.first { $0 !== leader })
      try await leader.apply(setCommand("a", "1"))
      try await leader.transferLeadership(to: target.id)
      #expect(eventually { target.isLeader && !leader.isLeader })
      #expect(!leader.leaseHeldDuringReads())
      #expect(eventually { target.holdsLease })
      #expect(try await target.read(Array("a".utf8)) == Array("1".utf8))
      let error = await #expect(throws: NodeError.self) { try await target.transferLeadership(to: 99) }
      #expect(error == .invalidChange("node 99 is not a voter"))
    }
  }

  @Test func membersComeAndGoConditionally() async throws {
    try await withLeader(3) { cluster, leader in
      let clusterID = UInt64(11 | 1)
      var settings = NodeConfiguration(
        id: 4, clusterID: clusterID, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0), initialVoters: [],
        seed: 44, log: quietLog())
      settings.tickNanoseconds = 20_000_000
      settings.electionTicks = Self.electionTicks
      let joiner = try Node(settings)
      joiner.start()
      defer { joiner.stop() }
      let address = try #require(joiner.address)
      try await leader.apply(setCommand("a", "1"))
      let seen = Mutex<[ConfigurationState]>([])
      let observer = leader.observe { event in
        if case .configurationChanged(let state, _) = event { seen.withLock { $0.append(state) } }
      }
      let first = try await leader.addLearner(4, address: address)
      #expect(eventually { joiner.store.get(Array("a".utf8)) != nil })
      let stale = await #expect(throws: NodeError.self) {
        _ = try await leader.addVoter(4, address: address, ifIndexIs: first - 1)
      }
      #expect(stale == .configurationChanged(currentIndex: first))
      let second = try await leader.addVoter(4, address: address, ifIndexIs: first)
      let membership = try await leader.membership()
      #expect(membership.configuration.voters == [1, 2, 3, 4] && membership.index == second)
      let gone = try #require(cluster.nodes.first { $0 !== leader })
      _ = try await leader.removeServer(gone.id)
      leader.removeObserver(observer)
      #expect(seen.withLock { $0.count } == 3)
      try await leader.apply(setCommand("a", "2"))
      #expect(eventually { joiner.store.get(Array("a".utf8)) == Array("2".utf8) })
    }
  }
}
