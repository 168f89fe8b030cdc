import Foundation
import Synchronization
import Testing

@testable import Gossip

/// A serf agent of its own on a loopback address, killed and reaped when it is let go, and killed with the process that
/// started it, however that ends.
final class SerfAgent: Sendable {
  struct MemberStatus: Equatable {
    var status: String
    var tags: [String: String]
  }
  struct Failed: Error { var text: String }

  /// Where the program is, or nil when it is not installed.
  static let program: String? = {
    let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map(String.init)
    return (folders + ["/usr/bin", "/usr/local/bin"]).map { "\($0)/serf" }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
  }()

  let name: String
  let address: GossipAddress
  private let rpc: GossipAddress
  private let folder: URL
  private let process: Mutex<WatchedProcess>

  /// Starts an agent and waits until it answers. To be called on a `TestThread`.
  ///
  /// - Parameter host: the last part of its loopback address, so that agents have addresses of their own.
  init(_ name: String, host: UInt8, key: [UInt8]? = nil, tags: [String: String] = [:]) throws {
    self.name = name
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("weir-serf-\(name)-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let ip = IPAddress(127, 0, 0, host)
    var options = tags.map { "-tag=\($0.key)=\($0.value)" }
    if let key { options.append("-encrypt=\(Data(key).base64EncodedString())") }
    var attempt = 1
    while true {
      let address = try Self.freeAddress(ip)
      let rpc = try Self.freeAddress(ip)
      let process = try Self.start(name, at: address, rpc: rpc, folder: folder, options)
      // Another program may have taken a port since it was found free: then the agent has ended, and others are tried.
      if try Self.answers(process, rpc: rpc, name: name, folder: folder) {
        self.address = address
        self.rpc = rpc
        self.process = Mutex(process)
        return
      }
      guard attempt < 5 else {
        let log = Self.log(in: folder)
        try? FileManager.default.removeItem(at: folder)
        throw Failed(text: "serf agent \(name) ended \(attempt) times at its start:\n\(log)")
      }
      attempt += 1
    }
  }

  private static func start(
    _ name: String, at address: GossipAddress, rpc: GossipAddress, folder: URL, _ options: [String]
  ) throws -> WatchedProcess {
    let log = folder.appendingPathComponent("log")
    _ = FileManager.default.createFile(atPath: log.path, contents: nil)
    let output = try FileHandle(forWritingTo: log)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try path())
    process.arguments =
      [
        "agent", "-node=\(name)", "-bind=\(address)", "-rpc-addr=\(rpc)", "-profile=lan", "-log-level=debug",
        "-event-handler=user:hello=cat >> \(folder.path)/events",
      ] + options
    process.standardOutput = output
    process.standardError = output
    process.standardInput = FileHandle.nullDevice
    let watched = try WatchedProcess(starting: process)
    try output.close()
    return watched
  }

  /// Waits until the agent counts itself alive; false if it has ended instead.
  private static func answers(_ process: WatchedProcess, rpc: GossipAddress, name: String, folder: URL) throws -> Bool {
    do {
      try waitUntil("serf agent \(name) answers", details: { Self.log(in: folder) }) {
        try !process.isRunning || Self.members(at: rpc)[name]?.status == "alive"
      }
    } catch {
      process.end()
      try? FileManager.default.removeItem(at: folder)
      throw error
    }
    return process.isRunning
  }

  private static func path() throws -> String {
    guard let program else { throw Failed(text: "serf is not installed") }
    return program
  }

  /// A port that nothing listens on at that address, for packets and streams.
  private static func freeAddress(_ ip: IPAddress) throws -> GossipAddress {
    let sockets = try Sockets.openPair(at: GossipAddress(ip: ip, port: 0))
    close(sockets.listener)
    close(sockets.datagram)
    return sockets.bound
  }

  /// Ends the agent without letting it say goodbye.
  func kill9() { process.withLock { $0.end() } }

  func stop() {
    kill9()
    try? FileManager.default.removeItem(at: folder)
  }

  deinit { stop() }

  /// Runs a command of serf against this agent and returns what it printed.
  @discardableResult
  func command(_ name: String, _ arguments: String...) throws -> String {
    try Self.command(name, rpc: rpc, arguments)
  }

  private static func command(_ name: String, rpc: GossipAddress, _ arguments: [String]) throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try path())
    process.arguments = [name, "-rpc-addr=\(rpc)"] + arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    let text = String(decoding: output, as: UTF8.self)
    guard process.terminationStatus == 0 else { throw Failed(text: "serf \(name): \(text)") }
    return text
  }

  /// Who the agent knows, by name.
  func members() throws -> [String: MemberStatus] { try Self.members(at: rpc) }

  private static func members(at rpc: GossipAddress) throws -> [String: MemberStatus] {
    let text = try command("members", rpc: rpc, ["-format=json"])
    let decoded = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
    var members: [String: MemberStatus] = [:]
    for entry in decoded?["members"] as? [[String: Any]] ?? [] {
      guard let name = entry["name"] as? String, let status = entry["status"] as? String else { continue }
      members[name] = MemberStatus(status: status, tags: entry["tags"] as? [String: String] ?? [:])
    }
    return members
  }

  /// Payloads of the events named "hello" that the agent has handled; it puts each on a line.
  var handledPayloads: [String] {
    let text = (try? String(contentsOf: folder.appendingPathComponent("events"), encoding: .utf8)) ?? ""
    return text.split(separator: "\n").map(String.init)
  }

  var log: String { Self.log(in: folder) }

  private static func log(in folder: URL) -> String {
    (try? String(contentsOf: folder.appendingPathComponent("log"), encoding: .utf8)) ?? ""
  }
}

/// The few of serf's own messages that a member needs to be a good citizen of its cluster.
enum SerfMessage {
  /// `FF`, then the tags as a msgpack map.
  static func metadata(tags: [(String, String)]) -> [UInt8] {
    [0xFF, 0x80 | UInt8(tags.count)] + tags.flatMap { raw($0.0) + raw($0.1) }
  }

  static func userEvent(name: String, payload: String, lamportTime: UInt8) -> [UInt8] {
    [3, 0x84] + raw("CC") + [0xC2] + raw("LTime") + [lamportTime] + raw("Name") + raw(name) + raw("Payload")
      + raw(payload)
  }

  static func leaveIntent(node: String, lamportTime: UInt8) -> [UInt8] {
    [0, 0x82] + raw("LTime") + [lamportTime] + raw("Node") + raw(node)
  }

  /// Whether a user message is the event of that name with that payload.
  static func isEvent(_ message: [UInt8], name: String, payload: String) -> Bool {
    guard message.first == 3 else { return false }
    return contains(message, raw("Name") + raw(name)) && contains(message, raw("Payload") + raw(payload))
  }

  private static func raw(_ text: String) -> [UInt8] {
    precondition(text.utf8.count < 32, "only short strings are needed")
    return [0xA0 | UInt8(text.utf8.count)] + text.utf8
  }

  private static func contains(_ bytes: [UInt8], _ part: [UInt8]) -> Bool {
    guard bytes.count >= part.count else { return false }
    return (0...(bytes.count - part.count)).contains { bytes[$0..<($0 + part.count)].elementsEqual(part) }
  }
}
