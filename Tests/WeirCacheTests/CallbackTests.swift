import Raft
import Synchronization
import Testing
import WeirCore
import WeirTransport

@testable import WeirCache

/// The callback faces: each is called once, with what the async face returns or throws.
@Suite struct CallbackTests {
  /// What a callback was called with, and how often.
  private final class Answer<Value: Sendable>: Sendable {
    private let all = Mutex<[Result<Value, NodeError>]>([])

    var take: @Sendable (Result<Value, NodeError>) -> Void {
      { result in self.all.withLock { $0.append(result) } }
    }

    /// Waits for the first call; nil if none came.
    func first() -> Result<Value, NodeError>? {
      _ = eventually { self.all.withLock { !$0.isEmpty } }
      return all.withLock { $0.first }
    }

    var count: Int { all.withLock { $0.count } }
  }

  private func node(id: NodeID = 1, voters: [NodeID] = [1], seed: UInt64 = 1) throws -> Node {
    var configuration = NodeConfiguration(
      id: id, clusterID: 5, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0), initialVoters: voters,
      seed: seed, log: quietLog())
    configuration.tickNanoseconds = 20_000_000
    return try Node(configuration)
  }

  @Test func aLeaderAnswersEveryKindOfRequest() throws {
    try withCluster(3, seed: 21) { cluster, leader in
      let applied = Answer<Applied>()
      leader.apply(setCommand("a", "1"), completion: applied.take)
      let index = try #require(try applied.first()?.get().index)

      let barrier = Answer<LogIndex>()
      leader.barrier(completion: barrier.take)
      #expect(try #require(try barrier.first()?.get()) > index)

      let verified = Answer<Void>()
      leader.verifyLeader(timeoutNanoseconds: 60_000_000_000, completion: verified.take)
      #expect(throws: Never.self) { try verified.first()?.get() }

      let readIndex = Answer<LogIndex>()
      leader.readIndex(completion: readIndex.take)
      #expect(try #require(try readIndex.first()?.get()) > index)

      for consistency in ReadConsistency.allCases {
        let value = Answer<[UInt8]?>()
        leader.read(Array("a".utf8), consistency, completion: value.take)
        #expect(try #require(try value.first()?.get()) == Array("1".utf8))
        #expect(value.count == 1)
      }

      let joiner = try node(id: 4, voters: [], seed: 44)
      defer { joiner.stop() }
      let address = try #require(joiner.address)
      let learner = Answer<LogIndex>()
      leader.addLearner(4, address: address, completion: learner.take)
      let first = try #require(try learner.first()?.get())
      let refused = Answer<LogIndex>()
      leader.addVoter(4, address: address, ifIndexIs: first + 1, completion: refused.take)
      #expect(refused.first() == .failure(.configurationChanged(currentIndex: first)))
      let removed = Answer<LogIndex>()
      leader.removeServer(4, ifIndexIs: first, completion: removed.take)
      let second = try #require(try removed.first()?.get())
      #expect(second > first)
      let membership = Answer<Membership>()
      leader.membership(completion: membership.take)
      let seen = try #require(try membership.first()?.get())
      #expect(seen.index == second && seen.configuration.voters == [1, 2, 3])
      #expect(seen.addresses[leader.id] == leader.address?.description)

      let target = try #require(cluster.nodes.first { $0 !== leader })
      let moved = Answer<Void>()
      leader.transferLeadership(to: target.id, completion: moved.take)
      #expect(throws: Never.self) { try moved.first()?.get() }
      #expect(eventually { target.isLeader })
      #expect(applied.count == 1 && barrier.count == 1 && learner.count == 1 && moved.count == 1)
    }
  }

  @Test func aFollowerRefusesEveryKindOfRequestWithAHint() throws {
    try withCluster(3, seed: 22) { cluster, leader in
      let follower = try #require(cluster.nodes.first { $0 !== leader })
      #expect(eventually { follower.status.leader == leader.id })
      let address = try #require(leader.address)
      let expected = NodeError.notLeader(hint: leader.id)
      let indexes = (0..<5).map { _ in Answer<LogIndex>() }
      follower.barrier(completion: indexes[0].take)
      follower.readIndex(completion: indexes[1].take)
      follower.addVoter(9, address: address, completion: indexes[2].take)
      follower.addLearner(9, address: address, completion: indexes[3].take)
      follower.removeServer(leader.id, completion: indexes[4].take)
      for answer in indexes { #expect(answer.first() == .failure(expected)) }
      let voids = (0..<2).map { _ in Answer<Void>() }
      follower.verifyLeader(timeoutNanoseconds: 60_000_000_000, completion: voids[0].take)
      follower.transferLeadership(to: follower.id, completion: voids[1].take)
      for answer in voids { #expect(throws: expected) { try answer.first()?.get() } }
      for consistency in [ReadConsistency.safe, .lease] {
        let value = Answer<[UInt8]?>()
        follower.read([1], consistency, completion: value.take)
        #expect(value.first() == .failure(expected))
      }
      let stale = Answer<[UInt8]?>()
      follower.read([1], .stale, completion: stale.take)
      #expect(stale.first() == .success(nil))
    }
  }

  /// Stopped before it was ever started, or with requests in its mailbox: nobody waits for ever.
  @Test(arguments: [false, true])
  func whoAsksANodeThatStopsIsToldSo(isStarted: Bool) throws {
    let node = try node(voters: [1, 2, 3])
    let address = try SocketAddress(host: "127.0.0.1", port: 1)
    if isStarted { node.start() }
    let early = (0..<3).map { _ in Answer<LogIndex>() }
    let transfer = Answer<Void>()
    if !isStarted {
      node.addVoter(4, address: address, completion: early[0].take)
      node.removeServer(2, completion: early[1].take)
      node.barrier(completion: early[2].take)
      node.transferLeadership(to: 2, completion: transfer.take)
    }
    node.stop()
    let late = (0..<3).map { _ in Answer<LogIndex>() }
    node.addVoter(4, address: address, completion: late[0].take)
    node.barrier(completion: late[1].take)
    node.readIndex(completion: late[2].take)
    for answer in late + (isStarted ? [] : early) {
      #expect(answer.first() == .failure(.shutdown))
      #expect(answer.count == 1)
    }
    if !isStarted { #expect(throws: NodeError.shutdown) { try transfer.first()?.get() } }
    let membership = Answer<Membership>()
    node.membership(completion: membership.take)
    #expect(membership.first() == .failure(.shutdown))
  }

  @Test func aTransferThatIsUnderWayWhenItsNodeStopsIsAnswered() throws {
    try withCluster(3, seed: 23, adjust: { $0.electionTicks = 150 }) { cluster, leader in
      let target = try #require(cluster.nodes.first { $0 !== leader })
      target.stop()
      let answer = Answer<Void>()
      leader.transferLeadership(to: target.id, timeoutNanoseconds: 600_000_000_000, completion: answer.take)
      leader.stop()
      #expect(throws: NodeError.shutdown) { try answer.first()?.get() }
    }
  }
}
