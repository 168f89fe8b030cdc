import Foundation
import Testing

/// Replays etcd's own scripts and compares every byte. They are not part of the project: they lie beside it, or where
/// `CONFORMANCE_DIR` says (a folder with `interaction`, `confchange` and `quorum`).
@Suite struct ConformanceTests {
  private func replay(_ folder: String, handler: () -> (Directive) -> String) throws {
    guard let root = Replay.root else {
      print("Conformance: no scripts beside the project and no CONFORMANCE_DIR: \(folder) skipped")
      return
    }
    var result = ReplayResult()
    for file in Replay.files(in: root.appendingPathComponent(folder)) {
      try Replay.run(file, into: &result, handle: handler())
    }
    print("Conformance \(folder): \(result.files) files, \(result.commands) commands replayed")
    for mismatch in result.mismatches { Issue.record(Comment(rawValue: mismatch)) }
  }

  @Test func interactionScriptsMatchByteForByte() throws {
    try replay("interaction") { InteractionEnvironment().handle }
  }

  @Test func configurationChangeScriptsMatchByteForByte() throws {
    try replay("confchange") { ConfigurationReplay().handle }
  }
}
