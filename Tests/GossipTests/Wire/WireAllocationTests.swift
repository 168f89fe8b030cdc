import CAllocationCounter
import TestSupport
import Testing
import struct WeirCore.SplitMix64

@testable import Gossip

/// How many allocations the wire costs in the steady state: none.
@Suite(
  "Wire allocations",
  .disabled(if: Sanitizers.areAllocationsUncounted, "the allocation counter is left out under sanitizers"))
struct WireAllocationTests {
  /// The allocations of this thread during `body`.
  @inline(never)
  static func allocations(_ body: () -> Void) -> UInt64 {
    let before = callocation_counts_of_this_thread().allocations
    body()
    return callocation_counts_of_this_thread().allocations - before
  }

  @Test("the counter counts: a planted allocation is seen")
  func planted() {
    #expect(callocation_counter_is_active() == 1)
    var kept: [UInt8] = []
    let count = Self.allocations {
      for round in 0..<100 { kept = [UInt8](repeating: UInt8(round), count: 64) }
    }
    #expect(count >= 100)
    #expect(kept.last == 99)
  }

  @Test("encoding every message into a reused buffer")
  func encode() {
    var buffer: [UInt8] = []
    buffer.reserveCapacity(2048)
    let messages: [GossipMessage] = [
      .ping(WireSamples.ping), .alive(WireSamples.alive), .ack(Ack(sequenceNumber: 70_000, payload: [1, 2, 3])),
      .nack(Nack(sequenceNumber: 9)), .suspect(Suspect(incarnation: 1, node: "a", from: "b")),
      .dead(Dead(incarnation: 1, node: "a", from: "b")), .user([1, 2, 3, 4]),
      .indirectPing(
        IndirectPing(sequenceNumber: 1, target: IPAddress(10, 0, 0, 1), port: 7946, node: "b", wantsNack: true)),
    ]
    func turn() {
      // By index: without the optimizer, which tests are built without, a loop over the elements boxes each.
      for index in messages.indices {
        buffer.removeAll(keepingCapacity: true)
        messages[index].encode(into: &buffer)
      }
    }
    turn()
    let count = Self.allocations { for _ in 0..<100 { turn() } }
    #expect(count == 0)
    #expect(!buffer.isEmpty)
  }

  @Test("reading messages where they lie")
  func views() {
    let ping = Array(GossipMessage.ping(WireSamples.ping).encoded().dropFirst())
    let alive = Array(GossipMessage.alive(WireSamples.alive).encoded().dropFirst())
    let ack = Array(GossipMessage.ack(Ack(sequenceNumber: 300, payload: [1])).encoded().dropFirst())
    var sum = 0
    let count = Self.allocations {
      for _ in 0..<100 {
        if let view = try? PingView(ping.span) { sum += Int(view.sequenceNumber) }
        if let view = try? AliveView(alive.span) { sum += Int(view.incarnation) }
        if let view = try? AckView(ack.span) { sum += Int(view.sequenceNumber) }
      }
    }
    #expect(count == 0)
    #expect(sum == 100 * (300 + 17 + 300))
  }

  @Test("a refused message costs no allocation of ours")
  func refusals() {
    let cut = Array(GossipMessage.ping(WireSamples.ping).encoded().dropFirst().dropLast(3))
    var refused: UInt64 = 0
    let count = Self.allocations {
      for _ in 0..<100 {
        if (try? PingView(cut.span)) == nil { refused += 1 }
      }
    }
    // The testing library notes where each error was thrown, in memory of its own: one allocation a throw.
    #expect(count <= refused)
    #expect(refused == 100)
  }

  @Test("whole packets, encoded and decoded to owned messages about known members", arguments: [false, true])
  func packets(compression: Bool) throws {
    var configuration = WireConfiguration()
    configuration.label = Array("cacheA".utf8)
    configuration.isCompressionEnabled = compression
    var codec = PacketCodec(configuration)
    var generator = SplitMix64(seed: 0)
    let bodies =
      [GossipMessage.ping(WireSamples.ping).encoded()]
      + Array(repeating: GossipMessage.alive(WireSamples.alive).encoded(), count: 16)
    var packet: [UInt8] = []
    packet.reserveCapacity(4096)
    var messages: [GossipMessage] = []
    messages.reserveCapacity(64)
    func turn() {
      packet.removeAll(keepingCapacity: true)
      messages.removeAll(keepingCapacity: true)
      try? codec.encode(messages: bodies, withCRC: true, into: &packet, using: &generator)
      _ = try? codec.decode(packet.span, into: &messages)
    }
    for _ in 0..<3 { turn() }
    let count = Self.allocations { for _ in 0..<100 { turn() } }
    #expect(count == 0)
    #expect(messages.count == 17)
    #expect(messages.first == .ping(WireSamples.ping))
  }

  @Test("a packet's body as the agent has it, in a buffer among others", arguments: [false, true])
  func packetBodies(compression: Bool) {
    var configuration = WireConfiguration()
    configuration.isCompressionEnabled = compression
    var codec = PacketCodec(configuration)
    var generator = SplitMix64(seed: 0)
    let body = GossipMessage.alive(WireSamples.alive).encoded()
    let outbox = [1, 2, 3] + body + [4]
    var packet: [UInt8] = []
    packet.reserveCapacity(4096)
    func turn() {
      packet.removeAll(keepingCapacity: true)
      try? codec.encode(
        body: outbox.span.extracting(3..<3 + body.count), withCRC: true, into: &packet, using: &generator)
    }
    for _ in 0..<3 { turn() }
    let count = Self.allocations { for _ in 0..<100 { turn() } }
    #expect(count == 0)
    var messages: [GossipMessage] = []
    _ = try? codec.decode(packet.span, into: &messages)
    #expect(messages.map { $0.encoded() } == [body])
  }

  @Test("LZW in both directions")
  func lzw() {
    var generator = SplitMix64(seed: 0)
    let input = (0..<1400).map { _ in UInt8.random(in: 0..<8, using: &generator) }
    var encoder = LZWEncoder()
    var decoder = LZWDecoder()
    var compressed: [UInt8] = []
    var output: [UInt8] = []
    var size = 0
    func turn() {
      compressed.removeAll(keepingCapacity: true)
      _ = encoder.encode(input.span, into: &compressed)
      size = (try? decoder.decode(compressed.span, into: &output, limitBytes: 65_536)) ?? 0
    }
    for _ in 0..<3 { turn() }
    let count = Self.allocations { for _ in 0..<100 { turn() } }
    #expect(count == 0)
    #expect(Array(output[..<size]) == input)
  }
}
