/// Not random: an input must do the same every time.
public struct CountingGenerator: RandomNumberGenerator {
  private var state: UInt64 = 0

  public init() {}

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    return state
  }
}
