import Testing
import struct WeirCore.SplitMix64

@testable import Gossip

@Suite("Wire addresses, names and versions")
struct WireAddressTests {
  @Test(
    "addresses are read and written as RFC 5952 has them",
    arguments: [
      ("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("255.255.255.255", "255.255.255.255"), ("::", "::"),
      ("::1", "::1"), ("fe80::1", "fe80::1"), ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
      ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"), ("1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"),
      ("::ffff:10.1.2.3", "::ffff:a01:203"),
      ("1::", "1::"), ("0:0:0:0:0:0:0:0", "::"),
    ])
  func addressText(text: String, canonical: String) throws {
    let address = try #require(IPAddress(text))
    #expect(address.description == canonical)
    #expect(IPAddress(address.description) == address)
    #expect(IPAddress(bytes: address.bytes) == address)
  }

  @Test(
    "what is no address is refused",
    arguments: [
      "", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.a", "1..2.3", ":", ":::", "1::2::3", "12345::",
      "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::8:9", "fe80::1%eth0", "g::1", "+1::2", "host", "1.2.3.4:80",
      "::1.2.3", "1:::2",
    ])
  func noAddress(text: String) {
    #expect(IPAddress(text) == nil)
  }

  @Test("random addresses come back from text and bytes")
  func randomAddresses() {
    var generator = SplitMix64(seed: 9)
    for _ in 0..<2000 {
      let sparse = IPAddress(
        v6High: generator.next() & generator.next() & generator.next(), low: generator.next() & 0xFFFF_0000_0000_FFFF)
      for address in [WireSamples.address(&generator), sparse] {
        #expect(IPAddress(address.description) == address)
        #expect(IPAddress(bytes: address.bytes) == address)
        let full = GossipAddress(ip: address, port: UInt16(truncatingIfNeeded: generator.next()))
        #expect(GossipAddress(full.description) == full)
      }
    }
    #expect(IPAddress(bytes: [1, 2, 3]) == nil)
    #expect(IPAddress(bytes: [UInt8](repeating: 0, count: 15)) == nil)
  }

  @Test("kinds of addresses")
  func kinds() {
    #expect(IPAddress(127, 9, 9, 9).isLoopback)
    #expect(IPAddress("::1")?.isLoopback == true)
    #expect(IPAddress("::ffff:127.0.0.1")?.isLoopback == true)
    #expect(IPAddress(128, 0, 0, 1).isLoopback == false)
    #expect(IPAddress("::")?.isUnspecified == true)
    #expect(IPAddress("::ffff:10.1.2.3")?.unmapped == IPAddress(10, 1, 2, 3))
    #expect(IPAddress(10, 1, 2, 3).unmapped == IPAddress(10, 1, 2, 3))
    #expect(IPAddress(255, 0, 0, 1) < IPAddress(v6High: 0, low: 1))
    #expect(IPAddress(10, 0, 0, 1) < IPAddress(10, 0, 0, 2))
  }

  @Test("join addresses: [name/]host[:port]")
  func joinAddresses() throws {
    let valid: [(String, JoinAddress)] = [
      ("10.0.0.1", JoinAddress(host: "10.0.0.1")), ("10.0.0.1:7946", JoinAddress(host: "10.0.0.1", port: 7946)),
      ("n1/10.0.0.1:7946", JoinAddress(name: "n1", host: "10.0.0.1", port: 7946)),
      ("cache.example:80", JoinAddress(host: "cache.example", port: 80)),
      ("n1/cache.example", JoinAddress(name: "n1", host: "cache.example")),
      ("[::1]:7946", JoinAddress(host: "::1", port: 7946)), ("[fd00::2]", JoinAddress(host: "fd00::2")),
      ("fd00::2", JoinAddress(host: "fd00::2")), ("n1/[::1]:1", JoinAddress(name: "n1", host: "::1", port: 1)),
      ("host:0", JoinAddress(host: "host", port: 0)),
    ]
    for (text, expected) in valid { #expect(try JoinAddress(parsing: text) == expected, "\(text)") }
    let invalid = [
      "", "/host", "n1/", ":7946", "host:", "host:70000", "host:-1", "host:+1", "host:http", "[::1", "[host]:1",
      "[::1]x",
      "[::1]:", "a/b/c", "1:2:3", "[10.0.0.1]:1",
    ]
    for text in invalid { #expect(throws: WireError.invalidText, "\(text)") { try JoinAddress(parsing: text) } }
    #expect(GossipAddress("n1/10.0.0.1:1") == nil)
    #expect(GossipAddress("10.0.0.1") == nil)
  }

  @Test("an allow-list lets in what lies in its ranges")
  func allowList() throws {
    let list = AddressAllowList(ranges: [try CIDR(parsing: "10.0.0.0/8"), try CIDR(parsing: "fd00::/72")])
    let inside = ["10.1.2.3", "::ffff:10.9.9.9", "fd00::1", "fd00::ff:ffff:ffff:ffff"]
    let outside = ["11.0.0.1", "fd00:0:0:1::", "fd00::100:0:0:0", "::1"]
    for text in inside { #expect(list.allows(try #require(IPAddress(text))), "\(text)") }
    for text in outside { #expect(!list.allows(try #require(IPAddress(text))), "\(text)") }
    #expect(AddressAllowList.everything.allows(IPAddress(1, 2, 3, 4)))
    #expect(!AddressAllowList(ranges: []).allows(IPAddress(1, 2, 3, 4)))
    #expect(try CIDR(parsing: "0.0.0.0/0").contains(IPAddress(255, 1, 1, 1)))
    #expect(try CIDR(parsing: "1.2.3.4/32").contains(IPAddress(1, 2, 3, 4)))
    #expect(try !CIDR(parsing: "1.2.3.4/32").contains(IPAddress(1, 2, 3, 5)))
    #expect(try CIDR(parsing: "1.2.3.4/31").contains(IPAddress(1, 2, 3, 5)))
    for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "::/129", "x/8", "10.0.0.0/8/8"] {
      #expect(throws: WireError.invalidText, "\(text)") { try CIDR(parsing: text) }
    }
  }

  @Test("names are bytes: equivalent Unicode texts are two names")
  func names() {
    #expect(NodeName("caf\u{E9}") != NodeName("cafe\u{301}"))
    #expect(NodeName([0xFF, 0xFE]) != NodeName([0xFF, 0xFD]))
    #expect(NodeName("a") < NodeName("b"))
    #expect(NodeName("a") < NodeName("aa"))
    #expect("\(NodeName("n1"))" == "n1")
  }

  @Test("a merge is refused when a member speaks what another does not understand")
  func versionRanges() throws {
    func check(_ nodes: [(ProtocolVersions?, NodeStateKind)]) throws(WireError) {
      var check = VersionRangeCheck()
      for (versions, state) in nodes { check.include(versions, state: state) }
      for (versions, _) in nodes { try check.verify(versions) }
    }
    let plain = ProtocolVersions()
    try check([(plain, .alive), (plain, .dead), (ProtocolVersions(protocolCurrent: 5), .alive)])
    let old = ProtocolVersions(protocolMax: 3)
    #expect(throws: WireError.incompatibleProtocol(speaks: 5, low: 1, high: 3)) {
      try check([(old, .alive), (ProtocolVersions(protocolCurrent: 5), .alive)])
    }
    // The range is that of the alive ones, and holds for all.
    try check([(old, .suspect), (ProtocolVersions(protocolCurrent: 5), .alive)])
    #expect(throws: WireError.self) { try check([(old, .alive), (ProtocolVersions(protocolCurrent: 5), .left)]) }
    // A plain member cannot join a serf cluster unless it announces serf's versions.
    #expect(throws: WireError.incompatibleDelegate(speaks: 0, low: 2, high: 0)) {
      try check([(plain, .alive), (.serf, .alive)])
    }
    try check([(.serf, .alive), (.serf, .alive)])
    #expect(throws: WireError.self) { try check([(plain, .alive), (nil, .alive)]) }
    #expect(!ProtocolVersions.unknown.isValidForAlive)
    #expect(!ProtocolVersions(protocolMin: 3, protocolMax: 2).isValidForAlive)
    #expect(plain.isValidForAlive && plain.understandsCRC && plain.understandsNack && plain.understandsStreamPing)
    #expect(!ProtocolVersions(protocolMax: 2).understandsStreamPing)
  }

  @Test("every error says what it is about")
  func errorTexts() {
    let errors: [WireError] = [
      .truncated(neededBytes: 9), .empty, .unknownMessageType(99), .labelMismatch, .decryptionFailed,
      .tooManyNodes(count: 5, limit: 4), .incompatibleProtocol(speaks: 9, low: 1, high: 5), .invalidText,
    ]
    #expect(Set(errors.map(\.description)).count == errors.count)
    #expect(WireError.notEncrypted.description == "encryption is configured but remote state is not encrypted")
  }
}
