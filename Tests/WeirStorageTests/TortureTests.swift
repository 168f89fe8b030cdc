import Foundation
import Testing
import WeirCore

@testable import WeirStorage

/// A real process writes to a log and is killed; whatever it was told is durable must be in the log.
@Suite("A process that is killed while it writes", .serialized)
struct TortureTests {
  /// What the child said that it submitted, and how much of it was acknowledged.
  private struct Account {
    struct Submission {
      var first: LogIndex
      var last: LogIndex
      var term: Term
    }

    var submissions: [Submission] = []
    var acknowledged = 0

    init(_ text: String) throws {
      // The last line may be cut off by the kill.
      for line in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
        let words = line.split(separator: " ")
        switch words.first {
        case "s":
          let numbers = words.dropFirst().compactMap { UInt64($0) }
          try #require(numbers.count == 3)
          submissions.append(Submission(first: numbers[0], last: numbers[1], term: numbers[2]))
        case "a": acknowledged += 1
        case "r": continue
        default: Issue.record("unexpected line \(line)")
        }
      }
    }
  }

  private enum Ending {
    case legal
    /// Acknowledged entries are missing.
    case lost
  }

  /// The terms of a log's entries, from entry 1 on, behind the first submissions of an account.
  private static func terms(_ base: [Term], _ submissions: ArraySlice<Account.Submission>) -> [Term] {
    var terms = base
    for submission in submissions {
      terms.removeLast(terms.count - Int(submission.first) + 1)
      terms.append(contentsOf: repeatElement(submission.term, count: Int(submission.last - submission.first) + 1))
    }
    return terms
  }

  /// Runs the writer for a while, kills it, and compares.
  private func cycle(
    _ directory: String, seed: UInt64, arguments: [String], milliseconds: Int, base: inout [Term]
  ) throws -> Ending {
    let executable = try #require(WeirExecutable.url, "the weir executable is not built")
    let process = Process()
    process.executableURL = executable
    process.arguments = ["wal", "torture", directory, "--seed", "\(seed)"] + arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    try process.run()
    // Counted from its first line: on a busy machine it may take longer than that to begin.
    let begin = pipe.fileHandleForReading.availableData
    let killer = DispatchQueue(label: "killer")
    killer.asyncAfter(deadline: .now() + .milliseconds(milliseconds)) { kill(process.processIdentifier, SIGKILL) }
    let output = begin + pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    #expect(process.terminationReason == .uncaughtSignal, "the writer ended by itself")
    let account = try Account(String(decoding: output, as: UTF8.self))
    let recovered = try openLog(
      RealFileSystem(), .init(owner: 1, segmentBytes: 256 << 10, zeroFill: false), at: directory)
    defer { base = recovered.entries.map(\.term) }
    for entry in recovered.entries {
      try #require(entry.payload.count >= 16, "entry \(entry.index)")
      let index = (0..<8).reduce(0 as UInt64) { $0 | UInt64(entry.payload[$1]) << UInt64(8 * $1) }
      let term = (0..<8).reduce(0 as UInt64) { $0 | UInt64(entry.payload[8 + $1]) << UInt64(8 * $1) }
      try #require(index == entry.index && term == entry.term, "entry \(entry.index) has another one's bytes")
    }
    let found = recovered.entries.map(\.term)
    // At most as many submissions are under way as the writer allows itself.
    let latest = min(account.submissions.count, account.acknowledged + 9)
    for count in account.acknowledged...latest where found == Self.terms(base, account.submissions[..<count]) {
      return .legal
    }
    return .lost
  }

  private func run(cycles: Int, seed: UInt64, arguments: [String]) throws -> (lost: Int, entries: Int) {
    try withTemporaryDirectory { directory in
      var base: [Term] = []
      var lost = 0
      for number in 0..<cycles {
        let ending = try cycle(
          directory, seed: seed &+ UInt64(number), arguments: arguments, milliseconds: 60 + number * 37 % 90,
          base: &base)
        if ending == .lost { lost += 1 }
      }
      return (lost, base.count)
    }
  }

  @Test("kill -9: nothing acknowledged is lost", .timeLimit(.minutes(10)))
  func killed() throws {
    let (lost, entries) = try run(cycles: isLongRun ? 1000 : 20, seed: 100, arguments: [])
    #expect(lost == 0)
    #expect(entries > 0)
  }

  @Test("power cuts, with torn and reordered writes: nothing acknowledged is lost", .timeLimit(.minutes(10)))
  func powerCut() throws {
    let (lost, entries) = try run(cycles: isLongRun ? 300 : 12, seed: 200, arguments: ["--hold-until-sync"])
    #expect(lost == 0)
    #expect(entries > 0)
  }

  @Test("power cuts without syncing: this test finds the loss", .timeLimit(.minutes(5)))
  func powerCutWithoutSync() throws {
    let (lost, _) = try run(cycles: 4, seed: 300, arguments: ["--hold-until-sync", "--sync-off"])
    #expect(lost > 0)
  }
}
