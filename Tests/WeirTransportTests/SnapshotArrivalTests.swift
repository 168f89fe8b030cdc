import Foundation
import Synchronization
import Testing
import WeirCore

@testable import WeirTransport

/// Snapshots whose sink answers later than it is asked, as one that writes to a disk does.
@Suite("Snapshots that are taken later than they arrive")
struct SnapshotArrivalTests {
  private static let data = distinctData(kilobytes: 8000)

  @Test("No more than the window is in memory, and a new connection goes on behind it", arguments: [UInt64(1), 2, 3])
  func window(seed: UInt64) throws {
    try withConnectedPair(Endpoint(1), Endpoint(2)) { first, second in
      var generator = SplitMix64(seed: seed)
      second.seen.withLock { $0.holdsAnswers = true }
      first.sendSnapshot(Self.data)
      #expect(eventually { second.seen.withLock { $0.owedAnswers == SnapshotSender.windowChunks } })
      // On the new connection the sender hears of no progress before all that came on the old one is taken.
      second.perform(loseTransfers)
      #expect(eventually { snapshotsResumed(second) == 1 })
      var breaks = 1
      let isSent = eventually {
        let count = Int(generator.next() % 4)
        second.perform { _ in second.answerOwed(count) }
        if breaks < 6, generator.next() % 8 == 0 {
          breaks += 1
          (generator.next() % 2 == 0 ? first : second).perform(loseTransfers)
        }
        return first.seen.withLock { !$0.snapshotsSent.isEmpty }
      }
      #expect(isSent && first.seen.withLock { $0.snapshotsSent } == [true])
      second.seen.withLock { seen in
        #expect(seen.snapshotsBegun == 1, "it began anew")
        #expect(seen.mostOwedAnswers <= SnapshotSender.windowChunks + 1)
        let isEqual = seen.snapshots.first?.data == Self.data
        #expect(isEqual && seen.snapshots.count == 1)
      }
    }
  }

  @Test("A connection that breaks while the end is being taken: the sender asks again, and hears of it once it is")
  func brokenAtTheEnd() throws {
    try withConnectedPair(Endpoint(1), Endpoint(2)) { first, second in
      second.seen.withLock { $0.holdsAnswers = true }
      first.sendSnapshot([1, 2, 3])
      #expect(eventually { second.seen.withLock { $0.owedAnswers == 2 } })
      second.perform { _ in second.answerOwed(1) }
      for round in 1...3 as ClosedRange<UInt64> {
        (round == 2 ? first : second).perform(loseTransfers)
        #expect(eventually { snapshotsResumed(second) == round })
      }
      #expect(first.seen.withLock { $0.snapshotsSent.isEmpty })
      second.perform { _ in second.answerOwed(1) }
      #expect(eventually { first.seen.withLock { $0.snapshotsSent == [true] } })
      #expect(second.seen.withLock { $0.snapshots.count == 1 && $0.owedAnswers == 0 })
    }
  }

  @Test("A sink that refuses what has come: the sender hears of it once, and may send another")
  func refused() throws {
    try withConnectedPair(Endpoint(1), Endpoint(2)) { first, second in
      second.seen.withLock { $0.refusesBytes = 1_000_000 }
      first.sendSnapshot(Self.data)
      #expect(eventually { first.seen.withLock { $0.snapshotsSent == [false] } })
      second.seen.withLock { $0.refusesBytes = nil }
      first.sendSnapshot([4, 5])
      #expect(eventually { first.seen.withLock { $0.snapshotsSent == [false, true] } })
      #expect(second.seen.withLock { $0.snapshots.map(\.data) } == [[4, 5]])
      #expect(second.lines.contains("is not taken"))
    }
  }
}
