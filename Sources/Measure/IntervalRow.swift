import Foundation

/// One row of `series.csv`: one second (or what is left of one) of one run.
public struct IntervalRow: Codable, Sendable, Equatable {
  /// Seconds since the bench started.
  public var timeSeconds: Double
  public var lengthSeconds: Double
  public var run: String
  public var offeredPerSecond: Double
  public var completedPerSecond: Double
  public var errors: UInt64
  public var late: UInt64
  /// At the end of the interval.
  public var inFlight: UInt64
  /// Of the response times of all operations in the interval.
  public var p50Nanoseconds: UInt64?
  public var p99Nanoseconds: UInt64?
  public var p999Nanoseconds: UInt64?
  public var maxNanoseconds: UInt64

  public init(
    timeSeconds: Double, lengthSeconds: Double, run: String, offered: UInt64, response: LatencyHistogram,
    errors: UInt64, late: UInt64, inFlight: UInt64
  ) {
    self.timeSeconds = timeSeconds
    self.lengthSeconds = lengthSeconds
    self.run = run
    let length = max(lengthSeconds, 1e-9)
    offeredPerSecond = Double(offered) / length
    completedPerSecond = Double(response.count) / length
    self.errors = errors
    self.late = late
    self.inFlight = inFlight
    p50Nanoseconds = response.printableQuantile(0.5)
    p99Nanoseconds = response.printableQuantile(0.99)
    p999Nanoseconds = response.printableQuantile(0.999)
    maxNanoseconds = response.maxNanoseconds
  }

  /// The file's text: a header, then the rows. What could not be said is an empty field.
  public static func csv(_ rows: [IntervalRow]) -> String {
    var text =
      "time_s,length_s,run,offered_per_s,completed_per_s,errors,late,in_flight,p50_us,p99_us,p999_us,max_us\n"
    func microseconds(_ nanoseconds: UInt64?) -> String {
      nanoseconds.map { String(format: "%.3f", Double($0) / 1000) } ?? ""
    }
    for row in rows {
      let fields = [
        String(format: "%.3f", row.timeSeconds), String(format: "%.3f", row.lengthSeconds), row.run,
        String(format: "%.1f", row.offeredPerSecond), String(format: "%.1f", row.completedPerSecond),
        String(row.errors), String(row.late), String(row.inFlight), microseconds(row.p50Nanoseconds),
        microseconds(row.p99Nanoseconds), microseconds(row.p999Nanoseconds), microseconds(row.maxNanoseconds),
      ]
      text += fields.joined(separator: ",") + "\n"
    }
    return text
  }
}
