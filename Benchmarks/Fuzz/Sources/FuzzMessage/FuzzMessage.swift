import CFuzzDriver
import FuzzSupport
import WeirCore

// Raft messages: bytes from a peer must be decoded or refused, in bounded memory, and what was decoded must be written
// back as the very same bytes. The first byte of the input says which checksums are made right beforehand, because the
// fuzzer does not guess them: with all of them wrong nothing behind the first check would ever be reached. It may also say
// that the input describes an append of entries that are alike, which are verified together.

final class MessageFuzzer {
  private static let maximumBytes = 1 << 16
  private let slab = Slab(capacity: maximumBytes)
  private let again = Slab(capacity: 2 * maximumBytes)

  func run(_ input: UnsafeBufferPointer<UInt8>) {
    guard let choice = input.first, input.count - 1 <= Self.maximumBytes else { return }
    if choice & 4 != 0 { return runAlike(UnsafeBufferPointer(rebasing: input[1...]), choice) }
    let byteCount = input.count - 1
    slab.bytes.copyBytes(from: UnsafeRawBufferPointer(input)[1...])
    let message = UnsafeMutableRawBufferPointer(rebasing: slab.bytes[0..<byteCount])
    if choice & 1 == 0 { sealFrames(message) }
    if choice & 2 == 0 { sealMessage(message, depth: 0) }
    check(byteCount)
  }

  private func runAlike(_ input: UnsafeBufferPointer<UInt8>, _ choice: UInt8) {
    guard let frames = AlikeFrames(input) else { return }
    let header = MessageCodec.fixedHeaderBytes
    let byteCount = header + frames.byteCount
    frames.write(
      to: UnsafeMutableRawBufferPointer(rebasing: slab.bytes[header...]), firstIndex: 42, term: 6,
      areChangesSealed: choice & 1 == 0)
    var message = Message(type: .append, to: 2, from: 1, term: 7)
    message.index = 41
    message.logTerm = 6
    MessageCodec.encodeHeader(of: message, into: slab.bytes)
    slab.bytes.storeBytes(of: UInt32(frames.count), toByteOffset: 12, as: UInt32.self)
    slab.bytes.storeBytes(of: UInt32(frames.byteCount), toByteOffset: 16, as: UInt32.self)
    sealMessage(UnsafeMutableRawBufferPointer(rebasing: slab.bytes[0..<byteCount]), depth: 0)
    check(byteCount)
  }

  private func check(_ byteCount: Int) {
    let decoded: Message
    do {
      decoded = try MessageCodec.decode(slab: slab, offset: 0, byteCount: byteCount)
    } catch {
      return
    }
    precondition(MessageCodec.encodedBytes(of: decoded) == byteCount, "another size than it came with")
    var written = MessageCodec.encodeHeader(of: decoded, into: again.bytes)
    decoded.entries.forEachSlice { slice in
      UnsafeMutableRawBufferPointer(rebasing: again.bytes[written...])
        .copyMemory(from: slice.slab.bytes(in: slice.offset..<slice.offset + slice.byteCount))
      written += slice.byteCount
    }
    precondition(written == byteCount)
    let isSame = cfuzz_are_equal(again.bytes.baseAddress, slab.bytes.baseAddress, byteCount)
    precondition(isSame == 1, "read as something else than it was")
    // Every byte of every entry can be read, and a log takes what an append carries.
    var payloadBytes = 0
    decoded.entries.forEach { header, payload in payloadBytes += payload.byteCount + header.payloadBytes }
    precondition(payloadBytes <= 2 * byteCount)
    if decoded.type == .append, !decoded.entries.isEmpty {
      // An entry alone is verified by other code than a run of them.
      let frames = byteCount - decoded.entries.byteCount..<byteCount
      let run = try? EntryBatch.verifying(
        slab: slab, range: frames, firstIndex: decoded.index + 1, lowestTerm: decoded.logTerm)
      precondition(run?.count == decoded.entries.count, "not taken as a run")
      precondition(decoded.entries.terms.last <= decoded.term, "an entry is younger than its message")
      var log = LogBuffer(
        configuration: .init(segmentBytes: 4096), anchorIndex: decoded.index, anchorTerm: decoded.logTerm)
      log.append(decoded.entries, from: decoded.index + 1)
      precondition(log.lastIndex == decoded.entries.lastIndex && log.liveBytes == decoded.entries.byteCount)
    }
  }

  /// Makes the checksum of a header right, and before it those of the responses inside, where the sizes allow it.
  private func sealMessage(_ bytes: UnsafeMutableRawBufferPointer, depth: Int) {
    guard bytes.count >= MessageCodec.fixedHeaderBytes else { return }
    let stated = Int(bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
    guard stated >= MessageCodec.fixedHeaderBytes, stated <= bytes.count else { return }
    if depth == 0, bytes[6] & 8 != 0, stated >= MessageCodec.fixedHeaderBytes + 16 {
      var position = MessageCodec.fixedHeaderBytes + 8
      while position + 8 <= stated {
        let size = Int(truncatingIfNeeded: bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self))
        position += 8
        guard size >= 0, size <= stated - position else { break }
        sealMessage(UnsafeMutableRawBufferPointer(rebasing: bytes[position..<position + size]), depth: 1)
        position += size
      }
    }
    let checksum = crc32c(UnsafeRawBufferPointer(rebasing: bytes[4..<stated]))
    bytes.storeBytes(of: checksum, as: UInt32.self)
  }

  /// Makes the checksums of the frames behind the header right, as far as their lengths lead.
  private func sealFrames(_ bytes: UnsafeMutableRawBufferPointer) {
    guard bytes.count >= 12 else { return }
    let start = Int(bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
    guard start <= bytes.count else { return }
    crc32cSealFrames(UnsafeMutableRawBufferPointer(rebasing: bytes[start...]))
  }
}

nonisolated(unsafe) let fuzzer = MessageFuzzer()

@_cdecl("FuzzMessage_main")
func fuzzMessageMain(
  _ argumentCount: Int32, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> Int32 {
  cfuzz_run(argumentCount, arguments) { bytes, count in
    fuzzer.run(UnsafeBufferPointer(start: bytes, count: count))
    return 0
  }
}
