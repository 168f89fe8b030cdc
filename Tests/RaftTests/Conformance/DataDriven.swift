import Foundation

/// One directive of a data-driven script: a command line, its input, and the output that must come.
struct Directive {
  struct Argument {
    var key: String
    var values: [String]
  }

  var file: String
  var line: Int
  var command: String
  var arguments: [Argument]
  var input: String
  var expected: String

  /// Arguments without a value.
  var bareKeys: [String] { arguments.filter { $0.values.isEmpty }.map(\.key) }
  func values(_ key: String) -> [String]? { arguments.first { $0.key == key }?.values }
  func value(_ key: String) -> String? { values(key)?.first }
  func has(_ key: String) -> Bool { arguments.contains { $0.key == key } }
}

struct ScriptError: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// Reads the container format of cockroachdb's datadriven tests.
enum DataDriven {
  static func parse(_ text: String, file: String) throws -> [Directive] {
    var directives: [Directive] = []
    // A final line end does not begin another line.
    var lines = text.components(separatedBy: "\n")
    if lines.last == "" { lines.removeLast() }
    var position = 0
    while position < lines.count {
      let start = position
      var head = trimmed(lines[position])
      position += 1
      // Subtests are headings here: they share the environment of their file.
      if head.isEmpty || head.hasPrefix("#") || head == "subtest" || head.hasPrefix("subtest ") { continue }
      while head.hasSuffix("\\"), position < lines.count {
        head = String(head.dropLast()) + " " + trimmed(lines[position])
        position += 1
      }
      var input: [String] = []
      while position < lines.count, lines[position] != "----" {
        input.append(lines[position])
        position += 1
      }
      guard position < lines.count else { throw ScriptError("\(file):\(start + 1): no ---- after the directive") }
      position += 1
      let expected = readExpected(lines, &position)
      let (command, arguments) = try parseHead(head, at: "\(file):\(start + 1)")
      directives.append(
        Directive(
          file: file, line: start + 1, command: command, arguments: arguments,
          input: trimmed(input.joined(separator: "\n")), expected: expected))
    }
    return directives
  }

  private static func readExpected(_ lines: [String], _ position: inout Int) -> String {
    var expected = ""
    if position < lines.count, lines[position] == "----" {
      // A block that may hold empty lines ends at two successive lines of dashes.
      position += 1
      while position < lines.count {
        if lines[position] == "----", position + 1 < lines.count, lines[position + 1] == "----" {
          position += 2
          break
        }
        expected += lines[position] + "\n"
        position += 1
      }
      return expected
    }
    while position < lines.count, !trimmed(lines[position]).isEmpty {
      expected += lines[position] + "\n"
      position += 1
    }
    return expected
  }

  private static func trimmed(_ text: String) -> String { text.trimmingCharacters(in: .whitespaces) }

  /// Splits `command key key=value key=(v1, v2)`.
  private static func parseHead(_ head: String, at place: String) throws -> (String, [Directive.Argument]) {
    var fields: [String] = []
    var field = ""
    var depth = 0
    for character in head {
      switch character {
      case "(": depth += 1
      case ")": depth -= 1
      default: break
      }
      if character == " " || character == "\t", depth == 0 {
        if !field.isEmpty { fields.append(field) }
        field = ""
      } else {
        field.append(character)
      }
    }
    if !field.isEmpty { fields.append(field) }
    guard depth == 0, let command = fields.first else { throw ScriptError("\(place): unbalanced directive: \(head)") }
    return (command, fields.dropFirst().map(parseArgument))
  }

  private static func parseArgument(_ field: String) -> Directive.Argument {
    guard let equals = field.firstIndex(of: "=") else { return .init(key: field, values: []) }
    let key = String(field[..<equals])
    let value = String(field[field.index(after: equals)...])
    guard value.hasPrefix("("), value.hasSuffix(")") else { return .init(key: key, values: [value]) }
    return .init(key: key, values: splitList(String(value.dropFirst().dropLast())))
  }

  private static func splitList(_ list: String) -> [String] {
    var items: [String] = []
    var item = ""
    var depth = 0
    for character in list {
      if character == "(" { depth += 1 }
      if character == ")" { depth -= 1 }
      if character == ",", depth == 0 {
        items.append(trimmed(item))
        item = ""
      } else {
        item.append(character)
      }
    }
    if !trimmed(item).isEmpty || !items.isEmpty { items.append(trimmed(item)) }
    return items
  }
}

/// What a replay found.
struct ReplayResult {
  var files = 0
  var commands = 0
  var mismatches: [String] = []
}

enum Replay {
  /// The folder of the data: `CONFORMANCE_DIR`, or the one beside the project.
  static var root: URL? {
    let environment = ProcessInfo.processInfo.environment["CONFORMANCE_DIR"]
    let candidates: [URL] =
      if let environment {
        [URL(fileURLWithPath: environment), URL(fileURLWithPath: environment).appendingPathComponent("etcd-raft")]
      } else {
        [
          URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("../shared/conformance/etcd-raft").standardized
        ]
      }
    let folders = ["interaction", "confchange", "quorum"]
    return candidates.first { candidate in
      folders.contains { FileManager.default.fileExists(atPath: candidate.appendingPathComponent($0).path) }
    }
  }

  /// The scripts of `folder` below `root`, by name.
  static func files(in folder: URL) -> [URL] {
    let contents = (try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)) ?? []
    return contents.filter { $0.pathExtension == "txt" }.sorted { $0.lastPathComponent < $1.lastPathComponent }
  }

  /// Runs one script with one environment.
  static func run(_ file: URL, into result: inout ReplayResult, handle: (Directive) -> String) throws {
    let text = try String(contentsOf: file, encoding: .utf8)
    result.files += 1
    for directive in try DataDriven.parse(text, file: file.lastPathComponent) {
      result.commands += 1
      var actual = handle(directive)
      if !actual.isEmpty, !actual.hasSuffix("\n") { actual += "\n" }
      if actual != directive.expected {
        result.mismatches.append(describe(directive, actual))
        // What follows depends on the state, so only the first difference of a file says something.
        return
      }
    }
  }

  private static func describe(_ directive: Directive, _ actual: String) -> String {
    let expected = directive.expected.components(separatedBy: "\n")
    let lines = actual.components(separatedBy: "\n")
    var text = "\(directive.file):\(directive.line): \(directive.command)\n"
    for difference in lines.difference(from: expected).inferringMoves() {
      switch difference {
      case .remove(let offset, let line, _): text += "  -\(offset + 1) \(line)\n"
      case .insert(let offset, let line, _): text += "  +\(offset + 1) \(line)\n"
      }
    }
    return text
  }
}
