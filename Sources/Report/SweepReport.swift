import Measure

/// What one thing costs as it grows: a chart of a sweep.
public struct SweepChart: Sendable {
  /// One measured point.
  public struct Point: Sendable {
    public var value: Double
    /// CPU time of an operation in all processes and threads, and its share of the wall clock (1 / throughput).
    public var cpuMicroseconds: Double
    public var wallMicroseconds: Double
    public var p50Microseconds: Double

    public init(value: Double, cpuMicroseconds: Double, wallMicroseconds: Double, p50Microseconds: Double) {
      self.value = value
      self.cpuMicroseconds = cpuMicroseconds
      self.wallMicroseconds = wallMicroseconds
      self.p50Microseconds = p50Microseconds
    }
  }

  public var title: String
  /// What grows, with its unit.
  public var dimension: String
  public var points: [Point]

  public init(title: String, dimension: String, points: [Point]) {
    self.title = title
    self.dimension = dimension
    self.points = points
  }
}

/// The plots of a sweep, as one HTML file without scripts.
public enum SweepReport {
  /// - Parameters:
  ///   - subtitle: what stayed the same in all points.
  public static func html(title: String, subtitle: String, machine: MachineFingerprint, charts: [SweepChart]) -> String
  {
    var body = "<header><h1>\(HTML.escaped(title))</h1>\n<p>\(HTML.escaped(subtitle))</p>\n"
    body += "<p>\(HTML.escaped(machine.cpuModel)), \(machine.logicalCores) cores, \(HTML.escaped(machine.allocator)), "
    body += "Swift \(HTML.escaped(machine.toolchain)), commit \(HTML.escaped(machine.shortRevision)).</p></header>\n"
    for chart in charts { body += "<section>\(draw(chart))</section>\n" }
    return """
      <!DOCTYPE html>
      <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
      <title>\(HTML.escaped(title))</title>
      <style>\(ReportStyle.css)</style></head><body><main>
      \(body)</main></body></html>

      """
  }

  private static func draw(_ chart: SweepChart) -> String {
    func series(_ name: String, _ color: Int, isDashed: Bool, _ path: KeyPath<SweepChart.Point, Double>)
      -> LineChart.Series
    {
      LineChart.Series(
        name: name, points: chart.points.map { ($0.value, $0[keyPath: path]) }, color: color, isDashed: isDashed)
    }
    let spread = (chart.points.map(\.value).max() ?? 1) / max(chart.points.map(\.value).min() ?? 1, 1e-9)
    return LineChart(
      title: chart.title, xTitle: chart.dimension, yTitle: "µs", xScale: spread > 20 ? .logarithmic : .linear,
      yScale: .logarithmic,
      series: [
        series("CPU an operation", 1, isDashed: false, \.cpuMicroseconds),
        series("wall clock an operation (1 / throughput)", 2, isDashed: true, \.wallMicroseconds),
        series("latency, p50", 3, isDashed: false, \.p50Microseconds),
      ], xLabel: { NumberFormat.grouped($0) }, yLabel: { NumberFormat.short($0) }
    ).svg()
  }
}
