/// Reads requests from a connection's bytes, however they are cut up (RFC 9112).
///
/// Stricter than the standard allows where two readers could disagree about where a request ends, which is what request
/// smuggling lives on: lines end in CR LF and nothing else, a Content-Length is there once and plain, a Transfer-Encoding
/// is refused, fields are not folded, and a name ends at its colon.
public struct HTTPRequestReader: Sendable {
  private let limits: HTTPLimits
  private var buffer: [UInt8] = []
  /// Where the request that is being read begins.
  private var start = 0
  /// Up to here there is no end of a head.
  private var searched = 0
  private var emptyLines = 0
  private var head: HTTPRequestHead?
  private var bodyStart = 0
  private var owesContinue = false

  public init(limits: HTTPLimits = .init()) { self.limits = limits }

  /// Bytes that arrived and are not part of a request that was handed out.
  public var pendingBytes: Int { buffer.count - start }

  /// Takes in what has arrived.
  public mutating func append(_ bytes: some Sequence<UInt8>) { buffer.append(contentsOf: bytes) }

  /// Whether the client waits for leave to send its body (`Expect: 100-continue`). Asked once after `next`, which has
  /// found no whole request then.
  public mutating func takeContinue() -> Bool {
    defer { owesContinue = false }
    return owesContinue
  }

  /// The next request that has arrived whole, or nil.
  /// - Throws: `HTTPError`; nothing more can be read then.
  public mutating func next() throws(HTTPError) -> HTTPRequest? {
    if head == nil {
      guard let end = try findHead() else { return nil }
      let parsed = try HTTPRequestHead(buffer[start..<end - 2], limits: limits)
      head = parsed
      emptyLines = 0
      bodyStart = end
      owesContinue = parsed.expectsContinue && buffer.count - end < parsed.contentLength
    }
    guard let head, buffer.count - bodyStart >= head.contentLength else { return nil }
    owesContinue = false
    let end = bodyStart + head.contentLength
    var request = head.request
    request.body = Array(buffer[bodyStart..<end])
    self.head = nil
    start = end
    dropRead()
    searched = start
    return request
  }

  /// Where the head ends, behind its empty line; nil if that has not arrived.
  private mutating func findHead() throws(HTTPError) -> Int? {
    try skipEmptyLines()
    guard start < buffer.count, buffer[start] != Byte.cr else { return nil }
    guard Byte.isToken(buffer[start]) else { throw .malformed("it does not begin with a method") }
    var position = max(searched, start + 3)
    while position < buffer.count {
      if buffer[position] == Byte.lf, buffer[position - 1] == Byte.cr, buffer[position - 2] == Byte.lf,
        buffer[position - 3] == Byte.cr
      {
        guard position + 1 - start <= limits.maximumHeadBytes else {
          throw .headTooLarge(limit: limits.maximumHeadBytes)
        }
        return position + 1
      }
      position += 1
    }
    searched = max(position, searched)
    guard buffer.count - start <= limits.maximumHeadBytes else { throw .headTooLarge(limit: limits.maximumHeadBytes) }
    return nil
  }

  /// Empty lines in front, which old clients leave behind a body (RFC 9112 section 2.2).
  private mutating func skipEmptyLines() throws(HTTPError) {
    while buffer.count - start >= 2, buffer[start] == Byte.cr {
      emptyLines += 1
      guard buffer[start + 1] == Byte.lf, emptyLines <= 4 else { throw .malformed("it does not begin with a method") }
      start += 2
      searched = start
    }
  }

  /// Forgets what was handed out, seldom enough that moving the rest costs little.
  private mutating func dropRead() {
    if start == buffer.count {
      buffer.removeAll(keepingCapacity: buffer.capacity <= 64 << 10)
      start = 0
    } else if start > 64 << 10 {
      buffer.removeFirst(start)
      start = 0
    }
  }
}

/// A request's line and fields.
struct HTTPRequestHead: Sendable {
  var request: HTTPRequest
  var contentLength = 0
  var expectsContinue = false

  private var hasLength = false
  private var hosts = 0
  private var isVersion10 = false
  private var saysClose = false
  private var saysKeepAlive = false

  /// - Parameter bytes: lines, each with its CR LF.
  init(_ bytes: ArraySlice<UInt8>, limits: HTTPLimits) throws(HTTPError) {
    request = HTTPRequest(method: .get, target: "/", path: [], query: [])
    var rest = bytes
    try readLine(try Self.takeLine(&rest))
    var fields = 0
    while !rest.isEmpty {
      fields += 1
      guard fields <= limits.maximumFields else { throw .malformed("more than \(limits.maximumFields) fields") }
      try readField(try Self.takeLine(&rest), limits)
    }
    guard hosts == 1 || isVersion10 && hosts == 0 else { throw .malformed("it names \(hosts) hosts in place of one") }
    request.keepsAlive = isVersion10 ? saysKeepAlive && !saysClose : !saysClose
    if isVersion10 { expectsContinue = false }
  }

  private static func takeLine(_ rest: inout ArraySlice<UInt8>) throws(HTTPError) -> ArraySlice<UInt8> {
    guard let end = rest.firstIndex(of: Byte.lf), end > rest.startIndex, rest[end - 1] == Byte.cr else {
      throw .malformed("a line does not end in CR LF")
    }
    let line = rest[rest.startIndex..<end - 1]
    rest = rest[(end + 1)...]
    guard !line.contains(Byte.cr) else { throw .malformed("a CR within a line") }
    return line
  }

  // MARK: Request line

  private mutating func readLine(_ line: ArraySlice<UInt8>) throws(HTTPError) {
    let words = line.split(separator: Byte.space, omittingEmptySubsequences: false)
    guard words.count == 3, !words[0].isEmpty, words[0].allSatisfy(Byte.isToken) else {
      throw .malformed("its first line is not method, target and version")
    }
    switch words[2] {
    case _ where words[2].elementsEqual("HTTP/1.1".utf8): break
    case _ where words[2].elementsEqual("HTTP/1.0".utf8): isVersion10 = true
    case _ where words[2].starts(with: "HTTP/".utf8): throw .version
    default: throw .malformed("its first line does not end in a version")
    }
    guard let method = HTTPMethod.allCases.first(where: { words[0].elementsEqual($0.rawValue.utf8) }) else {
      throw .unknownMethod
    }
    request.method = method
    try readTarget(words[1])
  }

  private mutating func readTarget(_ whole: ArraySlice<UInt8>) throws(HTTPError) {
    var target = whole
    // The absolute form is for proxies, but has to be understood (RFC 9112 section 3.2.2).
    if target.first != Byte.slash, target.starts(with: "http://".utf8) {
      let authority = target.dropFirst(7)
      target = authority.firstIndex(of: Byte.slash).map { authority[$0...] } ?? [Byte.slash]
    }
    guard target.first == Byte.slash, target.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != Byte.hash }) else {
      throw .malformed("its target is not a path")
    }
    request.target = String(decoding: target, as: UTF8.self)
    let parts = target.split(separator: Byte.questionMark, maxSplits: 1, omittingEmptySubsequences: false)
    request.path = try parts[0].dropFirst().split(separator: Byte.slash, omittingEmptySubsequences: false)
      .map { segment throws(HTTPError) in try Self.decode(segment, plusIsSpace: false) }
    if parts.count == 2 { request.query = try Self.parameters(parts[1]) }
  }

  private static func parameters(_ query: ArraySlice<UInt8>) throws(HTTPError) -> [HTTPRequest.Parameter] {
    var found: [HTTPRequest.Parameter] = []
    for pair in query.split(separator: Byte.ampersand) {
      let sides = pair.split(separator: Byte.equals, maxSplits: 1, omittingEmptySubsequences: false)
      found.append(
        .init(
          name: try decode(sides[0], plusIsSpace: true),
          value: sides.count == 2 ? try decode(sides[1], plusIsSpace: true) : []))
    }
    return found
  }

  private static func decode(_ text: ArraySlice<UInt8>, plusIsSpace: Bool) throws(HTTPError) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.count)
    var position = text.startIndex
    while position < text.endIndex {
      let byte = text[position]
      if byte == Byte.percent {
        guard position + 2 < text.endIndex, let high = Byte.hexDigit(text[position + 1]),
          let low = Byte.hexDigit(text[position + 2])
        else { throw .malformed("a percent sign without two hexadecimal digits") }
        bytes.append(high << 4 | low)
        position += 3
      } else {
        bytes.append(plusIsSpace && byte == Byte.plus ? Byte.space : byte)
        position += 1
      }
    }
    return bytes
  }

  // MARK: Fields

  private mutating func readField(_ line: ArraySlice<UInt8>, _ limits: HTTPLimits) throws(HTTPError) {
    guard let colon = line.firstIndex(of: Byte.colon), colon > line.startIndex,
      line[..<colon].allSatisfy(Byte.isToken)
    else { throw .malformed("a field without a name") }
    let value = Byte.trimmed(line[(colon + 1)...])
    guard value.allSatisfy({ $0 >= 0x20 && $0 != 0x7F || $0 == Byte.tab }) else {
      throw .malformed("a control character in a field")
    }
    switch Byte.lowercased(line[..<colon]) {
    case "content-length": try readLength(value, limits)
    case "transfer-encoding": throw .transferCoding
    case "host": hosts += 1
    case "connection": readConnection(value)
    case "expect":
      guard Byte.lowercased(value) == "100-continue" else { throw .expectation }
      expectsContinue = true
    default: break
    }
  }

  private mutating func readLength(_ value: ArraySlice<UInt8>, _ limits: HTTPLimits) throws(HTTPError) {
    guard !hasLength, !value.isEmpty, value.allSatisfy({ (0x30...0x39).contains($0) }) else {
      throw .malformed("its Content-Length is not one number")
    }
    hasLength = true
    // Digits beyond what any number of this size needs: too large whatever they say, and no overflow to think of.
    guard value.count <= 15, let length = Int(String(decoding: value, as: UTF8.self)),
      length <= limits.maximumBodyBytes
    else { throw .bodyTooLarge(limit: limits.maximumBodyBytes) }
    contentLength = length
  }

  private mutating func readConnection(_ value: ArraySlice<UInt8>) {
    for option in value.split(separator: Byte.comma) {
      switch Byte.lowercased(Byte.trimmed(option)) {
      case "close": saysClose = true
      case "keep-alive": saysKeepAlive = true
      default: break
      }
    }
  }
}

/// The characters that mean something in a head.
enum Byte {
  static let tab = UInt8(ascii: "\t")
  static let lf = UInt8(ascii: "\n")
  static let cr = UInt8(ascii: "\r")
  static let space = UInt8(ascii: " ")
  static let hash = UInt8(ascii: "#")
  static let percent = UInt8(ascii: "%")
  static let ampersand = UInt8(ascii: "&")
  static let plus = UInt8(ascii: "+")
  static let comma = UInt8(ascii: ",")
  static let slash = UInt8(ascii: "/")
  static let colon = UInt8(ascii: ":")
  static let equals = UInt8(ascii: "=")
  static let questionMark = UInt8(ascii: "?")

  /// RFC 9110 section 5.6.2.
  static func isToken(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"):
      true
    default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
    }
  }

  static func hexDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
  }

  static func trimmed(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    let isBlank = { (byte: UInt8) in byte == space || byte == tab }
    var bytes = bytes.drop(while: isBlank)
    while let last = bytes.last, isBlank(last) { bytes.removeLast() }
    return bytes
  }

  static func lowercased(_ bytes: ArraySlice<UInt8>) -> String {
    String(decoding: bytes.map { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) ? $0 | 0x20 : $0 }, as: UTF8.self)
  }
}
