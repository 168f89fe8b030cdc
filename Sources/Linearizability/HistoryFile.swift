import Foundation

/// A history as JSON lines, one operation a line:
/// `{"client":1,"op":"set|get|del","key":"k","value":"v"|null,"call_ns":…,"return_ns":…,"status":"ok|failed|unknown"}`.
/// `return_ns` of an operation whose outcome is unknown says when its client gave up, and means nothing more.
public enum HistoryFile {
  /// Appends the line of one operation to `bytes`, the key and the value as 16 hexadecimal digits.
  public static func append(_ operation: HistoryOperation, to bytes: inout [UInt8]) {
    bytes += #"{"client":"#.utf8
    bytes += String(operation.client).utf8
    bytes += #","op":""#.utf8
    bytes += name(of: operation.kind).utf8
    bytes += #"","key":""#.utf8
    appendDigits(operation.key, to: &bytes)
    if operation.value == HistoryOperation.noValue {
      bytes += #"","value":null,"call_ns":"#.utf8
    } else {
      bytes += #"","value":""#.utf8
      appendDigits(operation.value, to: &bytes)
      bytes += #"","call_ns":"#.utf8
    }
    bytes += String(operation.callNanoseconds).utf8
    bytes += #","return_ns":"#.utf8
    bytes += String(operation.returnNanoseconds).utf8
    bytes += #","status":""#.utf8
    bytes += name(of: operation.outcome).utf8
    bytes += "\"}\n".utf8
  }

  /// A history whose keys and values were text; the operations carry their numbers.
  public struct Named: Sendable {
    public var operations: [HistoryOperation] = []
    /// The text of each key number.
    public var keys: [String] = []
    /// The text of each value number, from 1: `values[0]` stands for no value.
    public var values: [String] = [""]
  }

  /// Why a file could not be read.
  public struct ReadError: Error, CustomStringConvertible, Sendable {
    public var line: Int
    public var reason: String
    public var description: String { "line \(line) of the history: \(reason)" }
  }

  /// Longest line that is read; a line of this project has about 150 bytes.
  static let longestLineBytes = 1 << 16

  /// Reads JSON lines with any text as keys and values. Empty lines are passed over.
  public static func read(_ data: Data) throws -> Named {
    var named = Named()
    var keyNumbers: [String: UInt64] = [:]
    var valueNumbers: [String: UInt64] = [:]
    let decoder = JSONDecoder()
    for (index, line) in data.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
      guard !line.isEmpty else { continue }
      guard line.count <= longestLineBytes else {
        throw ReadError(line: index + 1, reason: "longer than \(longestLineBytes) bytes")
      }
      let decoded: Line
      do {
        decoded = try decoder.decode(Line.self, from: line)
      } catch {
        throw ReadError(line: index + 1, reason: "not an operation: \(error)")
      }
      guard let kind = decoded.kind, let outcome = decoded.outcome else {
        throw ReadError(line: index + 1, reason: "op must be set, get or del, and status ok, failed or unknown")
      }
      named.operations.append(
        HistoryOperation(
          client: decoded.client, kind: kind,
          key: number(of: decoded.key, &keyNumbers, &named.keys),
          value: decoded.value.map { number(of: $0, &valueNumbers, &named.values) } ?? HistoryOperation.noValue,
          callNanoseconds: decoded.callNanoseconds, returnNanoseconds: decoded.returnNanoseconds,
          outcome: outcome))
    }
    return named
  }

  private static func number(
    of text: String, _ numbers: inout [String: UInt64], _ names: inout [String]
  ) -> UInt64 {
    if let number = numbers[text] { return number }
    let number = UInt64(names.count)
    numbers[text] = number
    names.append(text)
    return number
  }

  private struct Line: Decodable {
    var client: UInt32
    var op: String
    var key: String
    var value: String?
    var callNanoseconds: UInt64
    var returnNanoseconds: UInt64
    var status: String

    enum CodingKeys: String, CodingKey {
      case client, op, key, value, status
      case callNanoseconds = "call_ns"
      case returnNanoseconds = "return_ns"
    }

    var kind: HistoryOperationKind? { HistoryOperationKind.allCases.first { name(of: $0) == op } }
    var outcome: HistoryOutcome? { HistoryOutcome.allCases.first { name(of: $0) == status } }
  }

  private static func name(of kind: HistoryOperationKind) -> String {
    switch kind {
    case .get: "get"
    case .set: "set"
    case .delete: "del"
    }
  }

  private static func name(of outcome: HistoryOutcome) -> String {
    switch outcome {
    case .ok: "ok"
    case .failed: "failed"
    case .unknown: "unknown"
    }
  }

  private static func appendDigits(_ number: UInt64, to bytes: inout [UInt8]) {
    for shift in stride(from: 60, through: 0, by: -4) {
      let digit = UInt8(truncatingIfNeeded: number >> UInt64(shift)) & 0xF
      bytes.append(digit < 10 ? 0x30 + digit : 0x57 + digit)
    }
  }
}
