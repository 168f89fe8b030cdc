import CFuzzDriver
import FuzzSupport
import WeirCore
import WeirStorage

// The snapshot reader: whatever a snapshot file holds must be read or refused, in bounded memory. The first byte may ask
// that checksums be put right.

final class SnapshotFuzzer {
  private let metadata = SnapshotMetadata(index: 5, term: 2, configuration: .init(voters: [1, 2, 3], learners: [4]))
  private var seed: [UInt8] = []
  private var path = ""

  init() {
    let disk = SimulatedFileSystem()
    guard let store = try? SnapshotStore.open(fileSystem: disk, directory: "/s"),
      let writer = try? store.create(metadata)
    else { return }
    for size in [1, 30, 100] { try? writer.append([UInt8](repeating: 9, count: size).span.bytes) }
    if let stored = try? writer.finish() {
      seed = disk.contents(of: stored.path) ?? []
      path = stored.path
    }
  }

  func run(_ input: Span<UInt8>) {
    guard var file = Overlay(of: input, on: seed, stepBytes: 1) else { return }
    if input[0] & 1 != 0 { file.change { SnapshotFormat.repairChecksums(&$0) } }
    if input[0] & 2 != 0 { file.cut() }
    let bytes = file.bytes
    let disk = SimulatedFileSystem()
    disk.setContents(of: path, to: bytes)
    guard let store = try? SnapshotStore.open(fileSystem: disk, directory: "/s") else { fatalError("it does not open") }
    // A version that is not known is an error; what is damaged is passed over.
    guard let stored = try? store.newest() else { return }
    var read = 0
    guard let reader = try? store.reader(stored), (try? reader.forEachChunk { read += $0.byteCount }) != nil else {
      fatalError("a snapshot that is whole cannot be read")
    }
    precondition(read < bytes.count && stored.metadata.index == metadata.index && stored.metadata.term == metadata.term)
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
