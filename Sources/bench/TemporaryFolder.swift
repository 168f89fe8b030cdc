import Dispatch
import Foundation
import Synchronization

/// A folder that is gone when the command ends, whatever way it ends: removed by its user, on Ctrl-C and SIGTERM, and if
/// the process was killed, by the next command that makes one in the same place.
final class TemporaryFolder: Sendable {
  private static let prefix = "weir-bench-"
  /// All that are there now.
  private static let live = Mutex<[String: Int32]>([:])
  private static let number = Mutex(0)

  let path: String

  /// - Parameter parent: where it is made; nil: `TMPDIR`, or else /var/tmp, which unlike /tmp is rarely kept in memory.
  /// - Throws: `UsageError` if it cannot be made.
  init(in parent: String? = nil) throws {
    let parent = parent ?? Self.defaultParent
    let next = Self.number.withLock { number in
      number += 1
      return number
    }
    path = "\(parent)/\(Self.prefix)\(getpid())-\(next)"
    do {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    } catch {
      throw UsageError(
        "no folder for the logs can be made in \(parent): \(ResultFiles.reason(error)); choose another --data-dir")
    }
    // Held until this process ends, however it does: who can lock it knows that the folder is nobody's any more.
    let lock = open(path + "/owner", O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    if lock >= 0 { flock(lock, LOCK_EX | LOCK_NB) }
    Self.live.withLock { $0[path] = lock }
    Self.removeAbandoned(in: parent)
  }

  deinit { remove() }

  func remove() { Self.remove(path) }

  /// Removes all that are there, for a process that ends at once.
  static func removeAll() {
    for path in live.withLock({ Array($0.keys) }) { remove(path) }
  }

  private static func remove(_ path: String) {
    guard let lock = live.withLock({ $0.removeValue(forKey: path) }) else { return }
    // Nodes that still run may make files while this goes on.
    for _ in 0..<3 where FileManager.default.fileExists(atPath: path) {
      try? FileManager.default.removeItem(atPath: path)
    }
    if lock >= 0 { close(lock) }
  }

  private static var defaultParent: String {
    if let chosen = ProcessInfo.processInfo.environment["TMPDIR"], !chosen.isEmpty { return chosen }
    return access("/var/tmp", W_OK) == 0 ? "/var/tmp" : "/tmp"
  }

  private static func removeAbandoned(in parent: String) {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: parent)) ?? []
    for name in names where name.hasPrefix(prefix) {
      let folder = parent + "/" + name
      let lock = open(folder + "/owner", O_RDWR | O_CLOEXEC)
      guard lock >= 0 else { continue }
      if flock(lock, LOCK_EX | LOCK_NB) == 0 { try? FileManager.default.removeItem(atPath: folder) }
      close(lock)
    }
  }
}

/// Ctrl-C and SIGTERM in a command that has nothing to finish: its folders go, and it ends.
final class EndOnInterrupt {
  private var sources: [any DispatchSourceSignal] = []

  init() {
    for number in [SIGINT, SIGTERM] {
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        TemporaryFolder.removeAll()
        Foundation.exit(ExitStatus.interrupted.rawValue)
      }
      source.activate()
      sources.append(source)
    }
  }
}
