import CFuzzDriver
import FuzzSupport
import Gossip

// Streams: whatever a peer writes must become a message, a refusal, or a wait for a bounded number of bytes; the same
// however the bytes are cut into chunks; and a message must come back when it is encoded again. The first byte of the
// input chooses the configuration, the second the size of the chunks.

enum Outcome: Equatable {
  case message(StreamMessage)
  case waiting(missingBytes: Int)
  case refused(WireError)
}

final class StreamFuzzer {
  let plain: WireConfiguration
  let labelled: WireConfiguration
  let encrypted: WireConfiguration
  var plainEncoder: StreamEncoder
  var labelledEncoder: StreamEncoder
  var encryptedEncoder: StreamEncoder
  var generator = CountingGenerator()

  init() throws {
    // Small enough that a bomb is met within the inputs that the fuzzer makes, large enough not to be in the way.
    var configuration = WireConfiguration()
    configuration.limits.decompressedStreamBytes = 1 << 14
    configuration.isCompressionEnabled = false
    plain = configuration
    configuration.label = Array("cacheA".utf8)
    configuration.isCompressionEnabled = true
    labelled = configuration
    configuration.keyring = try Keyring(primary: Array(0..<16))
    configuration.verifyIncoming = false
    encrypted = configuration
    plainEncoder = StreamEncoder(plain)
    labelledEncoder = StreamEncoder(labelled)
    encryptedEncoder = StreamEncoder(encrypted)
  }

  func run(_ input: Span<UInt8>) {
    guard input.count > 2 else { return }
    let body = input.extracting(2...)
    // Not more than 32 chunks: byte by byte, the fuzzer would spend its time on few long inputs.
    let chunkBytes = max(1 + Int(input[1]), body.count / 32)
    switch input[0] % 4 {
    case 0, 1: check(body, plain, .acceptor, &plainEncoder, chunkBytes: chunkBytes)
    case 2: check(body, labelled, .acceptor, &labelledEncoder, chunkBytes: chunkBytes)
    default: check(body, encrypted, .dialer, &encryptedEncoder, chunkBytes: chunkBytes)
    }
  }

  private func check(
    _ bytes: Span<UInt8>, _ configuration: WireConfiguration, _ side: StreamSide, _ encoder: inout StreamEncoder,
    chunkBytes: Int
  ) {
    let whole = outcome(bytes, configuration, side, chunkBytes: bytes.count)
    let chunked = outcome(bytes, configuration, side, chunkBytes: chunkBytes)
    switch (whole, chunked) {
    // Fewer bytes may be known to be missing where the last chunk has not made it worth another look.
    case (.waiting, .waiting): break
    default: precondition(whole == chunked, "the outcome depends on how the bytes are cut")
    }
    guard case .message(let message) = whole else { return }
    let sender: StreamSide = side == .acceptor ? .dialer : .acceptor
    guard let stream = try? encoder.encode(message, side: sender, using: &generator) else {
      fatalError("what was decoded could not be encoded")
    }
    let again = outcome(stream.span, configuration, side, chunkBytes: stream.count)
    precondition(again == .message(message), "what was decoded does not come back")
  }

  private func outcome(
    _ bytes: Span<UInt8>, _ configuration: WireConfiguration, _ side: StreamSide, chunkBytes: Int
  ) -> Outcome {
    var decoder = StreamDecoder(configuration, side: side)
    var start = 0
    do throws(WireError) {
      while start < bytes.count {
        let end = min(start + chunkBytes, bytes.count)
        if let message = try decoder.receive(bytes.extracting(start..<end)) { return .message(message) }
        precondition(decoder.missingBytes > 0)
        start = end
      }
    } catch {
      return .refused(error)
    }
    return .waiting(missingBytes: decoder.missingBytes)
  }
}

nonisolated(unsafe) let fuzzer: StreamFuzzer? = try? StreamFuzzer()

@_cdecl("FuzzGossipStream_main")
func fuzzGossipStreamMain(
  _ argumentCount: Int32, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> Int32 {
  cfuzz_run(argumentCount, arguments) { bytes, count in
    fuzzer?.run(UnsafeBufferPointer(start: bytes, count: count).span)
    return 0
  }
}
