import Dispatch
import Foundation
import HTTPWire
import Synchronization
import Testing
import WeirCore
import WeirTransport

@testable import WeirCache

/// The server alone, with handlers that are as slow as a test wants them.
@Suite struct HTTPServerTests {
  /// Answers with the target; what lies under `/later/` once it is told to, in the reverse order.
  private final class EchoHandler: HTTPHandler {
    private let waiting = Mutex<[@Sendable () -> Void]>([])

    func answer(_ request: HTTPRequest, completion: @escaping @Sendable (HTTPResponse) -> Void) {
      let answer: @Sendable () -> Void = {
        completion(HTTPResponse(.ok, body: Array(request.target.utf8) + request.body))
      }
      if request.path.first?.elementsEqual("later".utf8) == true {
        waiting.withLock { $0.append(answer) }
      } else {
        answer()
      }
    }

    var waitingCount: Int { waiting.withLock { $0.count } }

    func release() {
      let taken = waiting.withLock { waiting in
        defer { waiting = [] }
        return waiting
      }
      for answer in taken.reversed() { answer() }
    }
  }

  private func withServer(
    mechanism: ReadinessMechanism = .pollLoop, adjust: (inout HTTPServerConfiguration) -> Void = { _ in },
    _ body: (EchoHandler, HTTPServer) throws -> Void
  ) throws {
    var configuration = HTTPServerConfiguration(
      listenAddress: try SocketAddress(host: "127.0.0.1", port: 0),
      eventLoop: EventLoopConfiguration(mechanism: mechanism))
    adjust(&configuration)
    let handler = EchoHandler()
    let server = try HTTPServer(handler: handler, configuration: configuration, log: quietLog())
    defer { server.stop() }
    try body(handler, server)
  }

  @Test(arguments: ReadinessMechanism.allCases)
  func pipelinedRequestsAreAnsweredInOrder(mechanism: ReadinessMechanism) throws {
    try withServer(mechanism: mechanism) { handler, server in
      let client = try RawHTTPClient(server.address)
      for number in 0..<50 {
        let path = number % 3 == 0 ? "/later/\(number)" : "/\(number)"
        try client.send("GET \(path) HTTP/1.1\r\nHost: h\r\n\r\n")
      }
      #expect(eventually { handler.waitingCount == 17 })
      handler.release()
      for number in 0..<50 {
        let answer = try client.receive()
        #expect(answer.code == 200 && answer.text == (number % 3 == 0 ? "/later/\(number)" : "/\(number)"))
      }
    }
  }

  @Test func manyClientsAreServedAtOnce() throws {
    try withServer { _, server in
      let failures = Atomic<Int>(0)
      DispatchQueue.concurrentPerform(iterations: 16) { worker in
        do {
          let client = try RawHTTPClient(server.address)
          for number in 0..<200 {
            let body = String(repeating: "\(worker).\(number) ", count: number)
            try client.send("PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
            let answer = try client.receive()
            if answer.text != "/x" + body { failures.add(1, ordering: .relaxed) }
          }
        } catch {
          failures.add(1, ordering: .relaxed)
        }
      }
      #expect(failures.load(ordering: .relaxed) == 0)
      #expect(eventually { server.answersByClass[2] == 3200 })
    }
  }

  @Test func theLastAnswerEndsTheConnection() throws {
    try withServer { _, server in
      let client = try RawHTTPClient(server.address)
      try client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
      try client.send("GET /never HTTP/1.1\r\nHost: h\r\n\r\n")
      #expect(try client.receive().text == "/a")
      let last = try client.receive()
      #expect(last.text == "/b" && last.fields["connection"] == "close")
      #expect(try client.isAtEnd())
    }
  }

  @Test func aClientThatHasSaidAllStillGetsItsAnswers() throws {
    try withServer { handler, server in
      let client = try RawHTTPClient(server.address)
      try client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /later/b HTTP/1.1\r\nHost: h\r\n\r\n")
      #expect(try client.receive().text == "/a")
      #expect(eventually { handler.waitingCount == 1 })
      client.finishSending()
      // The end of its stream has been seen once another client that came later was served.
      let other = try RawHTTPClient(server.address)
      try other.send("GET /c HTTP/1.1\r\nHost: h\r\n\r\n")
      #expect(try other.receive().text == "/c")
      handler.release()
      #expect(try client.receive().text == "/later/b")
      #expect(try client.isAtEnd())
    }
  }

  @Test func whatIsNoRequestIsAnsweredAfterWhatWasOneAndEndsTheConnection() throws {
    try withServer { handler, server in
      let client = try RawHTTPClient(server.address)
      try client.send("GET /later/a HTTP/1.1\r\nHost: h\r\n\r\nBREW /pot HTTP/1.1\r\nHost: h\r\n\r\n")
      #expect(eventually { handler.waitingCount == 1 })
      handler.release()
      #expect(try client.receive().text == "/later/a")
      let refusal = try client.receive()
      #expect(refusal.code == 501 && refusal.fields["connection"] == "close")
      #expect(try client.isAtEnd())
    }
  }

  @Test func aHeadRequestIsToldTheLengthOnly() throws {
    try withServer { _, server in
      let client = try RawHTTPClient(server.address)
      try client.send("HEAD /abc HTTP/1.1\r\nHost: h\r\n\r\nGET /d HTTP/1.1\r\nHost: h\r\n\r\n")
      let head = try client.receive(hasBody: false)
      #expect(head.code == 200 && head.fields["content-length"] == "4" && head.fields["date"]?.hasSuffix("GMT") == true)
      #expect(try client.receive().text == "/d")
    }
  }

  @Test func aBodyThatIsWaitedWithIsAskedFor() throws {
    try withServer { _, server in
      let client = try RawHTTPClient(server.address)
      try client.send("PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
      #expect(try client.receive(hasBody: false).code == 100)
      try client.send("xyz")
      #expect(try client.receive().text == "/axyz")
    }
  }

  @Test func limitsEndWhoIgnoresThem() throws {
    try withServer(adjust: {
      $0.maximumConnections = 2
      $0.maximumPipelinedRequests = 4
    }) { handler, server in
      let first = try RawHTTPClient(server.address)
      try first.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
      #expect(try first.receive().text == "/a")
      let greedy = try RawHTTPClient(server.address)
      for number in 0..<5 { try? greedy.send("GET /later/\(number) HTTP/1.1\r\nHost: h\r\n\r\n") }
      #expect(try greedy.isAtEnd())
      handler.release()
      // Its place is free again, and no third one is.
      let second = try RawHTTPClient(server.address)
      try second.send("GET /b HTTP/1.1\r\nHost: h\r\n\r\n")
      #expect(try second.receive().text == "/b")
      let third = try RawHTTPClient(server.address)
      #expect(try third.isAtEnd())
    }
  }

  @Test func aClientThatDoesNotReadIsDisconnected() throws {
    try withServer(adjust: { $0.maximumPendingBytes = 1 << 20 }) { _, server in
      let client = try RawHTTPClient(server.address)
      let body = String(repeating: "x", count: 1 << 20)
      let request = "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
      var isCutOff = false
      for _ in 0..<64 where !isCutOff {
        do { try client.send(request) } catch { isCutOff = true }
      }
      #expect(isCutOff)
    }
  }

  @Test func whoeverIsTooSlowIsToldSo() throws {
    try withServer(adjust: {
      $0.requestTimeoutNanoseconds = 50_000_000
      $0.idleTimeoutNanoseconds = 50_000_000
    }) { _, server in
      let slow = try RawHTTPClient(server.address)
      try slow.send("GET /a HTT")
      #expect(try slow.receive().code == 408)
      #expect(try slow.isAtEnd())
      let idle = try RawHTTPClient(server.address)
      #expect(try idle.isAtEnd())
    }
  }

  @Test func stoppingEndsConnectionsAndLateAnswersGoNowhere() throws {
    var late: EchoHandler?
    try withServer { handler, server in
      let client = try RawHTTPClient(server.address)
      try client.send("GET /later/a HTTP/1.1\r\nHost: h\r\n\r\n")
      #expect(eventually { handler.waitingCount == 1 })
      server.stop()
      #expect(try client.isAtEnd())
      late = handler
    }
    late?.release()
  }
}
