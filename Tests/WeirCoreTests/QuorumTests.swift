import Testing
import WeirCore

/// The commit index by the words of the paper: the greatest index that at least a majority has reached.
private func naiveCommit(_ indexes: [LogIndex]) -> LogIndex {
  if indexes.isEmpty { return .max }
  return indexes.filter { candidate in indexes.filter { $0 >= candidate }.count > indexes.count / 2 }.max() ?? 0
}

private func naiveVote(_ votes: [Bool?]) -> VoteResult {
  if votes.isEmpty { return .won }
  // Whatever the silent ones say decides nothing any more, or it does.
  let best = votes.filter { $0 != false }.count
  let worst = votes.filter { $0 == true }.count
  if worst > votes.count / 2 { return .won }
  return best > votes.count / 2 ? .pending : .lost
}

@Suite struct QuorumTests {
  /// 60,000 random configurations, joint and not, with up to 9 voters mostly and up to 40 sometimes.
  @Test func agreesWithTheNaiveModel() {
    var random = SplitMix64(seed: 5)
    for _ in 0..<60_000 {
      let most = random.chance(10) ? 40 : 9
      let voters = (0..<random.below(most + 1)).map { _ in UInt64(1 + random.below(most * 2)) }
      let outgoing =
        random.chance(50) ? (0..<random.below(most + 1)).map { _ in UInt64(1 + random.below(most * 2)) } : []
      let configuration = QuorumConfiguration(voters: voters, votersOutgoing: outgoing)
      var matches: [NodeID: LogIndex] = [:]
      var votes: [NodeID: Bool] = [:]
      for voter in configuration.allVoters {
        if random.chance(80) { matches[voter] = random.chance(5) ? .max : UInt64(random.below(12)) }
        if random.chance(70) { votes[voter] = random.chance(60) }
      }
      let halves = [Set(voters).sorted(), Set(outgoing).sorted()]
      let expected = halves.map { naiveCommit($0.map { matches[$0] ?? 0 }) }.min()
      let commit = configuration.committedIndex { matches[$0] }
      let results = halves.map { half in naiveVote(half.map { votes[$0] }) }
      let vote = configuration.voteResult { votes[$0] }
      let expectedVote: VoteResult =
        results.contains(.lost) ? .lost : results.allSatisfy { $0 == .won } ? .won : .pending
      if commit != expected || vote != expectedVote {
        Issue.record("\(configuration) \(matches) \(votes): \(commit), \(vote)")
        return
      }
    }
  }

  /// Acknowledgements one at a time: after each, the incremental index is that of the naive model, and what is returned is
  /// the new index exactly when it moved. 60,000 acknowledgements and resets.
  @Test func isRightAfterEveryAcknowledgement() {
    var random = SplitMix64(seed: 6)
    for round in 0..<300 {
      let most = round % 10 == 0 ? 30 : 9
      let configuration = QuorumConfiguration(
        voters: (0..<1 + random.below(most)).map { _ in UInt64(1 + random.below(most * 2)) },
        votersOutgoing: random.chance(40)
          ? (0..<random.below(most)).map { _ in UInt64(1 + random.below(most * 2)) } : [])
      var quorum = JointQuorum(configuration)
      var matches = [LogIndex](repeating: 0, count: quorum.voters.count)
      func expected() -> LogIndex {
        configuration.committedIndex { voter in quorum.slot(of: voter).map { matches[$0] } }
      }
      for _ in 0..<200 {
        let slot = random.below(quorum.voters.count)
        let index = matches[slot] + UInt64(random.below(6)) - (random.chance(10) ? min(matches[slot], 2) : 0)
        let before = quorum.committedIndex
        if random.chance(3) {
          matches[slot] = index
          quorum.set(slot: slot, index: index)
        } else {
          matches[slot] = max(matches[slot], index)
          let moved = quorum.acknowledge(slot: slot, index: index)
          if moved != (expected() > before ? expected() : nil) { Issue.record("\(matches) returned \(moved ?? 0)") }
        }
        if random.chance(1) {
          quorum.reset()
          matches = matches.map { _ in 0 }
        }
        if quorum.committedIndex != expected() || quorum[slot] != matches[slot] {
          Issue.record("\(configuration) \(matches): \(quorum.committedIndex)")
          return
        }
      }
    }
  }

  @Test func aVoterWithoutAVoteHasNoSlot() {
    let quorum = JointQuorum(QuorumConfiguration(voters: [3, 1, 2, 1], votersOutgoing: [5, 2]))
    #expect(quorum.voters == [1, 2, 3, 5])
    #expect(quorum.slot(of: 5) == 3)
    #expect(quorum.slot(of: 4) == nil)
    #expect(quorum.slot(of: 6) == nil)
  }

  @Test func nobodyAgreesToEverything() {
    let nobody = QuorumConfiguration()
    #expect(nobody.committedIndex { _ in nil } == .max)
    #expect(nobody.voteResult { _ in nil } == .won)
    #expect(MajorityQuorum(voterCount: 0).committedIndex == .max)
    #expect(JointQuorum(nobody).committedIndex == .max)
  }
}
