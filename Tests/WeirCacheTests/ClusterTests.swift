import Foundation
import Raft
import Synchronization
import Testing
import WeirCore
import WeirStorage
import WeirTransport

@testable import WeirCache

@Suite struct ClusterTests {
  @Test(arguments: [1, 3, 5], ReadinessMechanism.allCases)
  func writesAreReplicatedAndReadBack(nodeCount: Int, mechanism: ReadinessMechanism) throws {
    try withCluster(nodeCount, adjust: { $0.eventLoop.mechanism = mechanism }) { cluster, leader in
      let client = try TestClient(leader)
      let count: UInt32 = 1000
      for start in stride(from: 0, to: count, by: 100) {
        let commands = (start..<start + 100).map { ($0, setCommand("key\($0)", "value\($0)")) }
        #expect(client.submit(commands))
      }
      #expect(client.wait(for: Int(count)))
      #expect(client.outcomes.values.allSatisfy { $0 == .appliedFresh })
      #expect(client.confirmRead() == true)
      #expect(leader.store.get(Array("key999".utf8)) == Array("value999".utf8))
      #expect(cluster.waitUntilEven(deadlineNanoseconds: deadline(inSeconds: 60)))
      #expect(Set(cluster.nodes.map(\.store.stateHash)).count == 1)
      #expect(cluster.nodes.allSatisfy { $0.store.count == Int(count) })
    }
  }

  @Test func followersRefuseAtOnceAndSayWhoLeads() async throws {
    let cluster = try EmbeddedCluster(nodeCount: 3, seed: 3, log: quietLog())
    defer { cluster.stop() }
    let leader = try #require(cluster.waitForLeader(deadlineNanoseconds: deadline(inSeconds: 60)))
    let follower = try #require(cluster.nodes.first { $0 !== leader })
    #expect(eventually { follower.status.leader == leader.id })
    let error = await #expect(throws: NodeError.self) { _ = try await follower.apply(setCommand("a", "b")) }
    #expect(error == .notLeader(hint: leader.id))
    let client = try TestClient(follower)
    #expect(client.submit([(UInt32(7), setCommand("a", "b"))]))
    #expect(client.wait(for: 1))
    #expect(client.outcomes[7] == .notLeader)
    #expect(client.confirmRead() == false)
    #expect(!follower.leaseHeldDuringReads())
  }

  @Test func everythingUnderWayIsAnsweredWhenANodeStops() throws {
    try withCluster { _, leader in
      let client = try TestClient(leader, capacity: 20_000)
      var taken = 0
      for start in stride(from: UInt32(0), to: 20_000, by: 500) {
        if client.submit((start..<start + 500).map { ($0, setCommand("k\($0 % 50)", "v")) }) { taken += 500 }
      }
      leader.stop()
      #expect(client.wait(for: taken))
      #expect(client.outcomes.values.allSatisfy { $0.isApplied || $0 == .shutdown || $0 == .notLeader })
      #expect(!client.submit([(UInt32(1), setCommand("a", "b"))]))
    }
  }

  @Test func anotherNodeTakesOverAndNothingAcknowledgedIsLost() throws {
    try withCluster(3, seed: 9) { cluster, leader in
      let client = try TestClient(leader)
      #expect(client.submit((UInt32(0)..<500).map { ($0, setCommand("key\($0)", "value\($0)")) }))
      #expect(client.wait(for: 500))
      leader.stop()
      let rest = cluster.nodes.filter { $0 !== leader }
      #expect(eventually { rest.contains { $0.holdsLease } })
      let next = try #require(rest.first { $0.holdsLease })
      for key in 0..<500 { #expect(next.store.get(Array("key\(key)".utf8)) == Array("value\(key)".utf8)) }
    }
  }

  @Test func aFollowerBehindTheLogIsSentTheState() throws {
    let network = InMemoryNetwork()
    let nodes = try (1...3).map { id in
      var configuration = NodeConfiguration(
        id: UInt64(id), clusterID: 5, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0),
        initialVoters: [1, 2, 3], seed: UInt64(id), log: quietLog())
      configuration.tickNanoseconds = 20_000_000
      configuration.maximumLogBytes = 64 << 10
      configuration.trailingLogBytes = 16 << 10
      configuration.maximumMessageBytes = 8 << 10
      configuration.maximumInflightBytes = 64 << 10
      return try Node(configuration, network: network)
    }
    for node in nodes { node.start() }
    defer { for node in nodes { node.stop() } }
    #expect(eventually { nodes.contains { $0.holdsLease } })
    let leader = try #require(nodes.first { $0.holdsLease })
    let away = try #require(nodes.last { $0 !== leader })
    for node in nodes where node !== away {
      network.setCut(from: node.id, to: away.id, true)
      network.setCut(from: away.id, to: node.id, true)
    }
    let client = try TestClient(leader)
    for start in stride(from: UInt32(0), to: 4000, by: 100) {
      #expect(client.submit((start..<start + 100).map { ($0, setCommand("key\($0 % 700)", "value\($0)")) }))
      #expect(client.wait(for: Int(start) + 100))
    }
    let installed = Mutex<[LogIndex]>([])
    _ = away.observe { event in
      if case .snapshotInstalled(let index) = event { installed.withLock { $0.append(index) } }
    }
    for node in nodes where node !== away {
      network.setCut(from: node.id, to: away.id, false)
      network.setCut(from: away.id, to: node.id, false)
    }
    #expect(eventually { away.status.appliedIndex >= leader.status.commitIndex && away.store.count == 700 })
    #expect(eventually { away.store.stateHash == leader.store.stateHash })
    #expect(installed.withLock { !$0.isEmpty })
  }

  @Test func aClusterWithAWriteAheadLogComesBackWithEverything() throws {
    let directory = NSTemporaryDirectory() + "weir-test-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: directory) }
    var expected: UInt64 = 0
    for round in 0..<3 {
      try withCluster(3, seed: 4) { configuration in
        configuration.storage = .files(directory: "\(directory)/\(configuration.id)", sync: .always)
        configuration.snapshotAfterBytes = 32 << 10
      } _: { cluster, leader in
        #expect(eventually { cluster.nodes.allSatisfy { $0.status.appliedIndex == leader.status.commitIndex } })
        if round > 0 { #expect(cluster.nodes.allSatisfy { $0.store.stateHash == expected }) }
        let client = try TestClient(leader)
        for start in stride(from: UInt32(0), to: 1000, by: 50) {
          #expect(client.submit((start..<start + 50).map { ($0, setCommand("key\($0)", "value\(round)")) }))
        }
        #expect(client.wait(for: 1000))
        #expect(cluster.waitUntilEven(deadlineNanoseconds: deadline(inSeconds: 60)))
        expected = leader.store.stateHash
        #expect(leader.failure == nil)
      }
    }
  }
}
