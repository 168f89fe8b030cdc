import Testing

@testable import HTTPWire

@Suite struct HTTPRequestReaderTests {
  /// What a reader made of some bytes.
  private enum Outcome: Equatable {
    case requests([HTTPRequest])
    case refused(HTTPStatus, after: Int)
  }

  /// Reads `bytes` in pieces of the given size.
  private func read(_ bytes: [UInt8], pieceBytes: Int = .max, limits: HTTPLimits = .init()) -> Outcome {
    var reader = HTTPRequestReader(limits: limits)
    var requests: [HTTPRequest] = []
    var rest = bytes[...]
    do throws(HTTPError) {
      while !rest.isEmpty {
        reader.append(rest.prefix(pieceBytes))
        rest = rest.dropFirst(pieceBytes)
        while let request = try reader.next() { requests.append(request) }
      }
    } catch {
      return .refused(error.status, after: requests.count)
    }
    return .requests(requests)
  }

  private func read(_ text: String, pieceBytes: Int = .max, limits: HTTPLimits = .init()) -> Outcome {
    read(Array(text.utf8), pieceBytes: pieceBytes, limits: limits)
  }

  private func parameter(_ name: String, _ value: String) -> HTTPRequest.Parameter {
    .init(name: Array(name.utf8), value: Array(value.utf8))
  }

  @Test func aRequestIsReadWithItsPartsDecoded() {
    let outcome = read("GET /v1/keys/a%2Fb%20c+?x=1%262&y=p+q%2B&flag&=&x=3 HTTP/1.1\r\nHost: h\r\n\r\n")
    let wanted = HTTPRequest(
      method: .get, target: "/v1/keys/a%2Fb%20c+?x=1%262&y=p+q%2B&flag&=&x=3",
      path: ["v1", "keys", "a/b c+"].map { Array($0.utf8) },
      query: [
        parameter("x", "1&2"), parameter("y", "p q+"), parameter("flag", ""), parameter("", ""), parameter("x", "3"),
      ])
    #expect(outcome == .requests([wanted]))
    #expect(wanted.parameter("x") == Array("1&2".utf8))
    #expect(wanted.parameter("z") == nil)
  }

  @Test func bytesThatAreNoTextPassThrough() {
    let target = "/v1/keys/%00%ff%0d%0a"
    let outcome = read("DELETE \(target) HTTP/1.1\r\nHost: h\r\n\r\n")
    let key: [UInt8] = [0, 0xFF, 13, 10]
    let wanted = HTTPRequest(
      method: .delete, target: target, path: [Array("v1".utf8), Array("keys".utf8), key], query: [])
    #expect(outcome == .requests([wanted]))
  }

  @Test func whereTheBytesAreCutDoesNotMatter() {
    let stream =
      "\r\nPUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n\r\n\r\nxGET / HTTP/1.0\r\n\r\n"
      + "POST /b?k=v HTTP/1.1\r\nhOsT:h\r\ncontent-length:\t0 \r\nConnection: foo, Close\r\n\r\n"
    let whole = read(stream)
    guard case .requests(let requests) = whole else {
      Issue.record("refused: \(whole)")
      return
    }
    #expect(requests.map(\.method) == [.put, .get, .post])
    #expect(requests[0].body == Array("\r\n\r\nx".utf8))
    #expect(requests.map(\.keepsAlive) == [true, false, false])
    for pieceBytes in 1...stream.utf8.count { #expect(read(stream, pieceBytes: pieceBytes) == whole) }
  }

  @Test(arguments: [
    ("HTTP/1.1", "", true), ("HTTP/1.1", "Connection: close\r\n", false), ("HTTP/1.0", "", false),
    ("HTTP/1.0", "Connection: Keep-Alive\r\n", true), ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
    ("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
  ])
  func aConnectionIsKeptAsTheClientSays(version: String, field: String, keepsAlive: Bool) {
    guard case .requests(let requests) = read("GET / \(version)\r\nHost: h\r\n\(field)\r\n") else {
      Issue.record("refused")
      return
    }
    #expect(requests.map(\.keepsAlive) == [keepsAlive])
  }

  @Test func theAbsoluteFormNamesThePathBehindItsHost() {
    guard case .requests(let requests) = read("GET http://h:1/a?b HTTP/1.1\r\nHost: h\r\n\r\n") else {
      Issue.record("refused")
      return
    }
    #expect(requests.map(\.target) == ["/a?b"])
    #expect(
      read("GET http://h HTTP/1.1\r\nHost: h\r\n\r\n")
        == .requests([HTTPRequest(method: .get, target: "/", path: [[]], query: [])]))
  }

  /// What two readers could understand differently is understood by neither.
  @Test(arguments: [
    ("GET / HTTP/1.1\nHost: h\n\n", 0), ("GET / HTTP/1.1\r\nHost: h\n\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400), ("GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", 400), ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400), ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400), (" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("\u{16}\u{3}\u{1}", 400), ("GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400), ("GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET /#a HTTP/1.1\r\nHost: h\r\n\r\n", 400), ("GET /%4 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", 400), ("GET /?a=%g0 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET /ä HTTP/1.1\r\nHost: h\r\n\r\n", 400), ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    ("GET / FTP/1.1\r\nHost: h\r\n\r\n", 400), ("BREW / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    ("get / HTTP/1.1\r\nHost: h\r\n\r\n", 501), ("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\n", 400),
    ("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\n", 400),
    ("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
    ("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", 400),
    ("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\n", 400),
    ("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
    ("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1048577\r\n\r\n", 413),
    ("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    ("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    ("PUT / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n", 417), ("\r\n\r\n\r\n\r\n\r\n\r\n", 400), ("\rGET", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n", 400), ("GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nX: \u{7f}\r\n\r\n", 400),
  ])
  func whatIsNoRequestIsRefused(text: String, code: Int) {
    for pieceBytes in [1, 7, .max] {
      let outcome = read(text, pieceBytes: pieceBytes)
      // 0: what has no empty line of CR LF CR LF has not ended, and is refused once it grows too large.
      guard code != 0 else {
        #expect(outcome == .requests([]))
        continue
      }
      guard case .refused(let status, let count) = outcome else {
        Issue.record("accepted: \(outcome)")
        continue
      }
      #expect(status.code == code && count == 0)
    }
  }

  @Test func limitsHoldBeforeAnythingIsKept() {
    let limits = HTTPLimits(maximumHeadBytes: 200, maximumFields: 3, maximumBodyBytes: 10)
    let long = "GET /" + String(repeating: "a", count: 200)
    #expect(read(long, limits: limits) == .refused(.headTooLarge, after: 0))
    #expect(read(long + " HTTP/1.1\r\nHost: h\r\n\r\n", limits: limits) == .refused(.headTooLarge, after: 0))
    let fields = "GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"
    #expect(read(fields, limits: limits) == .refused(.badRequest, after: 0))
    let body = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n"
    #expect(read(body, limits: limits) == .refused(.contentTooLarge, after: 0))
    guard case .requests(let fitting) = read(body.replacing("11", with: "10") + "0123456789", limits: limits) else {
      Issue.record("refused")
      return
    }
    #expect(fitting.map(\.body) == [Array("0123456789".utf8)])
  }

  @Test func aClientThatWaitsWithItsBodyIsToldOnce() throws {
    var reader = HTTPRequestReader()
    reader.append("PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n".utf8)
    let early = try reader.next()
    #expect(early == nil && reader.takeContinue() && !reader.takeContinue())
    reader.append("xy".utf8)
    let whole = try reader.next()
    #expect(whole?.body == Array("xy".utf8) && !reader.takeContinue())
    // Whoever sends the body along needs no leave.
    reader.append("PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nz".utf8)
    let second = try reader.next()
    #expect(second?.body == Array("z".utf8) && !reader.takeContinue())
  }

  @Test func aLongLivedConnectionKeepsNoMore() throws {
    var reader = HTTPRequestReader()
    let body = String(repeating: "b", count: 1000)
    for _ in 0..<2000 {
      reader.append("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n\(body)PU".utf8)
      let request = try reader.next()
      #expect(request?.body.count == 1000 && reader.pendingBytes == 2)
      let none = try reader.next()
      #expect(none == nil)
      reader.append("T / HTTP/1.1\r\nHost: h\r\n\r\n".utf8)
      let second = try reader.next()
      #expect(second?.body.isEmpty == true && reader.pendingBytes == 0)
    }
  }

  /// Bytes of all kinds, most of them nearly requests: read or refused, the same however they are cut.
  @Test func randomBytesAreReadTheSameHoweverTheyAreCut() {
    let pieces = [
      "GET ", "PUT ", "/", "/a%20", "?k=v&", " HTTP/1.1", "\r\n", "\r\n\r\n", "\n", "Host: h\r\n",
      "Content-Length: 3\r\n",
      "abc", ":", " ", "%", "Transfer-Encoding: x\r\n", "Connection: close\r\n", "\u{0}", "ü",
    ].map { Array($0.utf8) }
    var random = SystemRandomNumberGenerator()
    var state = UInt64.random(in: 1 ... .max, using: &random)
    let seed = state
    func next(_ bound: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33) % bound
    }
    for _ in 0..<3000 {
      var bytes: [UInt8] = next(2) == 0 ? Array("GET / HTTP/1.1\r\nHost: h\r\n".utf8) : []
      for _ in 0..<next(14) { bytes += pieces[next(pieces.count)] }
      let whole = read(bytes)
      #expect(read(bytes, pieceBytes: 1 + next(6)) == whole, "seed \(seed)")
    }
  }
}
