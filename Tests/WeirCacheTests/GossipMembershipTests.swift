import Foundation
import Raft
import Testing
import WeirTransport

@testable import WeirCache

@Suite("Gossip beside Raft")
struct GossipMembershipTests {
  @Test(
    "Nodes that know one gossip address find each other, elect a leader, and all hear who it is", arguments: [2, 5])
  func introduction(nodeCount: Int) throws {
    try withCluster(nodeCount) { cluster, leader in
      #expect(cluster.gossip.count == nodeCount)
      for (node, gossip) in zip(cluster.nodes, cluster.gossip) {
        #expect(gossip.introducedNodes == Set(cluster.nodes.map(\.id)).subtracting([node.id]))
        #expect(gossip.members.map(\.raftAddress) == cluster.nodes.map { $0.address?.description })
        #expect(gossip.members.map(\.raftID) == cluster.nodes.map(\.id))
        #expect(eventually { gossip.members.filter { $0.role == .leader }.map(\.raftID) == [leader.id] })
      }
      let client = try TestClient(leader)
      #expect(client.submit([(UInt32(1), setCommand("a", "b"))]))
      #expect(client.wait(for: 1))
      #expect(client.outcomes[1] == .appliedFresh)
    }
  }

  @Test("A new leader is announced, the old one's claim ends")
  func roles() async throws {
    let cluster = try EmbeddedCluster(nodeCount: 3, seed: 8, log: quietLog()) { $0.tickNanoseconds = 20_000_000 }
    defer { cluster.stop() }
    let old = try #require(cluster.waitForLeader(deadlineNanoseconds: deadline(inSeconds: 60)))
    let new = try #require(cluster.nodes.first { $0 !== old })
    try await old.transferLeadership(to: new.id, timeoutNanoseconds: 60_000_000_000)
    #expect(eventually { cluster.leader != nil })
    for gossip in cluster.gossip {
      #expect(
        eventually {
          gossip.members.filter { $0.role == .leader }.map(\.raftID) == cluster.leader.map { [$0.id] }
        })
    }
  }

  @Test("What gossip costs is counted")
  func cost() throws {
    try withCluster { cluster, _ in
      for gossip in cluster.gossip {
        #expect(eventually { gossip.statistics.packetsSent > 3 })
        let statistics = gossip.statistics
        #expect(statistics.packetBytesSent > 10 * statistics.packetsSent)
        #expect(statistics.streamBytesSent > 0)
        #expect(statistics.cpuNanoseconds > 0)
      }
    }
  }

  @Test("Without gossip the nodes are told of each other")
  func direct() throws {
    let cluster = try EmbeddedCluster(nodeCount: 3, seed: 9, introduction: .direct, log: quietLog())
    defer { cluster.stop() }
    #expect(cluster.gossip.isEmpty)
    #expect(cluster.waitForLeader(deadlineNanoseconds: deadline(inSeconds: 60)) != nil)
  }

  @Test("Members of another cluster get no connection")
  func strangers() throws {
    let clusters = try (1...2).map { try EmbeddedCluster(nodeCount: 2, seed: UInt64($0) * 16, log: quietLog()) }
    defer { for cluster in clusters { cluster.stop() } }
    try clusters[0].gossip[0].join([clusters[1].gossip[0].agent.address])
    for gossip in clusters.flatMap(\.gossip) {
      #expect(eventually { gossip.agent.members.count == 4 })
      #expect(gossip.members.count == 2)
      #expect(gossip.introducedNodes.count == 1)
    }
  }
}
