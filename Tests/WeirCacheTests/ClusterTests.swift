import Raft
import Testing
import WeirCore
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
}
