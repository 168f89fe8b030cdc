import ArgumentParser
import CAllocationCounter
import CWeir
import Foundation
import Gossip

/// `bench gossip-wire`: what it costs to write and read gossip's messages and packets.
struct GossipWire: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "gossip-wire",
    abstract: "Measures gossip's codec: CPU time and allocations per message and per packet.",
    discussion: """
      The least of nine rounds, on this thread's CPU clock. For comparison: memberlist 0.2.2 takes 1,570-1,770 ns and \
      22-36 allocations to encode or decode a ping or alive, and 23,200 ns and 78 kB to compress a packet. Ends with 3 \
      where a message takes more than 150 ns, compressing a packet more than 8,000 ns, or either allocates.
      """)

  func run() throws {
    var workloads = GossipWireWorkloads()
    print("message or packet             ns   allocations   bytes")
    for figure in try workloads.measure() {
      let allocations = figure.allocations.map { String(format: "%.2f", $0) } ?? "-"
      print(
        figure.name.padding(toLength: 26, withPad: " ", startingAt: 0)
          + String(format: "%8.0f", figure.nanoseconds)
          + allocations.leftPadded(to: 14) + String(figure.byteCount).leftPadded(to: 8))
    }
    let missed = workloads.figures.filter(\.missesLimit).map(\.name)
    guard !missed.isEmpty else { return }
    FileHandle.standardError.write(Data("missed its limit: \(missed.joined(separator: ", "))\n".utf8))
    throw ExitStatus.thresholdMissed
  }
}

extension String {
  fileprivate func leftPadded(to width: Int) -> String {
    String(repeating: " ", count: max(0, width - count)) + self
  }
}

/// One line of `bench gossip-wire`.
struct GossipWireFigure {
  var name: String
  var nanoseconds: Double
  /// nil where the counter is not linked in.
  var allocations: Double?
  /// Size of what is encoded or decoded.
  var byteCount: Int
  /// What it may take, without allocating; nil where nothing is promised.
  var limitNanoseconds: Double?

  var missesLimit: Bool { limitNanoseconds.map { nanoseconds > $0 || (allocations ?? 0) > 0 } ?? false }
}

/// The messages and packets that are measured: a ping and an alive of the size that memberlist was measured with, and a
/// gossip packet of 1,400 bytes.
struct GossipWireWorkloads {
  private var generator = SystemRandomNumberGenerator()
  private var buffer: [UInt8] = []
  private var messages: [GossipMessage] = []
  private(set) var figures: [GossipWireFigure] = []

  private static let messageLimitNanoseconds = 150.0
  private static let compressionLimitNanoseconds = 8000.0

  private static let ping = Ping(
    sequenceNumber: 300, node: "node-b", sourceAddress: IPAddress(10, 0, 0, 1), sourcePort: 7946,
    sourceNode: "node-a")

  private static func alive(_ number: UInt8) -> Alive {
    Alive(
      incarnation: 17, node: NodeName("node-\(number)"),
      address: GossipAddress(ip: IPAddress(10, 0, 0, number), port: 7946), meta: Array("role=voter".utf8))
  }

  mutating func measure() throws -> [GossipWireFigure] {
    figures = []
    buffer.reserveCapacity(8192)
    messages.reserveCapacity(256)
    measureMessages()
    try measurePackets()
    return figures
  }

  private mutating func measureMessages() {
    let ping = Self.ping
    let alive = Self.alive(2)
    let pingBody = Array(GossipMessage.ping(ping).encoded().dropFirst())
    let aliveBody = Array(GossipMessage.alive(alive).encoded().dropFirst())
    var buffer: [UInt8] = []
    buffer.reserveCapacity(256)
    time("encode ping", rounds: 100_000, byteCount: pingBody.count + 1) {
      buffer.removeAll(keepingCapacity: true)
      ping.encode(into: &buffer)
    }
    time("encode alive", rounds: 100_000, byteCount: aliveBody.count + 1) {
      buffer.removeAll(keepingCapacity: true)
      alive.encode(into: &buffer)
    }
    var sum = 0
    time("decode ping, in place", rounds: 100_000, byteCount: pingBody.count + 1) {
      if let view = try? PingView(pingBody.span) { sum &+= view.node.count }
    }
    time("decode alive, in place", rounds: 100_000, byteCount: aliveBody.count + 1) {
      if let view = try? AliveView(aliveBody.span) { sum &+= view.node.count }
    }
    var cache = ByteStringCache()
    time("decode ping, owned", rounds: 100_000, byteCount: pingBody.count + 1) {
      if let message = try? GossipMessage(type: .ping, body: pingBody.span, cache: &cache) {
        sum &+= Int(message.type.rawValue)
      }
    }
    time("decode alive, owned", rounds: 100_000, byteCount: aliveBody.count + 1) {
      if let message = try? GossipMessage(type: .alive, body: aliveBody.span, cache: &cache) {
        sum &+= Int(message.type.rawValue)
      }
    }
    withExtendedLifetime(sum) {}
  }

  /// A compound of alive messages that fills 1,400 bytes as gossip does.
  private static func gossipBodies() -> [[UInt8]] {
    var bodies: [[UInt8]] = []
    var byteCount = PacketCodec.compoundOverheadBytes
    for number in UInt8(1)...100 {
      let body = GossipMessage.alive(alive(number)).encoded()
      byteCount += body.count + PacketCodec.compoundMessageOverheadBytes
      guard byteCount <= 1400 else { break }
      bodies.append(body)
    }
    return bodies
  }

  private mutating func measurePackets() throws {
    let bodies = Self.gossipBodies()
    for (name, isCompressed, isEncrypted) in [
      ("plain", false, false), ("compressed", true, false), ("encrypted", false, true),
    ] {
      var configuration = WireConfiguration()
      configuration.isCompressionEnabled = isCompressed
      if isEncrypted { configuration.keyring = try Keyring(primary: Array(0..<16)) }
      var codec = PacketCodec(configuration)
      var generator = generator
      let packet = try codec.encode(messages: bodies, withCRC: true, using: &generator)
      var buffer = buffer
      let limit = isCompressed ? Self.compressionLimitNanoseconds : nil
      time("encode packet, \(name)", rounds: 5_000, byteCount: packet.count, limitNanoseconds: limit) {
        buffer.removeAll(keepingCapacity: true)
        try? codec.encode(messages: bodies, withCRC: true, into: &buffer, using: &generator)
      }
      var messages = messages
      time("decode packet, \(name)", rounds: 5_000, byteCount: packet.count, limitNanoseconds: nil) {
        messages.removeAll(keepingCapacity: true)
        _ = try? codec.decode(packet.span, into: &messages)
      }
    }
  }

  private mutating func time(
    _ name: String, rounds: Int, byteCount: Int, limitNanoseconds: Double? = messageLimitNanoseconds, _ body: () -> Void
  ) {
    for _ in 0..<(rounds / 10) { body() }
    var least = UInt64.max
    var allocations: UInt64 = 0
    for _ in 0..<9 {
      let allocationsBefore = callocation_counts_of_this_thread().allocations
      let before = cweir_thread_cpu_nanoseconds()
      for _ in 0..<rounds { body() }
      least = min(least, cweir_thread_cpu_nanoseconds() - before)
      allocations = callocation_counts_of_this_thread().allocations - allocationsBefore
    }
    figures.append(
      GossipWireFigure(
        name: name, nanoseconds: Double(least) / Double(rounds),
        allocations: callocation_counter_is_active() == 1 ? Double(allocations) / Double(rounds) : nil,
        byteCount: byteCount, limitNanoseconds: limitNanoseconds))
  }
}
