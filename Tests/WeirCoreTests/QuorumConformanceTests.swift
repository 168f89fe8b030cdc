import Foundation
import Testing
import WeirCore

/// etcd's quorum scripts, replayed byte for byte. They are not part of the project: they lie beside it, or where
/// `CONFORMANCE_DIR` says (a folder that holds `quorum`, or `etcd-raft/quorum`).
@Suite struct QuorumConformanceTests {
  private struct Directive {
    var line: Int
    var command: String
    var arguments: [String: [String]]
    var expected: String
  }

  private struct ScriptError: Error {
    var description: String
  }

  private static var folder: URL? {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let base =
      ProcessInfo.processInfo.environment["CONFORMANCE_DIR"].map { URL(fileURLWithPath: $0) }
      ?? root.appendingPathComponent("../shared/conformance").standardized
    return ["quorum", "etcd-raft/quorum"].map { base.appendingPathComponent($0) }
      .first { FileManager.default.fileExists(atPath: $0.path) }
  }

  @Test func scriptsMatchByteForByte() throws {
    guard let folder = Self.folder else {
      print("Conformance: no scripts beside the project and no CONFORMANCE_DIR: quorum skipped")
      return
    }
    let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
      .filter { $0.pathExtension == "txt" }.sorted { $0.lastPathComponent < $1.lastPathComponent }
    var commands = 0
    for file in files {
      for directive in try parse(String(contentsOf: file, encoding: .utf8)) {
        commands += 1
        var actual = run(directive)
        if !actual.isEmpty, !actual.hasSuffix("\n") { actual += "\n" }
        // As bytes: Swift's equality of strings is one of Unicode, which is looser.
        #expect(
          Array(actual.utf8) == Array(directive.expected.utf8),
          "\(file.lastPathComponent):\(directive.line): \(actual) instead of \(directive.expected)")
      }
    }
    print("Conformance quorum: \(files.count) files, \(commands) commands replayed")
    #expect(commands > 0)
  }

  // MARK: Commands

  private func run(_ directive: Directive) -> String {
    let voters = (directive.arguments["cfg"] ?? []).compactMap { NodeID($0) }
    let joint = directive.arguments["cfgj"]
    let outgoing = joint == ["zero"] ? [] : (joint ?? []).compactMap { NodeID($0) }
    let configuration = QuorumConfiguration(voters: voters, votersOutgoing: outgoing)
    let isVote = directive.command == "vote"
    let values = directive.arguments[isVote ? "votes" : "idx"] ?? []
    if let error = mismatch(configuration, values, isVote: isVote) { return error }
    // Values are given in the order in which the ids are, each id once.
    var byVoter: [NodeID: String] = [:]
    var rest = values[...]
    for voter in voters + outgoing where byVoter[voter] == nil { byVoter[voter] = rest.popFirst() }
    switch directive.command {
    case "committed":
      let indexes = byVoter.compactMapValues { LogIndex($0) }
      let commit = configuration.committedIndex { indexes[$0] }
      return describe(configuration.allVoters, indexes) + text(commit) + symmetry(configuration, commit, indexes)
    case "vote":
      let votes = byVoter.compactMapValues { $0 == "y" ? true : $0 == "n" ? false : nil }
      let result = configuration.voteResult { votes[$0] }
      let swapped = QuorumConfiguration(voters: configuration.votersOutgoing, votersOutgoing: configuration.voters)
      let mirrored = swapped.voteResult { votes[$0] }
      return (mirrored == result ? "" : "\(text(mirrored)) <-- via symmetry\n") + text(result)
    default:
      return "unknown command"
    }
  }

  private func mismatch(_ configuration: QuorumConfiguration, _ values: [String], isVote: Bool) -> String? {
    let ids = configuration.allVoters
    guard ids.count != values.count else { return nil }
    let numbers = values.map { value in
      isVote ? ["y": "2", "n": "1"][value] ?? "0" : LogIndex(value).map(text) ?? "0"
    }
    let map = ids.map { "\($0):{}" }.joined(separator: " ")
    return "error: mismatched input (explicit or _) for voters map[\(map)]: [\(numbers.joined(separator: " "))]"
  }

  /// The swapped pair and the incremental form must find the same; a line of their own if they do not.
  private func symmetry(
    _ configuration: QuorumConfiguration, _ commit: LogIndex, _ indexes: [NodeID: LogIndex]
  ) -> String {
    let swapped = QuorumConfiguration(voters: configuration.votersOutgoing, votersOutgoing: configuration.voters)
    var quorum = JointQuorum(configuration)
    for (slot, voter) in quorum.voters.enumerated() {
      _ = quorum.acknowledge(slot: slot, index: indexes[voter] ?? 0)
    }
    var lines = ""
    let mirrored = swapped.committedIndex { indexes[$0] }
    if mirrored != commit { lines += "\n\(text(mirrored)) <-- via symmetry" }
    if quorum.committedIndex != commit { lines += "\n\(text(quorum.committedIndex)) <-- via acknowledgements" }
    return lines
  }

  private func describe(_ voters: [NodeID], _ indexes: [NodeID: LogIndex]) -> String {
    if voters.isEmpty { return "<empty majority quorum>" }
    let ranked = voters.sorted { ((indexes[$0] ?? 0), $0) < ((indexes[$1] ?? 0), $1) }
    var bars: [NodeID: Int] = [:]
    for (position, voter) in ranked.enumerated() {
      let isAhead = position > 0 && (indexes[ranked[position - 1]] ?? 0) < (indexes[voter] ?? 0)
      bars[voter] = position == 0 ? 0 : isAhead ? position : bars[ranked[position - 1]]
    }
    var lines = String(repeating: " ", count: voters.count) + "    idx\n"
    for voter in voters {
      let bar = bars[voter] ?? 0
      let drawing =
        indexes[voter] == nil
        ? "?" + String(repeating: " ", count: voters.count)
        : String(repeating: "x", count: bar) + ">" + String(repeating: " ", count: voters.count - bar)
      let number = "\(indexes[voter] ?? 0)"
      let padding = String(repeating: " ", count: max(0, 5 - number.count))
      lines += "\(drawing) \(padding)\(number)    (id=\(String(voter, radix: 16)))\n"
    }
    return lines
  }

  private func text(_ index: LogIndex) -> String { index == .max ? "∞" : "\(index)" }

  private func text(_ result: VoteResult) -> String {
    switch result {
    case .pending: "VotePending"
    case .lost: "VoteLost"
    case .won: "VoteWon"
    }
  }

  // MARK: Container format

  private func parse(_ text: String) throws -> [Directive] {
    var directives: [Directive] = []
    var lines = text.components(separatedBy: "\n")
    if lines.last == "" { lines.removeLast() }
    var position = 0
    func trimmed(_ line: String) -> String { line.trimmingCharacters(in: .whitespaces) }
    while position < lines.count {
      let number = position + 1
      var head = trimmed(lines[position])
      position += 1
      if head.isEmpty || head.hasPrefix("#") { continue }
      while head.hasSuffix("\\"), position < lines.count {
        head = head.dropLast() + " " + trimmed(lines[position])
        position += 1
      }
      while position < lines.count, lines[position] != "----" { position += 1 }
      guard position < lines.count else { throw ScriptError(description: "line \(number): no ---- follows") }
      position += 1
      var expected: [String] = []
      if position < lines.count, lines[position] == "----" {
        position += 1
        while position < lines.count, lines[position...].prefix(2) != ["----", "----"] {
          expected.append(lines[position])
          position += 1
        }
        position += 2
      } else {
        while position < lines.count, !trimmed(lines[position]).isEmpty {
          expected.append(lines[position])
          position += 1
        }
      }
      let (command, arguments) = parseHead(head)
      directives.append(
        Directive(
          line: number, command: command, arguments: arguments, expected: expected.map { $0 + "\n" }.joined()))
    }
    return directives
  }

  private func parseHead(_ head: String) -> (String, [String: [String]]) {
    var fields: [String] = [""]
    var depth = 0
    for character in head {
      if character == "(" { depth += 1 }
      if character == ")" { depth -= 1 }
      if character == " ", depth == 0 { fields.append("") } else { fields[fields.count - 1].append(character) }
    }
    fields.removeAll(where: \.isEmpty)
    var arguments: [String: [String]] = [:]
    for field in fields.dropFirst() {
      let parts = field.split(separator: "=", maxSplits: 1).map(String.init)
      let value = parts.count > 1 ? parts[1] : ""
      let list = value.hasPrefix("(") && value.hasSuffix(")") ? String(value.dropFirst().dropLast()) : value
      arguments[parts[0]] =
        list.isEmpty ? [] : list.components(separatedBy: ",").map { $0.trimmingCharacters(in: .whitespaces) }
    }
    return (fields.first ?? "", arguments)
  }
}
