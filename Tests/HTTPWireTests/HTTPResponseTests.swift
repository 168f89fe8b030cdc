import Testing

@testable import HTTPWire

@Suite struct HTTPResponseTests {
  private func text(_ response: HTTPResponse, isToHead: Bool = false, closes: Bool = false) -> String {
    var output = Array("before".utf8)
    response.append(to: &output, date: "D", isToHead: isToHead, closes: closes)
    return String(decoding: output, as: UTF8.self)
  }

  @Test func aResponseIsWrittenWithItsLength() {
    #expect(
      text(HTTPResponse(.ok, text: "ok"))
        == "beforeHTTP/1.1 200 OK\r\nDate: D\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\r\nok\n"
    )
  }

  @Test func aHeadIsToldTheLengthAndGetsNoBody() {
    let written = text(HTTPResponse(.ok, text: "ok"), isToHead: true)
    #expect(written.hasSuffix("Content-Length: 3\r\n\r\n"))
  }

  @Test func noContentHasNeitherLengthNorBody() {
    #expect(
      text(HTTPResponse(.noContent), closes: true)
        == "beforeHTTP/1.1 204 No Content\r\nDate: D\r\nConnection: close\r\n\r\n")
  }

  @Test func whatElseIsToBeSaidIsInFields() {
    var response = HTTPResponse(.temporaryRedirect)
    response.location = "http://h/x"
    response.retryAfterSeconds = 2
    response.allowedMethods = [.get, .put]
    let written = text(response)
    for field in ["Location: http://h/x\r\n", "Retry-After: 2\r\n", "Allow: GET, PUT\r\n", "Content-Length: 0\r\n"] {
      #expect(written.contains(field))
    }
  }

  @Test(
    arguments: [
      (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"), (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
      (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"), (1_709_164_799, "Wed, 28 Feb 2024 23:59:59 GMT"),
      (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"), (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
    ] as [(Int64, String)])
  func datesAreWrittenInTheOneForm(seconds: Int64, wanted: String) {
    #expect(HTTPDate.text(epochSeconds: seconds) == wanted)
  }
}
