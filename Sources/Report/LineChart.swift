import Foundation

/// How a quantity is laid along an axis.
enum AxisScale {
  /// From 0.
  case linear
  case logarithmic
  /// Quantiles 0...1, each further nine as wide as the one before: 0, 0.9, 0.99, …
  case nines

  func position(_ value: Double) -> Double {
    switch self {
    case .linear: value
    case .logarithmic: log10(max(value, 1e-12))
    case .nines: -log10(max(1 - value, 1e-12))
    }
  }
}

/// A chart of lines or dots, as one inline SVG that needs no script: every mark says its numbers when pointed at, and
/// the data follow as a table.
struct LineChart {
  struct Series {
    var name: String
    var points: [(x: Double, y: Double)]
    var color: Int
    var isDashed = false
    /// Dots without a line between them.
    var isScatter = false
  }

  var title: String
  var xTitle: String
  var yTitle: String
  var xScale: AxisScale
  var yScale: AxisScale
  var series: [Series]
  var xLabel: (Double) -> String
  var yLabel: (Double) -> String
  /// Draws a line at this height, e.g. at a ratio of 1.
  var reference: Double?

  private static let width = 860.0
  private static let height = 360.0
  private static let left = 78.0
  private static let right = 16.0
  private static let top = 14.0
  private static let bottom = 52.0

  func svg() -> String {
    let points = series.flatMap(\.points).filter { $0.x.isFinite && $0.y.isFinite }
    guard !points.isEmpty else { return "" }
    let xTicks = ticks(xScale, points.map(\.x))
    let yTicks = ticks(yScale, points.map(\.y) + (reference.map { [$0] } ?? []))
    let x = mapping(xScale, xTicks, from: Self.left, to: Self.width - Self.right)
    let y = mapping(yScale, yTicks, from: Self.height - Self.bottom, to: Self.top)
    var text = "<figure><figcaption>\(HTML.escaped(title))</figcaption>\n"
    text += legend()
    text += "<svg viewBox=\"0 0 \(Int(Self.width)) \(Int(Self.height))\" role=\"img\" aria-label=\""
    text += "\(HTML.escaped("\(title): \(yTitle) over \(xTitle)"))\">\n"
    text += grid(xTicks, yTicks, x, y)
    for line in series { text += marks(line, x, y) }
    text += "</svg>\n" + table() + "</figure>\n"
    return text
  }

  // MARK: Axes

  private func ticks(_ scale: AxisScale, _ values: [Double]) -> [Double] {
    let low = values.min() ?? 0
    let high = values.max() ?? 1
    switch scale {
    case .linear:
      let step = Self.niceStep(max(high, 1e-9) / 5)
      return (0...max(1, Int((max(high, 1e-9) / step).rounded(.up)))).map { Double($0) * step }
    case .logarithmic:
      let first = Int(log10(max(low, 1e-9)).rounded(.down))
      let last = max(first + 1, Int(log10(max(high, 1e-9)).rounded(.up)))
      return (first...last).map { pow(10, Double($0)) }
    case .nines:
      let last = max(1, Int(scale.position(min(high, 0.999999)).rounded(.up)))
      return [0, 0.5] + (1...last).map { 1 - pow(10, -Double($0)) }
    }
  }

  private static func niceStep(_ raw: Double) -> Double {
    let magnitude = pow(10, log10(raw).rounded(.down))
    return [1, 2, 2.5, 5, 10].map { $0 * magnitude }.first { $0 >= raw } ?? raw
  }

  private func mapping(
    _ scale: AxisScale, _ ticks: [Double], from: Double, to: Double
  ) -> (Double) -> Double {
    let low = scale.position(ticks.first ?? 0)
    let high = scale.position(ticks.last ?? 1)
    let span = max(high - low, 1e-12)
    return { value in
      let share = min(max((scale.position(value) - low) / span, 0), 1)
      return from + share * (to - from)
    }
  }

  private func grid(
    _ xTicks: [Double], _ yTicks: [Double], _ x: (Double) -> Double, _ y: (Double) -> Double
  ) -> String {
    let bottom = Self.height - Self.bottom
    var text = ""
    for tick in xTicks {
      let position = SVG.number(x(tick))
      text += "<path class=\"grid\" d=\"M\(position) \(SVG.number(Self.top))V\(SVG.number(bottom))\"/>"
      text += "<text x=\"\(position)\" y=\"\(SVG.number(bottom + 18))\" text-anchor=\"middle\">"
      text += "\(HTML.escaped(xLabel(tick)))</text>\n"
    }
    for tick in yTicks {
      let position = SVG.number(y(tick))
      text +=
        "<path class=\"grid\" d=\"M\(SVG.number(Self.left)) \(position)H\(SVG.number(Self.width - Self.right))\"/>"
      text += "<text x=\"\(SVG.number(Self.left - 8))\" y=\"\(SVG.number(y(tick) + 4))\" text-anchor=\"end\">"
      text += "\(HTML.escaped(yLabel(tick)))</text>\n"
    }
    if let reference {
      let position = SVG.number(y(reference))
      text += "<path class=\"reference\" d=\"M\(SVG.number(Self.left)) \(position)"
      text += "H\(SVG.number(Self.width - Self.right))\"/>\n"
    }
    let middle = (Self.left + Self.width - Self.right) / 2
    text += "<text x=\"\(SVG.number(middle))\" y=\"\(SVG.number(Self.height - 10))\" text-anchor=\"middle\">"
    text += "\(HTML.escaped(xTitle))</text>\n"
    let centre = SVG.number((Self.top + bottom) / 2)
    text += "<text x=\"14\" y=\"\(centre)\" text-anchor=\"middle\" transform=\"rotate(-90 14 \(centre))\">"
    text += "\(HTML.escaped(yTitle))</text>\n"
    return text
  }

  // MARK: Marks

  private func marks(_ line: Series, _ x: (Double) -> Double, _ y: (Double) -> Double) -> String {
    let points = line.points.filter { $0.x.isFinite && $0.y.isFinite }
    guard !points.isEmpty else { return "" }
    var text = ""
    if !line.isScatter, points.count > 1 {
      let path = points.enumerated().map { index, point in
        "\(index == 0 ? "M" : "L")\(SVG.number(x(point.x))) \(SVG.number(y(point.y)))"
      }.joined()
      text += "<path class=\"line c\(line.color)\(line.isDashed ? " dashed" : "")\" d=\"\(path)\">"
      text += "<title>\(HTML.escaped(line.name))</title></path>\n"
    }
    // Dots carry the numbers; of a dense line only as many as can be told apart.
    let step = max(1, points.count / 60)
    for (index, point) in points.enumerated()
    where line.isScatter || index % step == 0 || index == points.count - 1 {
      text += "<circle class=\"dot c\(line.color)\" cx=\"\(SVG.number(x(point.x)))\" cy=\"\(SVG.number(y(point.y)))\""
      text += " r=\"\(line.isScatter ? 4 : 2)\"><title>\(HTML.escaped(line.name)): \(HTML.escaped(xLabel(point.x)))"
      text += ", \(HTML.escaped(yLabel(point.y)))</title></circle>\n"
    }
    return text
  }

  private func legend() -> String {
    let entries = series.filter { !$0.points.isEmpty }.map { line in
      "<span><svg class=\"key\" viewBox=\"0 0 28 10\" aria-hidden=\"true\"><path class=\"line c\(line.color)"
        + "\(line.isDashed ? " dashed" : "")\" d=\"M1 5H27\"/></svg>\(HTML.escaped(line.name))</span>"
    }
    return "<p class=\"legend\">\(entries.joined(separator: " "))</p>\n"
  }

  private func table() -> String {
    var text = "<details><summary>data</summary><div class=\"scroll\"><table><tr><th>series</th>"
    text += "<th>\(HTML.escaped(xTitle))</th><th>\(HTML.escaped(yTitle))</th></tr>\n"
    for line in series {
      let step = max(1, line.points.count / 40)
      for (index, point) in line.points.enumerated() where index % step == 0 || index == line.points.count - 1 {
        text += "<tr><td>\(HTML.escaped(line.name))</td><td>\(HTML.escaped(xLabel(point.x)))</td>"
        text += "<td>\(HTML.escaped(yLabel(point.y)))</td></tr>\n"
      }
    }
    return text + "</table></div></details>\n"
  }
}

enum SVG {
  /// A coordinate to a tenth of a unit, without a needless fraction.
  static func number(_ value: Double) -> String {
    let rounded = (value * 10).rounded() / 10
    return rounded == rounded.rounded() ? String(Int(rounded)) : String(format: "%.1f", rounded)
  }
}

enum HTML {
  static func escaped(_ text: String) -> String {
    var escaped = ""
    for character in text {
      switch character {
      case "&": escaped += "&amp;"
      case "<": escaped += "&lt;"
      case ">": escaped += "&gt;"
      case "\"": escaped += "&quot;"
      case "'": escaped += "&#39;"
      default: escaped.append(character)
      }
    }
    return escaped
  }

  /// A table with a header row. Numbers are set right.
  static func table(_ heads: [String], _ rows: [[String]]) -> String {
    var text = "<div class=\"scroll\"><table><tr>"
    text += heads.map { "<th>\(escaped($0))</th>" }.joined() + "</tr>\n"
    for row in rows {
      text += "<tr>" + row.map { "<td>\(escaped($0))</td>" }.joined() + "</tr>\n"
    }
    return text + "</table></div>\n"
  }
}
