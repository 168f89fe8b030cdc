import Testing

@testable import WeirCache

@Suite("When snapshots are written")
struct SnapshotScheduleTests {
  /// Feeds the members of a cluster the same log, and says at which byte of it each begins a snapshot.
  private static func begins(
    _ schedules: inout [SnapshotSchedule], from start: Int = 0, steps: Int, bytesPerStep: Int
  ) -> [(member: Int, at: Int)] {
    var begins: [(Int, Int)] = []
    for step in 1...steps {
      for member in schedules.indices {
        schedules[member].stored(bytes: bytesPerStep, entries: 1)
        if schedules[member].isDue(rank: member, members: schedules.count) {
          schedules[member].begin(inTurn: true)
          begins.append((member, start + step * bytesPerStep))
        }
      }
    }
    return begins
  }

  @Test("The members of a cluster take turns, an equal part of a stretch apart", arguments: [1, 3, 5, 9])
  func turns(members: Int) {
    var schedules = (0..<members).map { _ in SnapshotSchedule(afterBytes: 9000, afterEntries: .max) }
    let begins = Self.begins(&schedules, steps: 40_000, bytesPerStep: 10)
    #expect(begins.count >= members * 40)
    for (number, begin) in begins.enumerated() { #expect(begin.member == number % members) }
    for (left, right) in zip(begins, begins.dropFirst()) {
      #expect(abs(right.at - left.at - 9000 / members) <= 10 * members, "\(left), \(right)")
    }
  }

  @Test("By the number of entries as well, whichever comes first")
  func entries() {
    var schedules = (0..<3).map { _ in SnapshotSchedule(afterBytes: .max, afterEntries: 300) }
    let begins = Self.begins(&schedules, steps: 1200, bytesPerStep: 1)
    #expect(begins.map(\.at).prefix(6) == [101, 201, 301, 402, 502, 602])
  }

  @Test("A member that starts again goes on in its turn; one whose place is not known looks for it anew")
  func restart() {
    var schedules = (0..<3).map { _ in SnapshotSchedule(afterBytes: 3000, afterEntries: .max) }
    let before = Self.begins(&schedules, steps: 1000, bytesPerStep: 10)
    let last = before.last { $0.member == 1 }?.at ?? 0
    schedules[1] = SnapshotSchedule(afterBytes: 3000, afterEntries: .max, bytes: 10_000 - last, isFirst: false)
    let after = Self.begins(&schedules, from: 10_000, steps: 1000, bytesPerStep: 10)
    for (left, right) in zip(before + after, (before + after).dropFirst()) {
      #expect(abs(right.at - left.at - 1000) <= 30, "\(left), \(right)")
    }
    // All of them at once, because somebody asked for it: they come apart again.
    for member in schedules.indices { schedules[member].begin(inTurn: false) }
    let asked = Self.begins(&schedules, steps: 300, bytesPerStep: 10)
    #expect(asked.map(\.member) == [0, 1, 2])
    #expect(Set(asked.map(\.at)).count == 3)
  }

  @Test("Thresholds that are the largest number are never met, those below one at every entry")
  func extremes() {
    var never = SnapshotSchedule(afterBytes: .max, afterEntries: .max)
    never.stored(bytes: 1 << 50, entries: 1 << 40)
    #expect(!never.isDue(rank: 8, members: 9) && !never.isDue(rank: 0, members: 1))
    var always = SnapshotSchedule(afterBytes: 0, afterEntries: -1)
    always.stored(bytes: 2, entries: 1)
    #expect(always.isDue(rank: 0, members: 1))
  }
}
