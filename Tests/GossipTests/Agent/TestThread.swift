import Dispatch
import Glibc
import Testing

/// A thread of a test's own.
///
/// Tests of other rooms block the few threads that all tasks share for many seconds at a time: a task that waits there
/// for something to happen on the network finds its patience over before it has looked twice. A body that runs here is
/// resumed here too, may block, and keeps nobody else from running.
final class TestThread: TaskExecutor {
  private let queue: DispatchQueue

  private init(_ name: String) { queue = DispatchQueue(label: "weir.test.\(name)") }

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    queue.async { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
  }

  /// Runs `body` there.
  static func run(_ name: String, _ body: () async throws -> Void) async throws {
    try await withTaskExecutorPreference(TestThread(name), operation: body)
  }
}

/// Looks at `condition` until it holds, blocking the thread; throws `NotInTime` with what `details` says if it does not
/// within `seconds`. To be used on a `TestThread` only.
func waitUntil(
  _ what: String, seconds: Int = 120, details: () -> String = { "" }, _ condition: () throws -> Bool
) throws {
  let end = ContinuousClock.now + .seconds(seconds)
  var lastError: (any Error)?
  while true {
    do {
      if try condition() { return }
      lastError = nil
    } catch {
      lastError = error
    }
    guard ContinuousClock.now < end else { break }
    usleep(50_000)
  }
  let reason = lastError.map { "; the last attempt failed: \($0)" } ?? ""
  throw NotInTime(description: "not within \(seconds) s: \(what)\(reason)\n\(details())")
}

/// The same for what may be lost on its way: does `action` now and every five seconds until `condition` holds.
func waitUntil(
  _ what: String, details: () -> String, repeating action: () async throws -> Void, condition: () throws -> Bool
) async throws {
  for _ in 0..<24 {
    try await action()
    if (try? waitUntil(what, seconds: 5, condition)) != nil { return }
  }
  throw NotInTime(description: "not within 24 attempts: \(what)\n\(details())")
}

struct NotInTime: Error, CustomStringConvertible { var description: String }
