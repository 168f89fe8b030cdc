import CWeir
import Foundation
import Synchronization
import Testing
import WeirCore

@testable import WeirCache

@Suite struct LeaseTests {
  /// One register; a writer that goes wherever the leadership is, and readers that ask *every* node for a Lease read all
  /// the time, while the leadership is moved about. Each acknowledged write carries a higher number than all before. A
  /// Lease read that began after write n was acknowledged must not return less than n, whichever node answers it.
  @Test func noLeaseReadIsOlderThanAnAcknowledgedWriteWhileLeadershipMoves() async throws {
    let cluster = try EmbeddedCluster(nodeCount: 3, seed: 21, log: quietLog()) { configuration in
      configuration.tickNanoseconds = 10_000_000
      configuration.electionTicks = 20
      configuration.leaseDriftBoundNanoseconds = 20_000_000
    }
    defer { cluster.stop() }
    _ = try #require(cluster.waitForLeader(deadlineNanoseconds: deadline(inSeconds: 60)))
    let acknowledged = Atomic<UInt64>(0)
    let isOver = Atomic<Bool>(false)
    let answers = Atomic<UInt64>(0)
    let stale = Mutex<[String]>([])
    let key = Array("register".utf8)

    let readers = (0..<2).map { _ in
      Thread {
        while !isOver.load(ordering: .relaxed) {
          for node in cluster.nodes {
            let before = acknowledged.load(ordering: .sequentiallyConsistent)
            let value = node.store.get(key)
            guard node.leaseHeldDuringReads() else { continue }
            answers.add(1, ordering: .relaxed)
            let number = value.flatMap { UInt64(String(decoding: $0, as: UTF8.self)) } ?? 0
            if number < before { stale.withLock { $0.append("node \(node.id) answered \(number) after \(before)") } }
          }
        }
      }
    }
    for reader in readers { reader.start() }

    let seconds = ProcessInfo.processInfo.environment["WEIR_LONG_TESTS"] == "1" ? 60.0 : 4.0
    let end = deadline(inSeconds: seconds)
    var number: UInt64 = 0
    var moves = 0
    while cweir_monotonic_nanoseconds() < end || moves < 3 {
      guard let leader = cluster.leader else {
        usleep(1000)
        continue
      }
      for _ in 0..<20 {
        number += 1
        do throws(NodeError) {
          try await leader.apply(setCommand("register", "\(number)"))
          acknowledged.store(number, ordering: .sequentiallyConsistent)
        } catch {
          break
        }
      }
      let target = cluster.nodes[(moves + 1) % 3]
      guard target !== leader else {
        moves += 1
        continue
      }
      // Writes go on at the old leader while the transfer is under way: the moment at which a lease must be void.
      async let transfer: Void = leader.transferLeadership(to: target.id, timeoutNanoseconds: 5_000_000_000)
      do { try await transfer } catch { continue }
      moves += 1
    }
    isOver.store(true, ordering: .relaxed)
    #expect(eventually { readers.allSatisfy(\.isFinished) })
    #expect(stale.withLock { $0 } == [])
    #expect(answers.load(ordering: .relaxed) > 100)
    #expect(moves >= 3)
  }

  @Test func aLeaderThatHearsNobodyLosesItsLeaseByItself() throws {
    try withCluster(3, adjust: { $0.electionTicks = 30 }) { cluster, leader in
      #expect(leader.leaseHeldDuringReads())
      for node in cluster.nodes where node !== leader { node.stop() }
      #expect(eventually { !leader.leaseHeldDuringReads() })
      #expect(eventually { !leader.isLeader })
    }
  }
}

@Suite struct PendingRingTests {
  @Test func answersAreFoundByIndexAcrossGapsAndGrowth() {
    var ring = PendingRing(capacity: 8)
    ring.append(from: 10, slot: 1, tokens: [5, 6, 7])
    ring.append(from: 20, slot: 2, tokens: Array(0..<100)[...])
    #expect(ring.waiting == 103)
    #expect(ring.take(9) == PendingRing.nobody)
    for (index, token) in zip(UInt64(10)...12, [5, 6, 7] as [UInt32]) {
      #expect(ring.take(index) == PendingRing.word(slot: 1, token: token))
    }
    #expect(ring.take(15) == PendingRing.nobody)
    for index in 20..<120 as Range<UInt64> {
      #expect(ring.take(index) == PendingRing.word(slot: 2, token: UInt32(index - 20)))
    }
    #expect(ring.isEmpty && ring.waiting == 0)
  }

  @Test func lostLeadershipHandsOutEverybodyOnce() {
    var ring = PendingRing(capacity: 8)
    ring.append(from: 3, slot: 0, tokens: [1, 2])
    ring.append(from: 7, slot: 4, tokens: [9])
    var words: [UInt64] = []
    ring.removeAll { words.append($0) }
    #expect(
      words == [
        PendingRing.word(slot: 0, token: 1), PendingRing.word(slot: 0, token: 2), PendingRing.word(slot: 4, token: 9),
      ])
    #expect(ring.isEmpty)
    // A later leadership may get lower indexes: its predecessor's were cut off.
    ring.append(from: 5, slot: 1, tokens: [8])
    #expect(ring.take(5) == PendingRing.word(slot: 1, token: 8))
  }
}

@Suite struct LogRetentionTests {
  @Test func keepsWhatFollowersNeedUpToTheLimit() {
    var retention = LogRetention(maximumBytes: 1 << 20, trailingBytes: 128 << 10)
    for step in 1...100 as ClosedRange<UInt64> { retention.applied(through: step * 10, bytes: 10_000) }
    // A follower that needs everything: nothing is cut before the limit.
    #expect(retention.isDue)
    #expect(retention.cut(neededFrom: 1) == nil)
    // Nobody needs anything: all but the trailing part goes.
    let cut = retention.cut(neededFrom: 1001)
    #expect(cut.map { $0 > 800 && $0 < 900 } == true)
    #expect(retention.cut(neededFrom: 1001) == nil)
    for step in 101...300 as ClosedRange<UInt64> { retention.applied(through: step * 10, bytes: 10_000) }
    // Over the limit it goes in spite of a follower.
    #expect(retention.cut(neededFrom: 1) != nil)
  }
}
