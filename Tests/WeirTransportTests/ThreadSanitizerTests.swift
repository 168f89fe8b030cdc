import Foundation
import Synchronization
import TestSupport
import Testing

/// Whether the thread sanitizer is worth its hours: a race that is really there has to be reported.
@Suite struct ThreadSanitizerTests {
  private static let switchName = "WEIR_PLANTED_RACE"
  static let isPlanted = ProcessInfo.processInfo.environment[switchName] == "1"

  /// Two threads and one word without a lock: what the house's rules on shared state exclude.
  @Test(.enabled(if: isPlanted, "a race on purpose: set WEIR_PLANTED_RACE=1"))
  func plantedRace() {
    let shared = UnsafeMutablePointer<Int>.allocate(capacity: 1)
    defer { shared.deallocate() }
    shared.initialize(to: 0)
    nonisolated(unsafe) let word = shared
    let done = DispatchSemaphore(value: 0)
    let started = Started()
    for _ in 0..<2 {
      Thread {
        // In turns, and both alive to the end: of an access by a thread that is gone, or whose history has run on, the
        // sanitizer may not say anything. Relaxed, so as to order nothing.
        started.wait(for: 2)
        for _ in 0..<1000 {
          word.pointee &+= 1
          sched_yield()
        }
        started.wait(for: 4)
        done.signal()
      }.start()
    }
    for _ in 0..<2 { done.wait() }
    #expect(word.pointee > 0)
  }

  private final class Started: Sendable {
    private let count = Atomic<Int>(0)

    func wait(for number: Int) {
      count.wrappingAdd(1, ordering: .relaxed)
      while count.load(ordering: .relaxed) < number { sched_yield() }
    }
  }

  @Test(.enabled(if: Sanitizers.isThreadSanitized && !isPlanted, "only in a build with --sanitize=thread"))
  func aPlantedRaceIsReported() throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    process.arguments = ["--testing-library", "swift-testing", "--filter", "ThreadSanitizerTests/plantedRace"]
    process.environment = ProcessInfo.processInfo.environment.merging(
      [Self.switchName: "1", "TSAN_OPTIONS": "exitcode=66"]
    ) { $1 }
    let output = FileManager.default.temporaryDirectory.appendingPathComponent("weir-race-\(UUID().uuidString)")
    try Data().write(to: output)
    defer { try? FileManager.default.removeItem(at: output) }
    process.standardError = try FileHandle(forWritingTo: output)
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    let text = try String(contentsOf: output, encoding: .utf8)
    #expect(text.contains("WARNING: ThreadSanitizer"), "\(text.suffix(2000))")
    #expect(process.terminationStatus == 66)
  }
}
