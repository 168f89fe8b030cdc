/// The methods that are served. Others are refused with 501 (RFC 9110 section 9.1).
public enum HTTPMethod: String, Sendable, Hashable, CaseIterable {
  case get = "GET"
  case head = "HEAD"
  case put = "PUT"
  case post = "POST"
  case delete = "DELETE"
}

/// A request as it arrived, whole.
public struct HTTPRequest: Sendable, Hashable {
  /// One `name=value` of the query. Bytes, since keys and values are.
  public struct Parameter: Sendable, Hashable {
    public var name: [UInt8]
    public var value: [UInt8]

    public init(name: [UInt8], value: [UInt8]) {
      self.name = name
      self.value = value
    }
  }

  public var method: HTTPMethod
  /// Path and query as they came: printable ASCII that begins with `/`. For a redirect to the same place elsewhere.
  public var target: String
  /// The path's segments, each percent-decoded by itself: an encoded slash is part of a key and separates nothing.
  public var path: [[UInt8]]
  /// The query in order; `+` stands for a space there, as forms write it.
  public var query: [Parameter]
  public var body: [UInt8]
  /// Whether the client wants to send more on this connection.
  public var keepsAlive: Bool

  public init(
    method: HTTPMethod, target: String, path: [[UInt8]], query: [Parameter], body: [UInt8] = [],
    keepsAlive: Bool = true
  ) {
    self.method = method
    self.target = target
    self.path = path
    self.query = query
    self.body = body
    self.keepsAlive = keepsAlive
  }

  /// The first parameter of that name.
  public func parameter(_ name: String) -> [UInt8]? {
    query.first { $0.name.elementsEqual(name.utf8) }?.value
  }
}

/// What is accepted of one request.
public struct HTTPLimits: Sendable, Hashable {
  /// Request line and fields together, in bytes.
  public var maximumHeadBytes: Int
  public var maximumFields: Int
  public var maximumBodyBytes: Int

  public init(maximumHeadBytes: Int = 16 << 10, maximumFields: Int = 100, maximumBodyBytes: Int = 1 << 20) {
    self.maximumHeadBytes = maximumHeadBytes
    self.maximumFields = maximumFields
    self.maximumBodyBytes = maximumBodyBytes
  }
}

/// Why a request is refused. The connection ends with it: where the next request begins is not known for certain.
public enum HTTPError: Error, Sendable, Hashable {
  /// Not a request, or one that two readers could read differently.
  case malformed(String)
  case headTooLarge(limit: Int)
  case bodyTooLarge(limit: Int)
  case unknownMethod
  /// Any Transfer-Encoding: a length is asked for instead.
  case transferCoding
  case version
  case expectation

  /// The status that says so (RFC 9110 section 15, RFC 6585 for 431).
  public var status: HTTPStatus {
    switch self {
    case .malformed: .badRequest
    case .headTooLarge: .headTooLarge
    case .bodyTooLarge: .contentTooLarge
    case .unknownMethod, .transferCoding: .notImplemented
    case .version: .versionNotSupported
    case .expectation: .expectationFailed
    }
  }

  public var description: String {
    switch self {
    case .malformed(let reason): "not a request: \(reason)"
    case .headTooLarge(let limit): "the request's line and fields exceed \(limit) bytes"
    case .bodyTooLarge(let limit): "the request's body exceeds \(limit) bytes"
    case .unknownMethod: "the method is none of \(HTTPMethod.allCases.map(\.rawValue).joined(separator: ", "))"
    case .transferCoding: "transfer codings are not served: send a Content-Length"
    case .version: "only HTTP/1.1 and HTTP/1.0 are served"
    case .expectation: "the only expectation that is met is 100-continue"
    }
  }
}

extension HTTPError: CustomStringConvertible {}
