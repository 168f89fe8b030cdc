import Foundation
import Testing

/// Replays the project's own scripts, in the format of etcd's: what those never exercise. With `WEIR_REWRITE_SCRIPTS=1` the
/// files are written anew with what comes out, to be read before they are committed.
@Suite struct OwnScriptTests {
  private static var folder: URL {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Scripts")
  }

  @Test func ownScriptsMatchByteForByte() throws {
    let files = Replay.files(in: Self.folder)
    #expect(files.count >= 13)
    if ProcessInfo.processInfo.environment["WEIR_REWRITE_SCRIPTS"] == "1" {
      for file in files { try rewrite(file) }
    }
    var result = ReplayResult()
    for file in files {
      let environment = InteractionEnvironment()
      try Replay.run(file, into: &result, handle: environment.handle)
    }
    print("Own scripts: \(result.files) files, \(result.commands) commands replayed")
    for mismatch in result.mismatches { Issue.record(Comment(rawValue: mismatch)) }
  }

  /// Keeps commands and comments, replaces what is expected.
  private func rewrite(_ file: URL) throws {
    let text = try String(contentsOf: file, encoding: .utf8)
    var directives = try DataDriven.parse(text, file: file.lastPathComponent)[...]
    let environment = InteractionEnvironment()
    var lines: [String] = []
    var isExpected = false
    for line in text.components(separatedBy: "\n") {
      if isExpected, !line.isEmpty { continue }
      isExpected = false
      lines.append(line)
      guard line == "----", let directive = directives.popFirst() else { continue }
      lines += environment.handle(directive).split(separator: "\n").map(String.init)
      isExpected = true
    }
    try lines.joined(separator: "\n").write(to: file, atomically: true, encoding: .utf8)
  }
}
