import Foundation
import HTTPWire
import Synchronization
import Testing
import WeirCore
import WeirTransport

@testable import WeirCache

/// A cluster with a door for HTTP clients at every node.
@Suite struct NodeAPITests {
  private final class Doors: Sendable {
    let addresses = Mutex<[NodeID: String]>([:])
    @Sendable func address(_ id: NodeID) -> String? { addresses.withLock { $0[id] } }
  }

  private struct Fixture {
    var cluster: EmbeddedCluster
    var leader: Node
    var servers: [NodeID: HTTPServer]
    var doors: Doors
    var followerID: NodeID

    func request(
      _ method: String, _ target: String, at id: NodeID? = nil, body: [UInt8] = []
    ) throws -> RawHTTPClient.Answer {
      let server = try #require(servers[id ?? leader.id])
      let client = try RawHTTPClient(server.address)
      try client.send("\(method) \(target) HTTP/1.1\r\nHost: h\r\nContent-Length: \(body.count)\r\n\r\n")
      try client.send(String(decoding: body, as: UTF8.self))
      return try client.receive(hasBody: method != "HEAD")
    }
  }

  private func withDoors(_ nodeCount: Int = 3, _ body: (Fixture) throws -> Void) throws {
    try withCluster(nodeCount, seed: 77) { cluster, leader in
      let doors = Doors()
      var servers: [NodeID: HTTPServer] = [:]
      defer { for server in servers.values { server.stop() } }
      for node in cluster.nodes {
        let server = try HTTPServer(
          handler: NodeAPI(node: node, httpAddress: doors.address),
          configuration: HTTPServerConfiguration(listenAddress: try SocketAddress(host: "127.0.0.1", port: 0)),
          log: quietLog())
        servers[node.id] = server
        doors.addresses.withLock { $0[node.id] = server.address.description }
      }
      let follower = try #require((cluster.nodes.first { $0.id != leader.id } ?? leader) as Node?)
      try body(
        Fixture(cluster: cluster, leader: leader, servers: servers, doors: doors, followerID: follower.id))
    }
  }

  @Test func thePathsOfTheDemoAnswerAsTheyAreKnownTo() throws {
    try withDoors { doors in
      #expect(try doors.request("GET", "/get?key=a").code == 404)
      let set = try doors.request("GET", "/set?key=a&value=one+two")
      #expect(set.code == 200 && set.text == "ok\n")
      #expect(try doors.request("POST", "/set?key=empty&value=").code == 200)
      let got = try doors.request("GET", "/get?key=a")
      #expect(got.code == 200 && got.text == "one two\n")
      #expect(try doors.request("GET", "/get?key=empty").text == "\n")
      for consistency in ["safe", "lease", "stale"] {
        #expect(try doors.request("GET", "/get?key=a&consistency=\(consistency)").text == "one two\n")
      }
      #expect(try doors.request("GET", "/del?key=a").text == "ok\n")
      #expect(try doors.request("GET", "/del?key=a").text == "ok\n")
      #expect(try doors.request("GET", "/get?key=a").code == 404)
      #expect(try doors.request("GET", "/leader").text == "\(try #require(doors.leader.address))\n")
    }
  }

  @Test func aValueIsAResourceOfItsOwn() throws {
    try withDoors { doors in
      let target = "/v1/keys/a%2F%00%FF"
      let value = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 % 127) }
      #expect(try doors.request("GET", target).code == 404)
      #expect(try doors.request("PUT", target, body: value).code == 201)
      #expect(try doors.request("PUT", target, body: value).code == 204)
      let got = try doors.request("GET", target)
      #expect(got.code == 200 && got.body == value && got.fields["content-type"] == "application/octet-stream")
      #expect(doors.leader.store.get([UInt8(ascii: "a"), UInt8(ascii: "/"), 0, 0xFF]) == value)
      let head = try doors.request("HEAD", target)
      #expect(head.code == 200 && head.fields["content-length"] == "200000" && head.body.isEmpty)
      #expect(try doors.request("DELETE", target).code == 204)
      #expect(try doors.request("DELETE", target).code == 404)
      #expect(try doors.request("PUT", "/v1/keys/none", body: []).code == 201)
      let empty = try doors.request("GET", "/v1/keys/none")
      #expect(empty.code == 200 && empty.body.isEmpty)
    }
  }

  @Test func aFollowerSendsClientsToTheLeader() throws {
    try withDoors { doors in
      for target in ["/set?key=k&value=v%26", "/get?key=k", "/join?id=9&peerAddress=127.0.0.1:1"] {
        let answer = try doors.request("GET", target, at: doors.followerID)
        let place = try #require(doors.doors.address(doors.leader.id))
        #expect(answer.code == 307 && answer.fields["location"] == "http://\(place)\(target)")
      }
      #expect(try doors.request("GET", "/set?key=k&value=v").code == 200)
      let follower = try #require(doors.cluster.nodes.first { $0.id == doors.followerID })
      #expect(eventually { follower.store.get(Array("k".utf8)) != nil })
      #expect(try doors.request("GET", "/get?key=k&consistency=stale", at: doors.followerID).text == "v\n")
      // Without knowing where the leader serves, it can only say who that is.
      doors.doors.addresses.withLock { $0 = [:] }
      let lost = try doors.request("PUT", "/v1/keys/k", at: doors.followerID)
      #expect(lost.code == 503 && lost.fields["retry-after"] == "1")
    }
  }

  private static let refusals: [(method: String, target: String, code: Int)] = [
    ("GET", "/set?key=&value=1", 400), ("GET", "/set?key=a", 400), ("GET", "/get", 400), ("GET", "/del?key=", 400),
    ("GET", "/get?key=a&consistency=some", 400), ("DELETE", "/set?key=a&value=1", 405), ("POST", "/v1/keys/a", 405),
    ("PUT", "/v1/keys/", 400), ("GET", "/", 404), ("GET", "/v1", 404), ("GET", "/v1/keys", 404),
    ("GET", "/v1/keys/a/b", 404), ("GET", "/join?id=0&peerAddress=127.0.0.1:1", 400),
    ("GET", "/join?id=2&peerAddress=nowhere", 400), ("GET", "/join?id=2&peerAddress=localhost:1", 400),
    ("GET", "/join?id=2&peerAddress=0.0.0.0:1", 400), ("GET", "/leave?id=x", 400), ("PUT", "/v1/members/x", 400),
    ("PUT", "/v1/members/4?address=127.0.0.1:1&role=king", 400), ("DELETE", "/v1/members/1?index=x", 400),
    ("PUT", "/v1/members/4?address=127.0.0.1:1&index=99", 412), ("PUT", "/v1/leader?id=", 400),
    ("POST", "/v1/snapshot", 409), ("GET", "/set?key=\(String(repeating: "k", count: 5000))&value=1", 400),
    ("GET", "/status/", 404),
  ]

  @Test func whatCannotBeDoneHasAStatusThatSaysWhy() throws {
    try withDoors(1) { doors in
      for (method, target, code) in Self.refusals {
        let answer = try doors.request(method, target)
        #expect(
          answer.code == code && (code == 405) == (answer.fields["allow"] != nil), "\(method) \(target.prefix(60))")
        #expect(answer.text.count > 1, "a refusal says what to do")
      }
    }
  }

  @Test func membersComeAndGo() throws {
    try withDoors { doors in
      let joined = try doors.request("PUT", "/v1/members/4?address=127.0.0.1:9&role=learner")
      #expect(joined.code == 200)
      let list = try doors.request("GET", "/v1/members")
      let document = try #require(try JSONSerialization.jsonObject(with: Data(list.body)) as? [String: Any])
      let members = try #require(document["members"] as? [[String: Any]])
      #expect(members.map { $0["id"] as? Int } == [1, 2, 3, 4])
      #expect(members.map { $0["role"] as? String } == ["voter", "voter", "voter", "learner"])
      #expect(members[3]["address"] as? String == "127.0.0.1:9" && members[3]["httpAddress"] == nil)
      let index = try #require(document["index"] as? Int)
      #expect(try doors.request("DELETE", "/v1/members/4?index=\(index + 1)").code == 412)
      #expect(try doors.request("DELETE", "/v1/members/4?index=\(index)").code == 200)
      #expect(try doors.request("GET", "/leave?id=\(doors.followerID)").text == "ok\n")
      let rest = try doors.request("GET", "/v1/members").text
      #expect(!rest.contains("\"id\":\(doors.followerID)") && !rest.contains("\"id\":4"))
    }
  }

  @Test func theLeadershipIsHandedOver() throws {
    try withDoors { doors in
      #expect(try doors.request("PUT", "/v1/leader?id=\(doors.followerID)").code == 204)
      let follower = try #require(doors.cluster.nodes.first { $0.id == doors.followerID })
      #expect(eventually { follower.isLeader })
    }
  }

  @Test func statusAndMetricsTellWhatANodeIs() throws {
    try withDoors { doors in
      #expect(try doors.request("PUT", "/v1/keys/abc", body: Array("12345".utf8)).code == 201)
      let status = try doors.request("GET", "/status")
      let document = try #require(try JSONSerialization.jsonObject(with: Data(status.body)) as? [String: Any])
      #expect(document["role"] as? String == "leader" && document["keys"] as? Int == 1)
      #expect(document["liveBytes"] as? Int == 8 && document["leader"] as? UInt64 == doors.leader.id)
      #expect(document["isLoading"] as? Bool == false)
      let page = try doors.request("GET", "/metrics")
      #expect(page.fields["content-type"]?.hasPrefix("text/plain; version=0.0.4") == true)
      let lines = page.text.split(separator: "\n")
      #expect(lines.contains("weir_raft_is_leader 1") && lines.contains("weir_store_keys 1"))
      #expect(lines.contains("weir_state_loading 0") && lines.contains("weir_store_live_bytes 8"))
      // Each sample stands behind its help and its type, and is a name and a number.
      for line in lines where !line.hasPrefix("#") {
        let words = line.split(separator: " ")
        #expect(words.count == 2 && Double(words[1]) != nil)
        #expect(lines.contains { $0.hasPrefix("# TYPE \(words[0].prefix { $0 != "{" }) ") })
      }
    }
  }
}
