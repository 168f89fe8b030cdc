import Foundation
import Synchronization
import Testing
import WeirCore

@testable import WeirTransport

/// Snapshots whose sink answers later than it is asked, as one that writes to a disk does.
@Suite("Snapshots that are taken later than they arrive")
struct SnapshotArrivalTests {
  private static let data: [UInt8] = {
    // No two chunks are equal.
    var data = [UInt8](repeating: 0, count: 8_000_000)
    for block in 0..<8000 {
      data[block * 1000] = UInt8(truncatingIfNeeded: block)
      data[block * 1000 + 1] = UInt8(truncatingIfNeeded: block >> 8)
    }
    return data
  }()

  private func withPair(_ body: (Endpoint, Endpoint) throws -> Void) throws {
    let first = try Endpoint(1)
    let second = try Endpoint(2)
    connectPair(first, second)
    defer {
      first.stop()
      second.stop()
    }
    #expect(eventually { first.seen.withLock { $0.connected == [2] } })
    try body(first, second)
  }

  private static func breakTransfers(_ endpoint: Endpoint) {
    endpoint.perform { transport in
      guard let transport = transport as? TCPTransport else { return }
      for connection in Array(transport.connections.values) where connection.purpose == .snapshots {
        transport.lose(connection, nil)
      }
    }
  }

  private static func resumed(_ endpoint: Endpoint) -> UInt64 {
    let count = Mutex(UInt64(0))
    endpoint.perform { transport in count.withLock { $0 = transport.counters.snapshotsResumed } }
    return count.withLock { $0 }
  }

  @Test("No more than the window is in memory, and a new connection goes on behind it", arguments: [UInt64(1), 2, 3])
  func window(seed: UInt64) throws {
    try withPair { first, second in
      var generator = SplitMix64(seed: seed)
      second.seen.withLock { $0.holdsAnswers = true }
      first.sendSnapshot(Self.data)
      #expect(eventually { second.seen.withLock { $0.owedAnswers == SnapshotSender.windowChunks } })
      // On the new connection the sender hears of no progress before all that came on the old one is taken.
      Self.breakTransfers(second)
      #expect(eventually { Self.resumed(second) == 1 })
      var breaks = 1
      let isSent = eventually {
        let count = Int(generator.next() % 4)
        second.perform { _ in second.answerOwed(count) }
        if breaks < 6, generator.next() % 8 == 0 {
          breaks += 1
          Self.breakTransfers(generator.next() % 2 == 0 ? first : second)
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
    try withPair { first, second in
      second.seen.withLock { $0.holdsAnswers = true }
      first.sendSnapshot([1, 2, 3])
      #expect(eventually { second.seen.withLock { $0.owedAnswers == 2 } })
      second.perform { _ in second.answerOwed(1) }
      for round in 1...3 as ClosedRange<UInt64> {
        Self.breakTransfers(round == 2 ? first : second)
        #expect(eventually { Self.resumed(second) == round })
      }
      #expect(first.seen.withLock { $0.snapshotsSent.isEmpty })
      second.perform { _ in second.answerOwed(1) }
      #expect(eventually { first.seen.withLock { $0.snapshotsSent == [true] } })
      #expect(second.seen.withLock { $0.snapshots.count == 1 && $0.owedAnswers == 0 })
    }
  }

  @Test("A sink that refuses what has come: the sender hears of it once, and may send another")
  func refused() throws {
    try withPair { first, second in
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
