import Logging
import Synchronization

/// What is said to a logger, so that a test sees what an operator would.
public final class LogLines: Sendable {
  private let lines = Mutex<[String]>([])

  public init() {}

  public var all: [String] { lines.withLock { $0 } }

  public func contains(_ text: String) -> Bool { all.contains { $0.contains(text) } }

  public func count(of text: String) -> Int { all.count { $0.contains(text) } }

  /// A logger that says it here.
  /// - Parameter level: what is less than that is not said.
  public func logger(level: Logger.Level = .info) -> Logger {
    Logger(label: "test") { _ in Handler(lines: self, logLevel: level) }
  }

  private struct Handler: LogHandler {
    let lines: LogLines
    var metadata = Logger.Metadata()
    var logLevel: Logger.Level

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }

    func log(event: LogEvent) { lines.lines.withLock { $0.append("\(event.message)") } }
  }
}
