import CFuzzDriver
import FuzzSupport
import Gossip

// Packets: whatever arrives in a datagram must be decoded or refused, in bounded memory, and what was decoded must mean
// the same when it is encoded again. The first byte of the input chooses how the rest is wrapped, because the fuzzer
// guesses neither checksums nor keys.

final class PacketFuzzer {
  var plain = PacketCodec()
  var labelled: PacketCodec
  var encrypted: PacketCodec
  var messages: [GossipMessage] = []
  var again: [GossipMessage] = []
  var packet: [UInt8] = []
  var generator = CountingGenerator()

  init() throws {
    var configuration = WireConfiguration()
    configuration.label = Array("cacheA".utf8)
    labelled = PacketCodec(configuration)
    configuration.keyring = try Keyring(primary: Array(0..<16), others: [Array(0..<32)])
    encrypted = PacketCodec(configuration)
    plain.configuration.isCompressionEnabled = false
  }

  func run(_ input: Span<UInt8>) {
    guard input.count > 0 else { return }
    let body = input.extracting(1...)
    switch input[0] % 8 {
    case 0, 1, 2: decode(body, with: &plain)
    case 3: decode(body, with: &labelled)
    case 4: decode(wrapped(body, withCRC: true, by: &plain), with: &plain)
    case 5: decode(wrapped(body, withCRC: true, by: &labelled), with: &labelled)
    case 6: decode(body, with: &encrypted)
    default:
      encrypted.configuration.protocolVersion = 1 + input[0] / 8 % 2
      decode(wrapped(body, withCRC: true, by: &encrypted), with: &encrypted)
    }
  }

  /// The input as the one message of a packet, in all the layers of a codec: those must always come off again.
  private func wrapped(_ body: Span<UInt8>, withCRC: Bool, by codec: inout PacketCodec) -> [UInt8] {
    var message: [UInt8] = []
    message.append(addingCapacity: body.count) { output in
      for index in body.indices { output.append(body[index]) }
    }
    guard
      let packet = try? codec.encode(
        messages: [message.isEmpty ? [8] : message], withCRC: withCRC, using: &generator)
    else { fatalError("a message was refused by our own encoder") }
    return packet
  }

  private func decode(_ packet: [UInt8], with codec: inout PacketCodec) {
    guard decode(packet.span, with: &codec) else { fatalError("our own layers were refused") }
  }

  /// Whether the outer layers were accepted.
  @discardableResult
  private func decode(_ bytes: Span<UInt8>, with codec: inout PacketCodec) -> Bool {
    messages.removeAll(keepingCapacity: true)
    guard let summary = try? codec.decode(bytes, into: &messages) else { return false }
    precondition(summary.messages == messages.count)
    guard !messages.isEmpty, messages.count <= 255 else { return true }
    packet.removeAll(keepingCapacity: true)
    let bodies = messages.map { $0.encoded() }
    guard bodies.count == 1 || bodies.allSatisfy({ $0.count <= 65_535 }) else { return true }
    guard (try? codec.encode(messages: bodies, withCRC: true, into: &packet, using: &generator)) != nil else {
      fatalError("what was decoded could not be encoded")
    }
    again.removeAll(keepingCapacity: true)
    _ = try? codec.decode(packet.span, into: &again)
    precondition(again == messages, "what was decoded does not come back")
    return true
  }
}

nonisolated(unsafe) let fuzzer: PacketFuzzer? = try? PacketFuzzer()

@_cdecl("FuzzGossipPacket_main")
func fuzzGossipPacketMain(
  _ argumentCount: Int32, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> Int32 {
  cfuzz_run(argumentCount, arguments) { bytes, count in
    fuzzer?.run(UnsafeBufferPointer(start: bytes, count: count).span)
    return 0
  }
}
