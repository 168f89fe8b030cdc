import Foundation

/// How numbers are written for people.
enum NumberFormat {
  /// `1234567` as `1,234,567`.
  static func grouped(_ value: Double) -> String {
    guard value.isFinite else { return "n/a" }
    let digits = Array(String(format: "%.0f", abs(value)))
    var text = ""
    for (index, digit) in digits.enumerated() {
      if index > 0, (digits.count - index).isMultiple(of: 3) { text.append(",") }
      text.append(digit)
    }
    return (value < 0 && text != "0" ? "-" : "") + text
  }

  /// Three significant digits, no exponent.
  static func short(_ value: Double?) -> String {
    guard let value, value.isFinite else { return "n/a" }
    switch abs(value) {
    case 0: return "0"
    case ..<0.0005: return String(format: "%.1e", value)
    case ..<0.1: return String(format: "%.4f", value)
    case ..<1: return String(format: "%.3f", value)
    case ..<10: return String(format: "%.2f", value)
    case ..<100: return String(format: "%.1f", value)
    default: return grouped(value)
    }
  }

  /// Nanoseconds as microseconds; a dash where there is no number.
  static func microseconds(_ nanoseconds: UInt64?) -> String {
    nanoseconds.map { short(Double($0) / 1000) } ?? "-"
  }

  /// Nanoseconds in the unit that suits them.
  static func duration(_ nanoseconds: Double) -> String {
    switch abs(nanoseconds) {
    case ..<1e3: "\(short(nanoseconds)) ns"
    case ..<1e6: "\(short(nanoseconds / 1e3)) µs"
    case ..<1e9: "\(short(nanoseconds / 1e6)) ms"
    default: "\(short(nanoseconds / 1e9)) s"
    }
  }

  static func percent(_ share: Double) -> String { "\(short(share * 100)) %" }

  static func right(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }

  static func left(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.count))
  }
}
