import Dispatch
import Foundation
import Synchronization
import Testing

/// The `weir` executable, which lies beside the test runner.
enum WeirExecutable {
  static let url: URL? = {
    let candidates = [Bundle.main.bundleURL, URL(fileURLWithPath: CommandLine.arguments[0])].flatMap { url in
      [url.appendingPathComponent("weir"), url.deletingLastPathComponent().appendingPathComponent("weir")]
    }
    return candidates.first { FileManager.default.isExecutableFile(atPath: $0.path) && !isDirectory($0) }
  }()

  private static func isDirectory(_ url: URL) -> Bool {
    (try? url.resourceValues(forKeys: [.isDirectoryKey]))?.isDirectory == true
  }

  /// Runs it to its end.
  static func run(_ arguments: [String]) throws -> (status: Int32, output: String, errors: String) {
    let process = Process()
    let executable: URL = try #require(url, "the weir executable is not built")
    process.executableURL = executable
    process.arguments = arguments
    let output = Pipe()
    let errors = Pipe()
    process.standardOutput = output
    process.standardError = errors
    try process.run()
    let text = output.fileHandleForReading.readDataToEndOfFile()
    let complaint = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (
      process.terminationStatus, String(decoding: text, as: UTF8.self), String(decoding: complaint, as: UTF8.self)
    )
  }
}

/// One life of `weir torture-node`, as the test that will end it sees it.
final class TortureNodeProcess: Sendable {
  private struct State {
    var acknowledged: [UInt64] = []
    var answers: [String] = []
    var notices: [String] = []
    var hasEnded = false
    var firstNotice: ContinuousClock.Instant?
    var end: ContinuousClock.Instant?
  }

  let id: UInt64
  let life: UInt64
  private let process: Process
  private let input = Pipe()
  private let state = Mutex(State())
  private let answered = DispatchSemaphore(value: 0)
  private let ended = DispatchSemaphore(value: 0)

  init(id: UInt64, life: UInt64, nodes: Int, directory: String, arguments: [String]) throws {
    self.id = id
    self.life = life
    process = Process()
    let executable: URL = try #require(WeirExecutable.url, "the weir executable is not built")
    process.executableURL = executable
    process.arguments =
      [
        "torture-node", "--id", "\(id)", "--life", "\(life)", "--nodes", "\(nodes)", "--data-dir",
        "\(directory)/node-\(id)",
      ] + arguments
    let output = Pipe()
    process.standardInput = input
    process.standardOutput = output
    try process.run()
    Thread.detachNewThread { [self] in readAll(output.fileHandleForReading) }
  }

  private func readAll(_ handle: FileHandle) {
    var buffer = Data()
    while true {
      let more = handle.availableData
      guard !more.isEmpty else { break }
      buffer.append(more)
      // What is behind the last line end may have been cut off by the kill.
      while let end = buffer.firstIndex(of: 10) {
        take(String(decoding: buffer[buffer.startIndex..<end], as: UTF8.self))
        buffer = Data(buffer[buffer.index(after: end)...])
      }
    }
    // Its end of the pipe closes with the process itself.
    let now = ContinuousClock.now
    state.withLock { state in
      state.hasEnded = true
      state.end = now
    }
    answered.signal()
    ended.signal()
  }

  private func take(_ line: String) {
    let words = line.split(separator: " ")
    switch words.first {
    case "a": state.withLock { $0.acknowledged += words.dropFirst().compactMap { UInt64($0) } }
    case "fault", "failed":
      let now = ContinuousClock.now
      state.withLock { state in
        state.notices.append(line)
        state.firstNotice = state.firstNotice ?? now
      }
    default:
      state.withLock { $0.answers.append(line) }
      answered.signal()
    }
  }

  /// The writes that were acknowledged.
  var acknowledged: [UInt64] { state.withLock { $0.acknowledged } }
  /// What it said by itself about its disk.
  var notices: [String] { state.withLock { $0.notices } }

  /// How long it went on after its disk failed, both seen from here; nil before it has ended.
  var timeFromFaultToEnd: Duration? {
    state.withLock { state in
      guard let first = state.firstNotice, let end = state.end else { return nil }
      return end - first
    }
  }

  func send(_ line: String) {
    // A node that has just ended by itself does not read any more.
    try? input.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8))
  }

  /// The next line that is an answer; nil if it has ended, or says nothing for two minutes.
  func answer() -> String? {
    guard answered.wait(timeout: .now() + .seconds(120)) == .success else { return nil }
    return state.withLock { $0.answers.isEmpty ? nil : $0.answers.removeFirst() }
  }

  /// The next line that is an answer.
  func receive() throws -> String {
    try #require(answer(), "node \(id) in its life \(life) does not answer any more, and \(fate); it said \(notices)")
  }

  private var fate: String {
    guard state.withLock(\.hasEnded) else { return "is there" }
    process.waitUntilExit()
    return "has ended with \(process.terminationReason == .exit ? "status" : "signal") \(process.terminationStatus)"
  }

  func ask(_ line: String) throws -> [String] {
    send(line)
    return try receive().split(separator: " ").map(String.init)
  }

  /// Ends it without notice.
  func kill() {
    Foundation.kill(process.processIdentifier, SIGKILL)
    waitForEnd()
  }

  func waitForEnd() {
    ended.wait()
    process.waitUntilExit()
  }

  /// Waits until it has ended by itself; false if it does not.
  func hasEnded(within seconds: Int) -> Bool {
    guard ended.wait(timeout: .now() + .seconds(seconds)) == .success else { return false }
    process.waitUntilExit()
    return true
  }

  var exitStatus: Int32 { process.terminationStatus }
  var isRunning: Bool { process.isRunning }
}

/// Numbers as ranges: `3-9 12-12`.
func ranges(of numbers: [UInt64]) -> String {
  var ranges: [(UInt64, UInt64)] = []
  for number in numbers.sorted() {
    if let last = ranges.last, number == last.1 + 1 {
      ranges[ranges.count - 1].1 = number
    } else {
      ranges.append((number, number))
    }
  }
  return ranges.map { "\($0.0)-\($0.1)" }.joined(separator: " ")
}
