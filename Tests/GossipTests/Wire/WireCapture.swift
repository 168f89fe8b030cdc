import Foundation

/// One captured packet or stream: the bytes, and the lines that say what is in them.
///
/// The form: comment lines beginning with `#`, the first a title, the second `udp|tcp source -> destination N bytes`, the
/// others one line for each layer and message, indented by how deep they lie; then the bytes in hexadecimal.
struct WireCapture: Sendable, CustomStringConvertible {
  let name: String
  let title: String
  let isStream: Bool
  let announcedBytes: Int?
  let lines: [String]
  let bytes: [UInt8]

  var description: String { name }

  init?(name: String, text: String) {
    self.name = name
    var comments: [String] = []
    var digits = ""
    for line in text.split(whereSeparator: \.isNewline) {
      if line.hasPrefix("#") {
        comments.append(line.dropFirst().trimmingCharacters(in: .whitespaces))
      } else {
        digits += line.filter { !$0.isWhitespace }
      }
    }
    guard comments.count >= 2, let bytes = [UInt8](hex: digits) else { return nil }
    title = comments[0]
    isStream = comments[1].hasPrefix("tcp")
    let words = comments[1].split(separator: " ")
    announcedBytes = words.count >= 2 && words.last == "bytes" ? Int(words[words.count - 2]) : nil
    lines = Array(comments.dropFirst(2))
    self.bytes = bytes
  }

  var isEncrypted: Bool { lines.contains { $0.hasPrefix("encrypted ") || $0.hasPrefix("encrypt(stream)") } }

  /// The label that the file names, if it names one.
  var label: [UInt8] {
    for line in lines {
      if let match = line.firstMatch(of: #/(?:label|aad)=b'([^']+)'/#) { return Array(String(match.1).utf8) }
    }
    // A stream's frame only says "first5+label"; its title then names the label.
    if let match = title.firstMatch(of: #/label(?:led)? ([A-Za-z0-9_-]*[A-Z0-9][A-Za-z0-9_-]*)/#) {
      return Array(String(match.1).utf8)
    }
    return []
  }
}

extension WireCapture {
  /// The folder of the captures: `CONFORMANCE_DIR` or the copy beside the package, with or without `memberlist`.
  static let directory: URL? = {
    var candidates: [URL] = []
    if let path = ProcessInfo.processInfo.environment["CONFORMANCE_DIR"] {
      candidates.append(URL(fileURLWithPath: path))
    } else {
      let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()
      candidates.append(root.appendingPathComponent("../shared/conformance").standardizedFileURL)
    }
    return candidates.flatMap { [$0.appendingPathComponent("memberlist"), $0] }.first {
      hexFiles(in: $0).isEmpty == false
    }
  }()

  static let isAvailable = directory != nil

  /// All captures, by name.
  static let all: [WireCapture] = {
    guard let directory else { return [] }
    return hexFiles(in: directory).compactMap { file in
      guard let text = try? String(contentsOf: file, encoding: .utf8) else { return nil }
      return WireCapture(name: file.lastPathComponent, text: text)
    }
  }()

  static let fileCount = directory.map { hexFiles(in: $0).count } ?? 0

  private static func hexFiles(in directory: URL) -> [URL] {
    let files = try? FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: nil)
    return (files ?? []).filter { $0.pathExtension == "hex" }.sorted { $0.lastPathComponent < $1.lastPathComponent }
  }
}

extension [UInt8] {
  /// Bytes from pairs of hexadecimal digits; nil for anything else.
  init?(hex text: some StringProtocol) {
    let digits = Array(text.utf8)
    guard digits.count % 2 == 0 else { return nil }
    self = []
    for index in stride(from: 0, to: digits.count, by: 2) {
      guard let byte = UInt8(String(decoding: digits[index...(index + 1)], as: UTF8.self), radix: 16) else {
        return nil
      }
      append(byte)
    }
  }

  var hex: String { map { String(format: "%02x", $0) }.joined() }
}

/// A generator that gives out given bytes, so that an envelope is sealed with the nonce it had.
struct NonceGenerator: RandomNumberGenerator {
  var bytes: [UInt8]

  mutating func next() -> UInt64 {
    var value: UInt64 = 0
    for place in 0..<min(8, bytes.count) { value |= UInt64(bytes[place]) << UInt64(8 * place) }
    bytes.removeFirst(min(8, bytes.count))
    return value
  }
}
