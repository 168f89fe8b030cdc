import Testing
import struct WeirCore.SplitMix64

@testable import Gossip

@Suite("Wire messages")
struct WireMessageTests {
  @Test("field names are packed as their text says")
  func fieldNames() throws {
    let names: [(FieldName, String)] = [
      (.addr, "Addr"), (.algo, "Algo"), (.buf, "Buf"), (.error, "Error"), (.from, "From"),
      (.incarnation, "Incarnation"), (.join, "Join"), (.meta, "Meta"), (.nack, "Nack"), (.name, "Name"),
      (.node, "Node"), (.nodes, "Nodes"), (.payload, "Payload"), (.port, "Port"), (.seqNo, "SeqNo"),
      (.sourceAddr, "SourceAddr"), (.sourceNode, "SourceNode"), (.sourcePort, "SourcePort"), (.state, "State"),
      (.target, "Target"), (.userMsgLen, "UserMsgLen"), (.userStateLen, "UserStateLen"), (.vsn, "Vsn"),
    ]
    for (name, text) in names {
      let packed = Pack.string(text)
      var reader = MessagePackReader()
      #expect(try reader.readKey(packed.span) == name, "\(text)")
      // And where eight bytes can be loaded at once.
      let padded = packed + Array(repeating: 0xFF, count: 16)
      reader = MessagePackReader()
      #expect(try reader.readKey(padded.span) == name, "\(text)")
    }
    #expect(Set(names.map(\.0)).count == names.count)
  }

  @Test("a ping, an ack and a nack have the bytes that memberlist sends")
  func knownBytes() {
    let ping = Ping(
      sequenceNumber: 1, node: "g2", sourceAddress: IPAddress(127, 77, 1, 1), sourcePort: 7946, sourceNode: "g1")
    #expect(
      GossipMessage.ping(ping).encoded().hex
        == "0085a44e6f6465a26732a55365714e6f01aa536f7572636541646472a47f4d0101"
        + "aa536f757263654e6f6465a26731aa536f75726365506f7274cd1f0a")
    #expect(GossipMessage.ack(Ack(sequenceNumber: 1)).encoded().hex == "0282a75061796c6f6164c0a55365714e6f01")
    #expect(GossipMessage.nack(Nack(sequenceNumber: 5)).encoded().hex == "0b81a55365714e6f05")
  }

  @Test("any message comes back as it was", arguments: 0..<20)
  func roundTrip(seed: UInt64) throws {
    var generator = SplitMix64(seed: seed)
    for _ in 0..<100 {
      let message = WireSamples.message(&generator)
      let bytes = message.encoded()
      #expect(try WireSamples.decode(bytes) == message)
    }
  }

  @Test("cut short at any byte, a message is refused and says how much it lacks")
  func truncated() {
    var generator = SplitMix64(seed: 5)
    for _ in 0..<200 {
      let bytes = WireSamples.message(&generator).encoded()
      guard bytes[0] != MessageType.user.rawValue else { continue }
      for count in stride(from: 1, to: bytes.count, by: bytes.count > 1000 ? 97 : 1) {
        do {
          _ = try WireSamples.decode(Array(bytes[..<count]))
          Issue.record("\(count) of \(bytes.count) bytes were taken for a message")
        } catch WireError.truncated(let needed) {
          #expect(needed > count - 1)
          #expect(needed <= bytes.count - 1)
        } catch {
          Issue.record("\(error)")
        }
      }
    }
  }

  @Test("keys in any order, unknown keys between them, and bytes behind are accepted")
  func tolerance() throws {
    let deep = Array(repeating: UInt8(0x91), count: 5000) + [0xC0]
    let unknown: [(String, [UInt8])] = [
      ("Zeta", [0x93, 0x01, 0xA1, 0x61, 0x81, 0xC0, 0xC3]), ("A", [0xCB, 0, 0, 0, 0, 0, 0, 0, 0]),
      ("Time", [0xD7, 0xFF, 1, 2, 3, 4, 5, 6, 7, 8]), ("Ext", [0xC7, 2, 9, 1, 2]), ("Deep", deep),
      ("NotAFieldNameOfOurs", [0xCA, 0, 0, 0, 0]),
    ]
    for (key, value) in unknown {
      let body = Pack.map([
        ("SeqNo", [0xCC, 0xC8]), (key, value), ("Node", Pack.string("g2")), ("SourcePort", [0xCD, 0x1F, 0x0A]),
      ])
      let decoded = try WireSamples.decode([0] + body + [1, 2, 3])
      #expect(decoded == .ping(Ping(sequenceNumber: 200, node: "g2", sourcePort: 7946)))
    }
  }

  @Test("an integer is accepted in every form it can have")
  func integerForms() throws {
    let forms: [([UInt8], UInt32?)] = [
      ([0x05], 5), ([0xCC, 0x05], 5), ([0xCD, 0, 5], 5), ([0xCE, 0, 0, 0, 5], 5),
      ([0xCF, 0, 0, 0, 0, 0, 0, 0, 5], 5), ([0xD0, 5], 5), ([0xD1, 0, 200], 200), ([0xD2, 0, 0, 0, 5], 5),
      ([0xD3, 0, 0, 0, 0, 0, 0, 0, 5], 5), ([0xC0], 0), ([0xCE, 255, 255, 255, 255], .max),
      ([0xFF], nil), ([0xD0, 0xFF], nil), ([0xD1, 0xFF, 0xFF], nil),
      ([0xD3, 255, 255, 255, 255, 255, 255, 255, 255], nil),
      ([0xCF, 255, 255, 255, 255, 255, 255, 255, 255], nil), ([0xCF, 0, 0, 0, 1, 0, 0, 0, 0], nil),
      ([0xCA, 0, 0, 0, 0], nil), ([0xA1, 0x35], nil), ([0xC3], nil),
    ]
    for (form, expected) in forms {
      let bytes = [MessageType.nack.rawValue] + Pack.map([("SeqNo", form)])
      if let expected {
        #expect(try WireSamples.decode(bytes) == .nack(Nack(sequenceNumber: expected)))
      } else {
        #expect(throws: WireError.self, "\(form)") { try WireSamples.decode(bytes) }
      }
    }
  }

  @Test("strings and bytes are accepted in the newer forms too")
  func stringForms() throws {
    let text = Array("node".utf8)
    let forms: [[UInt8]] = [
      [0xA4] + text, [0xD9, 4] + text, [0xDA, 0, 4] + text, [0xDB, 0, 0, 0, 4] + text, [0xC4, 4] + text,
      [0xC5, 0, 4] + text, [0xC6, 0, 0, 0, 4] + text,
    ]
    for form in forms {
      #expect(try WireSamples.decode([0] + Pack.map([("Node", form)])) == .ping(Ping(sequenceNumber: 0, node: "node")))
    }
    #expect(try WireSamples.decode([0] + Pack.map([("Node", [0xC0])])) == .ping(Ping(sequenceNumber: 0, node: "")))
    let map16: [UInt8] = [0xDE, 0, 1] + Pack.string("Node") + forms[0]
    #expect(try WireSamples.decode([0] + map16) == .ping(Ping(sequenceNumber: 0, node: "node")))
  }

  @Test("counts and lengths that are not there are refused, not believed")
  func hugeCounts() {
    let refused: [[UInt8]] = [
      [0, 0xDF, 0xFF, 0xFF, 0xFF, 0xFF], [0, 0xDE, 0xFF, 0xFF],
      [0] + Pack.map([("Node", [0xDB, 0xFF, 0xFF, 0xFF, 0xFF])]),
      [0] + Pack.map([("X", [0xDD, 0xFF, 0xFF, 0xFF, 0xFF])]),
      [0] + Pack.map([("X", [0xDF, 0xFF, 0xFF, 0xFF, 0xFF])]),
      [0] + Pack.map([("X", [0xC9, 0xFF, 0xFF, 0xFF, 0xFF])]),
      [0] + Pack.map([("X", [0xC1])]),
      [0, 0xC0], [0, 0x90], [0, 0xA0],
      // Arrays in arrays, each announcing as many elements as can be.
      [0] + Pack.map([("X", Array(repeating: [0xDD, 0xFF, 0xFF, 0xFF, 0xFF], count: 100).flatMap { $0 })]),
    ]
    for bytes in refused { #expect(throws: WireError.self) { try WireSamples.decode(bytes) } }
  }

  @Test("short versions, missing and malformed addresses")
  func aliveOddities() throws {
    let address: [UInt8] = [0xA4, 10, 0, 0, 1]
    func alive(_ pairs: [(String, [UInt8])]) throws -> Alive? {
      guard case .alive(let alive) = try WireSamples.decode([4] + Pack.map(pairs)) else { return nil }
      return alive
    }
    for count in 0..<6 {
      let short = [0xA0 | UInt8(count)] + Array(repeating: UInt8(1), count: count)
      #expect(try alive([("Addr", address), ("Vsn", short)])?.versions == nil)
    }
    let long = [0xA7] + Array(UInt8(1)...7)
    #expect(try alive([("Addr", address), ("Vsn", long)])?.versions?.delegateCurrent == 6)
    #expect(throws: WireError.invalidAddress(byteCount: 0)) { try alive([("Node", Pack.string("a"))]) }
    #expect(throws: WireError.invalidAddress(byteCount: 5)) { try alive([("Addr", [0xA5, 1, 2, 3, 4, 5])]) }
    #expect(throws: WireError.self) { try alive([("Addr", address), ("Port", [0xCE, 0, 1, 0, 0])]) }
    #expect(throws: WireError.self) { try alive([("Addr", address), ("Incarnation", [0xFF])]) }
  }

  @Test("signed fields are written as current memberlist writes them, up to the limits")
  func signedLengths() {
    let forms: [(Int, String)] = [
      (0, "00"), (127, "7f"), (128, "d10080"), (200, "d100c8"), (32767, "d17fff"), (32768, "d200008000"),
      (20_971_520, "d201400000"), (-1, "ff"), (-33, "d0df"), (-129, "d1ff7f"),
    ]
    for (value, hex) in forms {
      var bytes: [UInt8] = []
      UserStreamHeader(byteCount: value).encode(into: &bytes)
      #expect(bytes.hex == "81aa557365724d73674c656e" + hex)
    }
  }

  @Test("equal byte strings share one array, different ones on one slot stay apart")
  func cache() {
    var cache = ByteStringCache()
    var generator = SplitMix64(seed: 2)
    for _ in 0..<5000 {
      let bytes = WireSamples.bytes(0...20, &generator)
      #expect(cache.string(bytes.span, 0..<bytes.count) == bytes)
    }
    let long = WireSamples.bytes(5000...5000, &generator)
    #expect(cache.string(long.span, 10..<4000) == Array(long[10..<4000]))
  }
}
