import Glibc
import Raft
import WeirCore

/// Keys that are past their deadline and that nobody asks for.
extension NodeLoop {
  /// Slots that are looked at in one tick, and keys that are removed in one: about 0.2 ms of each 50, and 20,000 keys a
  /// second. A table of a million keys is walked in about 25 s.
  private static var slotsPerTick: Int { 4096 }
  private static var keysPerTick: Int { 1024 }

  /// Proposes to remove some keys whose deadline has passed by this leader's clock. Nobody waits for it: what is refused, or
  /// lost with the leadership, is found again.
  func proposeExpiry() {
    guard role == .leader, durable?.spaceWarning == nil else { return }
    let asOf = WallClock.milliseconds()
    let keys = store.collectExpired(
      asOf: asOf, &expirySearch, maximumSlots: Self.slotsPerTick, maximumKeys: Self.keysPerTick)
    guard !keys.isEmpty else { return }
    var builder = EntryBatchBuilder()
    for key in keys {
      let options = Command.Options(asOfMilliseconds: asOf)
      if let command = try? Command.encode(.removeExpired, key: key, options: options) {
        builder.append(payload: command)
      }
    }
    try? raft.propose(builder.finish())
  }
}

/// What time it is for people, and for deadlines of keys.
enum WallClock {
  /// Milliseconds since 1970 (CLOCK_REALTIME).
  static func milliseconds() -> UInt64 {
    var time = timespec()
    guard unsafe clock_gettime(CLOCK_REALTIME, &time) == 0, time.tv_sec >= 0 else { return 0 }
    return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
  }
}
