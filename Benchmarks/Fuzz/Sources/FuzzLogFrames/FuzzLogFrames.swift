import CFuzzDriver
import FuzzSupport
import WeirCore

// Frames as a log on a disk holds them: any bytes are read or refused, and what was read is consecutive, never falls in
// term, and is what a log hands out again byte for byte. The first byte says whether checksums are made right beforehand,
// the second where the run is cut. It may also say that the input describes a run of frames that are alike: what is
// verified of them together must be what is verified of each alone.

final class FrameFuzzer {
  private static let maximumBytes = 1 << 16
  private let slab = Slab(capacity: maximumBytes)

  func run(_ input: UnsafeBufferPointer<UInt8>) {
    guard input.count >= 2, input.count - 2 <= Self.maximumBytes else { return }
    if input[0] & 2 != 0 { return runAlike(UnsafeBufferPointer(rebasing: input[1...]), isSealed: input[0] & 1 == 0) }
    let byteCount = input.count - 2
    slab.bytes.copyBytes(from: UnsafeRawBufferPointer(input)[2...])
    if input[0] & 1 == 0 { crc32cSealFrames(UnsafeMutableRawBufferPointer(rebasing: slab.bytes[0..<byteCount])) }
    // A reader on a disk finds its place frame by frame.
    let start = min(Int(input[1]) * 8, byteCount)
    _ = try? EntryFrame.verify(slab.bytes(in: start..<byteCount))
    guard let batch = try? EntryBatch.verifying(slab: slab, range: 0..<byteCount) else { return }
    guard !batch.isEmpty else { return precondition(byteCount == 0) }
    check(batch, byteCount)
  }

  private func runAlike(_ input: UnsafeBufferPointer<UInt8>, isSealed: Bool) {
    guard let frames = AlikeFrames(input) else { return }
    frames.write(to: slab.bytes, firstIndex: 42, term: 6, areChangesSealed: isSealed)
    let range = 0..<frames.byteCount
    let good = goodFrames(slab, range, firstIndex: 42, lowestTerm: 0)
    do {
      let batch = try EntryBatch.verifying(slab: slab, range: range, firstIndex: 42)
      precondition(batch.count == good, "taken together and not alone")
      check(batch, frames.byteCount)
    } catch {
      precondition(error.entry == good, "another frame is said to be broken than alone")
    }
  }

  private func check(_ batch: EntryBatch, _ byteCount: Int) {
    precondition(batch.byteCount == byteCount)
    var count = 0
    var previousTerm: Term = 0
    batch.forEach { header, payload in
      let expected = batch.firstIndex == 0 ? 0 : batch.firstIndex + UInt64(count)
      precondition(header.index == expected && header.term >= previousTerm)
      precondition(payload.byteCount == header.payloadBytes)
      previousTerm = header.term
      count += 1
    }
    precondition(count == batch.count)
    guard batch.firstIndex > 0, batch.lastIndex < .max, batch.lastIndex >= batch.firstIndex else { return }
    var log = LogBuffer(configuration: .init(segmentBytes: 4096), anchorIndex: batch.firstIndex - 1)
    log.append(batch, from: batch.firstIndex)
    let again = log.batch(from: log.firstIndex, through: log.lastIndex)
    var position = 0
    again.forEachSlice { slice in
      let left = slice.slab.bytes(in: slice.offset..<slice.offset + slice.byteCount)
      let right = slab.bytes(in: position..<position + slice.byteCount)
      precondition(cfuzz_are_equal(left.baseAddress, right.baseAddress, slice.byteCount) == 1)
      position += slice.byteCount
    }
    precondition(position == byteCount)
  }
}

nonisolated(unsafe) let fuzzer = FrameFuzzer()

@_cdecl("FuzzLogFrames_main")
func fuzzLogFramesMain(
  _ argumentCount: Int32, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> Int32 {
  cfuzz_run(argumentCount, arguments) { bytes, count in
    fuzzer.run(UnsafeBufferPointer(start: bytes, count: count))
    return 0
  }
}
