import CFuzzDriver
import FuzzSupport
import WeirCore
import WeirStorage

// The snapshot reader: whatever a snapshot file holds, read from the disk or received from a peer, must be read or
// refused, in bounded memory. The first byte may ask that checksums be put right.

final class SnapshotFuzzer {
  private let metadata = SnapshotMetadata(index: 5, term: 2, configuration: .init(voters: [1, 2, 3], learners: [4]))
  private var seed: [UInt8] = []

  init() {
    let disk = SimulatedFileSystem()
    guard let store = try? SnapshotStore.open(fileSystem: disk, directory: "/s"),
      let writer = try? store.create(metadata)
    else { return }
    for size in [1, 30, 100] { try? writer.append([UInt8](repeating: 9, count: size).span.bytes) }
    if let stored = try? writer.finish() { seed = disk.contents(of: stored.path) ?? [] }
  }

  func run(_ input: Span<UInt8>) {
    guard var file = Overlay(of: input, on: seed, stepBytes: 1) else { return }
    if input[0] & 1 != 0 { file.change { SnapshotFormat.repairChecksums(&$0) } }
    if input[0] & 2 != 0 { file.cut() }
    let bytes = file.bytes
    guard let store = try? SnapshotStore.open(fileSystem: SimulatedFileSystem(), directory: "/s"),
      let receiver = try? store.receive(metadata, fileBytes: bytes.count)
    else { fatalError("nothing can be received") }
    guard (try? receiver.receive(bytes.span.bytes, at: 0)) == bytes.count else { fatalError("bytes were not taken") }
    guard let stored = try? receiver.finish() else {
      precondition((try? store.newest()) == .some(nil), "a snapshot that was refused is there")
      return
    }
    var read = 0
    guard let reader = try? store.reader(stored), (try? reader.forEachChunk { read += $0.byteCount }) != nil else {
      fatalError("a snapshot that was taken cannot be read")
    }
    precondition(read < bytes.count && stored.metadata == metadata)
  }
}

nonisolated(unsafe) let fuzzer = SnapshotFuzzer()

@_cdecl("FuzzSnapshot_main")
func fuzzSnapshotMain(
  _ argumentCount: Int32, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> Int32 {
  cfuzz_run(argumentCount, arguments) { bytes, count in
    fuzzer.run(UnsafeBufferPointer(start: bytes, count: count).span)
    return 0
  }
}
