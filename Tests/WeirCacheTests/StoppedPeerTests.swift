import Dispatch
import Synchronization
import Testing
import WeirCore

@testable import WeirCache

@Suite struct StoppedPeerTests {
  /// One follower's queue stands still, so that its sockets stay open and take nothing, while many times what the leader
  /// may hold is written through the other one.
  @Test func aFollowerThatHangsCostsTheLeaderBoundedMemory() throws {
    let limit = 4 << 20
    try withCluster(3, seed: 41) { configuration in
      configuration.maximumLogBytes = limit
      configuration.trailingLogBytes = 1 << 20
      configuration.maximumInflightBytes = 1 << 20
      configuration.maximumQueuedBytesPerPeer = 2 << 20
    } _: { cluster, leader in
      let follower = try #require(cluster.nodes.first { $0 !== leader })
      let gate = DispatchSemaphore(value: 0)
      #expect(follower.intake.perform { _ in gate.wait() })
      defer { gate.signal() }
      let client = try TestClient(leader)
      let value = String(repeating: "x", count: 4096)
      var most = 0
      for start in stride(from: UInt32(0), to: 10_000, by: 100) {
        #expect(client.submit((start..<start + 100).map { ($0, setCommand("key\($0 % 50)", value)) }))
        #expect(client.wait(for: Int(start) + 100))
        most = max(most, logBytes(of: leader))
      }
      #expect(client.outcomes.values.allSatisfy { $0.isApplied })
      // 40 MiB were written. What is held is the limit, what is in flight, and the segments at either end and in reserve.
      #expect(most > 1 << 20)
      #expect(most <= 3 * limit)
      gate.signal()
      #expect(cluster.waitUntilEven(deadlineNanoseconds: deadline(inSeconds: 60)))
      #expect(Set(cluster.nodes.map(\.store.stateHash)).count == 1)
    }
  }

  /// Memory of a node's log, as its queue sees it.
  private func logBytes(of node: Node) -> Int {
    let box = AtomicBox()
    let done = DispatchSemaphore(value: 0)
    let isAsked = node.intake.perform { driver in
      box.value.store(driver.raft.logMemoryBytes, ordering: .releasing)
      done.signal()
    }
    guard isAsked else { return 0 }
    done.wait()
    return box.value.load(ordering: .acquiring)
  }

  private final class AtomicBox: Sendable {
    let value = Atomic<Int>(0)
  }
}
