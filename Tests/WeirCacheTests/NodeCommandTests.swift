import Foundation
import HTTPWire
import Testing
import WeirTransport

@testable import WeirCache

/// `weir node` as people run it: processes, their data directories and their HTTP doors.
@Suite(.serialized) struct NodeCommandTests {
  /// One node's process. Its ports are chosen before, so that it can be started again with the same.
  private final class NodeProcess {
    let id: Int
    let ports: (http: UInt16, raft: UInt16, gossip: UInt16)
    private let folder: URL
    /// Ends with this process, and the node with it, however that is.
    private var lifeline = Pipe()
    private var process: Process?

    init(id: Int, folder: URL) throws {
      self.id = id
      self.folder = folder
      ports = (try Self.freePort(), try Self.freePort(), try Self.freePort())
    }

    deinit { kill() }

    var http: String { "127.0.0.1:\(ports.http)" }
    var gossip: String { "127.0.0.1:\(ports.gossip)" }

    func start(_ more: [String]) throws {
      let runner = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
      let process = Process()
      process.executableURL = URL(fileURLWithPath: runner).deletingLastPathComponent().appendingPathComponent("weir")
      process.arguments =
        [
          "node", "--id", "\(id)", "--data-dir", folder.appendingPathComponent("\(id)").path, "--http", http, "--raft",
          "127.0.0.1:\(ports.raft)", "--gossip", gossip, "--log-level", "error", "--stop-with-input",
        ] + more
      lifeline = Pipe()
      process.standardInput = lifeline
      process.standardOutput = FileHandle.nullDevice
      process.standardError = FileHandle.nullDevice
      try process.run()
      self.process = process
    }

    func kill() {
      guard let process, process.isRunning else { return }
      Foundation.kill(process.processIdentifier, SIGKILL)
      process.waitUntilExit()
    }

    func terminate() -> Int32? {
      guard let process else { return nil }
      process.terminate()
      process.waitUntilExit()
      return process.terminationStatus
    }

    /// As if this process had ended.
    func leaveAlone() throws { try lifeline.fileHandleForWriting.close() }

    func hasEnded(with status: Int32) -> Bool {
      guard let process, !process.isRunning else { return false }
      return process.terminationStatus == status
    }

    /// The answer behind all redirects; nil while nobody answers.
    func ask(_ method: HTTPMethod, _ target: String) -> HTTPExchange.Answer? {
      var place = http
      for _ in 0..<4 {
        guard let address = SocketAddress(numeric: place),
          let answer = try? HTTPExchange.request(
            method, target, at: address, deadlineNanoseconds: deadline(inSeconds: 20))
        else { return nil }
        guard answer.code == 307, let location = answer.location else { return answer }
        place = String(location.dropFirst(7).prefix { $0 != "/" })
      }
      return nil
    }

    private static func freePort() throws -> UInt16 {
      let (descriptor, port) = try Socket.listen(on: try SocketAddress(host: "127.0.0.1", port: 0))
      Socket.close(descriptor)
      return port
    }
  }

  private func withNodes(_ body: ([NodeProcess]) throws -> Void) throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("weir-node-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let nodes = try (1...3).map { try NodeProcess(id: $0, folder: folder) }
    defer { for node in nodes { node.kill() } }
    try body(nodes)
  }

  private func begin(_ nodes: [NodeProcess]) throws {
    try nodes[0].start(["--bootstrap"])
    for node in nodes.dropFirst() {
      try node.start(["--join", nodes[0].http, "--gossip-join", nodes[0].gossip])
    }
    #expect(
      eventually {
        nodes.allSatisfy { node in
          guard let body = node.ask(.get, "/v1/members")?.text else { return false }
          return body.components(separatedBy: "\"httpAddress\"").count == 4
        }
      }, "every node knows of all three, and where they serve")
  }

  @Test func aClusterIsBootstrappedJoinedKilledAndComesBack() throws {
    try withNodes { nodes in
      try begin(nodes)
      for number in 0..<30 {
        let answer = nodes[number % 3].ask(.post, "/set?key=k\(number)&value=v\(number)")
        #expect(answer?.text == "ok")
      }
      // Killed, and back from its own disk: without being told to join anything.
      nodes[0].kill()
      #expect(eventually { nodes[1].ask(.get, "/get?key=k7")?.text == "v7" })
      #expect(eventually { nodes[2].ask(.post, "/set?key=later&value=1")?.text == "ok" })
      try nodes[0].start([])
      #expect(eventually { nodes[0].ask(.get, "/get?key=later&consistency=stale")?.text == "1" })
      // All of them, at once: what was acknowledged is on their disks, and so is who and where they are.
      for node in nodes { node.kill() }
      for node in nodes { try node.start(["--gossip-join", nodes[0].gossip]) }
      #expect(eventually { nodes[0].ask(.get, "/get?key=k29")?.text == "v29" })
      #expect(nodes.allSatisfy { node in eventually { node.ask(.get, "/get?key=later")?.text == "1" } })
    }
  }

  @Test func anOrderlyEndHandsTheLeadershipOver() throws {
    try withNodes { nodes in
      try begin(nodes)
      #expect(nodes[0].ask(.get, "/set?key=a&value=1")?.text == "ok")
      let leaderAddress = nodes[0].ask(.get, "/leader")?.text
      let leader = try #require(nodes.first { "127.0.0.1:\($0.ports.raft)" == leaderAddress })
      #expect(leader.terminate() == 0)
      let rest = nodes.filter { $0.id != leader.id }
      #expect(eventually { rest[0].ask(.get, "/get?key=a")?.text == "1" })
      #expect(eventually { rest[0].ask(.post, "/leave?id=\(leader.id)")?.text == "ok" })
      #expect(
        eventually {
          let members = rest[1].ask(.get, "/v1/members")?.text ?? ""
          return !members.contains("\"id\":\(leader.id),")
        })
      for node in rest { #expect(node.terminate() == 0) }
    }
  }

  @Test("A node that was told so stops with whoever started it")
  func nobodyIsLeftBehind() throws {
    try withNodes { nodes in
      try begin(nodes)
      for node in nodes { try node.leaveAlone() }
      #expect(nodes.allSatisfy { node in eventually { node.hasEnded(with: 0) } })
    }
  }

  @Test func joiningNobodyIsGivenUp() throws {
    try withNodes { nodes in
      try nodes[0].start(["--join", nodes[1].http, "--join-timeout", "1"])
      #expect(eventually { nodes[0].hasEnded(with: 1) })
    }
  }
}
