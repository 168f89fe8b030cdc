import Foundation
import Testing
import struct WeirCore.SplitMix64

@testable import Gossip

/// Packets and streams, altered at random: whatever comes out, nothing may trap, hang or grow.
@Suite("Wire mutations")
struct WireMutationTests {
  /// 120,000 altered packets and streams in the usual run; ten times that with `WEIR_LONG_TESTS=1`.
  static let casesPerSeed = ProcessInfo.processInfo.environment["WEIR_LONG_TESTS"] == "1" ? 75_000 : 7_500

  static func mutate(_ bytes: [UInt8], _ generator: inout SplitMix64, with other: [UInt8]) -> [UInt8] {
    var bytes = bytes
    for _ in 0..<Int.random(in: 1...4, using: &generator) {
      guard !bytes.isEmpty else { break }
      let at = Int.random(in: 0..<bytes.count, using: &generator)
      switch Int.random(in: 0..<7, using: &generator) {
      case 0: bytes[at] = UInt8.random(in: 0...255, using: &generator)
      case 1: bytes[at] ^= 1 << UInt8.random(in: 0...7, using: &generator)
      case 2: bytes.remove(at: at)
      case 3: bytes.insert(UInt8.random(in: 0...255, using: &generator), at: at)
      case 4: bytes.removeLast(bytes.count - at)
      case 5: bytes[at] = [0x00, 0x7F, 0x80, 0xFF, 0xC6, 0xDB, 0xDD, 0xDF].randomElement(using: &generator) ?? 0
      default: bytes.replaceSubrange(at..., with: other.suffix(max(0, other.count - at)))
      }
    }
    return bytes
  }

  /// The captures where they are at hand, and packets of our own.
  static func corpus(streams: Bool, _ generator: inout SplitMix64) throws -> [[UInt8]] {
    var corpus = WireCapture.all.filter { $0.isStream == streams && !$0.isEncrypted && $0.label.isEmpty }.map(\.bytes)
    for compression in [false, true] {
      let configuration = try WirePacketTests.configuration(compression: compression)
      var codec = PacketCodec(configuration)
      var encoder = StreamEncoder(configuration)
      for _ in 0..<20 {
        if streams {
          corpus.append(try encoder.encode(WireSamples.streamMessage(&generator), side: .dialer, using: &generator))
        } else {
          let bodies = (0..<4).map { _ in WireSamples.message(&generator).encoded() }.filter { $0.count < 500 }
          guard !bodies.isEmpty else { continue }
          corpus.append(try codec.encode(messages: bodies, withCRC: false, using: &generator))
        }
      }
    }
    return corpus
  }

  @Test("altered packets", arguments: 0..<8)
  func packets(seed: UInt64) throws {
    var generator = SplitMix64(seed: seed)
    let corpus = try Self.corpus(streams: false, &generator)
    var codec = PacketCodec(try WirePacketTests.configuration())
    var decodedMessages = 0
    var dropped = 0
    for _ in 0..<Self.casesPerSeed {
      let other = corpus.randomElement(using: &generator) ?? []
      let packet = Self.mutate(corpus.randomElement(using: &generator) ?? [], &generator, with: other)
      var messages: [GossipMessage] = []
      guard let summary = try? codec.decode(packet.span, into: &messages) else { continue }
      #expect(summary.messages == messages.count)
      decodedMessages += messages.count
      dropped += summary.droppedMessages
      // What was understood can be said again, and is then understood the same.
      for message in messages { #expect(try WireSamples.decode(message.encoded()) == message) }
    }
    #expect(decodedMessages > 0 && dropped > 0)
  }

  @Test("altered streams", arguments: 0..<8)
  func streams(seed: UInt64) throws {
    var generator = SplitMix64(seed: seed &+ 100)
    let corpus = try Self.corpus(streams: true, &generator)
    var results = [0, 0, 0]
    for _ in 0..<Self.casesPerSeed {
      let other = corpus.randomElement(using: &generator) ?? []
      let stream = Self.mutate(corpus.randomElement(using: &generator) ?? [], &generator, with: other)
      let whole = Self.outcome(stream, chunkBytes: max(1, stream.count))
      results[whole.kind] += 1
      // However the bytes are cut, the outcome is the same.
      let chunked = Self.outcome(stream, chunkBytes: Int.random(in: 1...64, using: &generator))
      #expect(chunked == whole)
    }
    #expect(results.allSatisfy { $0 > 0 })
  }

  enum Outcome: Hashable {
    case message(StreamMessage)
    case waiting
    case refused(WireError)

    var kind: Int {
      switch self {
      case .message: 0
      case .waiting: 1
      case .refused: 2
      }
    }
  }

  static func outcome(_ stream: [UInt8], chunkBytes: Int) -> Outcome {
    var decoder = StreamDecoder(side: .acceptor)
    var start = 0
    do throws(WireError) {
      while start < stream.count {
        let end = min(start + chunkBytes, stream.count)
        if let message = try decoder.receive(stream.span.extracting(start..<end)) { return .message(message) }
        start = end
      }
    } catch {
      return .refused(error)
    }
    return .waiting
  }
}
