/// When something that failed is tried again: after a pause that doubles with each failure that follows. Pure: the clock
/// comes in.
struct RetryPause {
  private let leastNanoseconds: UInt64
  private let mostNanoseconds: UInt64
  private var pauseNanoseconds: UInt64 = 0
  /// Not before this time.
  private(set) var nextNanoseconds: UInt64 = 0

  /// Nothing has failed yet.
  /// - Parameters:
  ///   - leastNanoseconds: the pause after the first failure.
  ///   - mostNanoseconds: the longest.
  init(leastNanoseconds: UInt64, mostNanoseconds: UInt64) {
    precondition(leastNanoseconds > 0 && mostNanoseconds >= leastNanoseconds, "a pause is longer than none")
    self.leastNanoseconds = leastNanoseconds
    self.mostNanoseconds = mostNanoseconds
  }

  /// It was tried, and failed.
  /// - Returns: how long it is left alone now.
  @discardableResult
  mutating func failed(nowNanoseconds: UInt64) -> UInt64 {
    let doubled = pauseNanoseconds > mostNanoseconds / 2 ? mostNanoseconds : 2 * pauseNanoseconds
    pauseNanoseconds = max(doubled, leastNanoseconds)
    nextNanoseconds = nowNanoseconds + pauseNanoseconds
    return pauseNanoseconds
  }

  /// Whether it may be tried.
  func isOver(nowNanoseconds: UInt64) -> Bool { nowNanoseconds >= nextNanoseconds }
}
