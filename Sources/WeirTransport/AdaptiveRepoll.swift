/// Whether polling again before sleeping pays: after a time that brought nothing it is left off for a while, which doubles
/// with each further one.
///
/// Where nodes have cores to themselves the answer mostly comes within the time. Where other programs want the cores, a
/// thread that gives its own away may get it back after milliseconds; one that sleeps is preferred when it is woken.
struct AdaptiveRepoll {
  private var skips = 0
  private var next = 1

  static let maximumSkips = 64

  /// Whether to poll again this time.
  mutating func isDue() -> Bool {
    guard skips > 0 else { return true }
    skips -= 1
    return false
  }

  mutating func note(succeeded: Bool) {
    if succeeded {
      next = 1
    } else {
      skips = next
      next = min(next * 2, Self.maximumSkips)
    }
  }
}
