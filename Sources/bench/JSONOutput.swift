import Foundation

/// Results as JSON, as every command writes them: pretty, with sorted keys, so that two of them can be compared line by
/// line.
enum JSONOutput {
  static func data(_ value: some Encodable) throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.nonConformingFloatEncodingStrategy = .convertToString(
      positiveInfinity: "Infinity", negativeInfinity: "-Infinity", nan: "NaN")
    return try encoder.encode(value) + Data("\n".utf8)
  }

  /// Writes to a file, or to standard output where `target` is "-".
  /// - Throws: `UsageError` where the file cannot be written.
  static func write(_ value: some Encodable, to target: String) throws {
    let data = try data(value)
    guard target != "-" else { return FileHandle.standardOutput.write(data) }
    do {
      try data.write(to: URL(fileURLWithPath: target))
    } catch {
      throw UsageError("the results cannot be written to \(target): \(ResultFiles.reason(error)); choose another file")
    }
  }
}
