import Foundation

/// How the intended start times of an open loop are spaced.
public enum Arrival: String, Sendable, CaseIterable, Codable {
  /// One operation every 1/rate.
  case uniform
  /// Exponential gaps: what many independent clients together look like.
  case poisson
}

/// The intended start times of one worker, in nanoseconds after the run's start: a pure function of the seed, so that
/// nothing that happens in the run can move them.
public struct ArrivalSchedule: Sendable {
  /// When the next operation is meant to start.
  public private(set) var nextNanoseconds: UInt64

  private let arrival: Arrival
  private let seed: UInt64
  private let meanGapNanoseconds: Double
  private let offsetNanoseconds: Double
  private var index: UInt64 = 0
  private var elapsed: Double = 0

  /// - Parameters:
  ///   - ratePerSecond: of all workers together; each has an equal part of it.
  ///   - worker: from 0, below `workers`.
  public init(arrival: Arrival, ratePerSecond: Double, worker: Int, workers: Int, seed: UInt64) {
    self.arrival = arrival
    self.seed = SeededBits.derive(seed, stream: 0x5343_4845_4455_4C45 &+ UInt64(worker))
    meanGapNanoseconds = 1e9 * Double(workers) / ratePerSecond
    // Uniform arrivals of several workers interleave into one even row.
    offsetNanoseconds = 1e9 * Double(worker) / ratePerSecond
    nextNanoseconds = 0
    switch arrival {
    case .uniform: nextNanoseconds = UInt64(offsetNanoseconds)
    case .poisson:
      elapsed = gap()
      nextNanoseconds = UInt64(elapsed)
    }
  }

  /// Goes on to the next operation.
  public mutating func advance() {
    index += 1
    switch arrival {
    case .uniform:
      // From the index and not by adding up, so that no rounding error builds up over a long run.
      nextNanoseconds = UInt64(offsetNanoseconds + Double(index) * meanGapNanoseconds)
    case .poisson:
      elapsed += gap()
      nextNanoseconds = UInt64(elapsed)
    }
  }

  private func gap() -> Double {
    -log(SeededBits.unitInterval(SeededBits.bits(seed: seed, index: index))) * meanGapNanoseconds
  }
}
