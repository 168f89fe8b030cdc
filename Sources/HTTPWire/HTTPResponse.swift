/// A status code and its reason (RFC 9110 section 15).
public struct HTTPStatus: Sendable, Hashable {
  public var code: Int
  public var reason: String

  public static let ok = HTTPStatus(code: 200, reason: "OK")
  public static let created = HTTPStatus(code: 201, reason: "Created")
  public static let noContent = HTTPStatus(code: 204, reason: "No Content")
  public static let temporaryRedirect = HTTPStatus(code: 307, reason: "Temporary Redirect")
  public static let badRequest = HTTPStatus(code: 400, reason: "Bad Request")
  public static let notFound = HTTPStatus(code: 404, reason: "Not Found")
  public static let methodNotAllowed = HTTPStatus(code: 405, reason: "Method Not Allowed")
  public static let requestTimeout = HTTPStatus(code: 408, reason: "Request Timeout")
  public static let conflict = HTTPStatus(code: 409, reason: "Conflict")
  public static let preconditionFailed = HTTPStatus(code: 412, reason: "Precondition Failed")
  public static let contentTooLarge = HTTPStatus(code: 413, reason: "Content Too Large")
  public static let expectationFailed = HTTPStatus(code: 417, reason: "Expectation Failed")
  public static let headTooLarge = HTTPStatus(code: 431, reason: "Request Header Fields Too Large")
  public static let notImplemented = HTTPStatus(code: 501, reason: "Not Implemented")
  public static let serviceUnavailable = HTTPStatus(code: 503, reason: "Service Unavailable")
  public static let gatewayTimeout = HTTPStatus(code: 504, reason: "Gateway Timeout")
  public static let versionNotSupported = HTTPStatus(code: 505, reason: "HTTP Version Not Supported")
  public static let insufficientStorage = HTTPStatus(code: 507, reason: "Insufficient Storage")
}

/// What is answered to a request.
public struct HTTPResponse: Sendable, Hashable {
  public var status: HTTPStatus
  public var contentType: String
  public var body: [UInt8]
  /// Where to ask instead.
  public var location: String?
  /// When to try again, in seconds.
  public var retryAfterSeconds: Int?
  /// What the resource knows, with 405.
  public var allowedMethods: [HTTPMethod] = []

  public init(_ status: HTTPStatus, contentType: String = "text/plain; charset=utf-8", body: [UInt8] = []) {
    self.status = status
    self.contentType = contentType
    self.body = body
  }

  /// A line of text.
  public init(_ status: HTTPStatus, text: String) { self.init(status, body: Array((text + "\n").utf8)) }

  /// Writes the response behind what stands in `output`.
  /// - Parameters:
  ///   - date: as `HTTPDate.text` gives it.
  ///   - isToHead: to a HEAD request: everything but the body (RFC 9110 section 9.3.2).
  ///   - closes: this is the connection's last one.
  public func append(to output: inout [UInt8], date: String, isToHead: Bool, closes: Bool) {
    var head = "HTTP/1.1 \(status.code) \(status.reason)\r\nDate: \(date)\r\n"
    // A 204 has no content and must not state its length (RFC 9110 section 8.6).
    if status.code != HTTPStatus.noContent.code {
      head += "Content-Type: \(contentType)\r\nContent-Length: \(body.count)\r\n"
    }
    if let location { head += "Location: \(location)\r\n" }
    if let retryAfterSeconds { head += "Retry-After: \(retryAfterSeconds)\r\n" }
    if !allowedMethods.isEmpty { head += "Allow: \(allowedMethods.map(\.rawValue).joined(separator: ", "))\r\n" }
    if closes { head += "Connection: close\r\n" }
    head += "\r\n"
    output.append(contentsOf: head.utf8)
    if !isToHead, status.code != HTTPStatus.noContent.code { output.append(contentsOf: body) }
  }

  /// What a client that waits with its body is told.
  public static let continueBytes = Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)
}

/// The one form of dates that is sent (RFC 9110 section 5.6.7).
public enum HTTPDate {
  /// `Sun, 06 Nov 1994 08:49:37 GMT`, of seconds since 1970.
  public static func text(epochSeconds: Int64) -> String {
    let days = epochSeconds.flooredDivision(by: 86_400)
    let second = epochSeconds - days * 86_400
    let (year, month, day) = civil(daysSince1970: days)
    // 1 January 1970 was a Thursday.
    let weekday = (days + 4) - (days + 4).flooredDivision(by: 7) * 7
    let clock = [second / 3600, second / 60 % 60, second % 60].map(twoDigits).joined(separator: ":")
    return "\(weekdays[Int(weekday)]), \(twoDigits(day)) \(months[Int(month) - 1]) \(fourDigits(year)) \(clock) GMT"
  }

  private static let weekdays = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
  private static let months = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
  ]

  private static func twoDigits(_ number: Int64) -> String { (number < 10 ? "0" : "") + String(number) }

  private static func fourDigits(_ number: Int64) -> String {
    String(repeating: "0", count: max(0, 4 - String(number).count)) + String(number)
  }

  /// The Gregorian date of a day, by counting years from March so that leap days come last.
  private static func civil(daysSince1970 days: Int64) -> (year: Int64, month: Int64, day: Int64) {
    let shifted = days + 719_468
    let era = shifted.flooredDivision(by: 146_097)
    let dayOfEra = shifted - era * 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
    let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day)
  }
}

extension Int64 {
  /// Rounds down where `/` rounds towards zero.
  fileprivate func flooredDivision(by divisor: Int64) -> Int64 {
    let quotient = self / divisor
    return self % divisor < 0 ? quotient - 1 : quotient
  }
}
