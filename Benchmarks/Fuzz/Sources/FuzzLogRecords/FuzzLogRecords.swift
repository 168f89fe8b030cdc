import CFuzzDriver
import FuzzSupport
import WeirCore
import WeirStorage

// The log's reader: whatever lies in a log's directory must be read or refused, in bounded memory, and what was read must
// still be there after it was opened, written to and opened again. The fuzzer guesses no checksums, so the first byte of
// the input may ask that they be put right: then the fields behind them are what is fuzzed. It also says what the input is
// laid over: a segment in a new file, or one in a file that held others before and still has their batches in it.

final class LogFuzzer {
  private let directory = "/log"
  private let blockBytes = 256
  /// The only segment of a log that was written properly, which inputs are laid over.
  private struct Seed {
    var path = ""
    var bytes: [UInt8] = []
  }

  private var fresh = Seed()
  private var recycled = Seed()

  init() {
    fresh = makeFresh()
    recycled = makeRecycled()
    precondition(!fresh.bytes.isEmpty && !recycled.bytes.isEmpty, "a log can be written")
  }

  private func makeFresh() -> Seed {
    let disk = SimulatedFileSystem()
    guard let log = try? WriteAheadLog.open(fileSystem: disk, directory: directory, options: options).log else {
      return Seed()
    }
    var buffer = LogBuffer(configuration: .init(segmentBytes: 4096))
    for round in 0..<4 as Range<UInt64> {
      let first = buffer.lastIndex + 1
      for size in [0, 8, 60] { buffer.append(term: round + 1, payload: [UInt8](repeating: 7, count: size).span.bytes) }
      log.append(
        buffer.batch(from: first, through: buffer.lastIndex),
        hardState: HardState(term: round + 1, vote: 1, commit: first))
      try? log.commitBatch()
    }
    return seed(of: disk)
  }

  /// Each batch drops what was before it, until a segment has begun in a file that was used before; two more go with it.
  private func makeRecycled() -> Seed {
    let disk = SimulatedFileSystem()
    guard let log = try? WriteAheadLog.open(fileSystem: disk, directory: directory, options: options).log else {
      return Seed()
    }
    var buffer = LogBuffer(configuration: .init(segmentBytes: 4096))
    var left = 3
    while left > 0 {
      buffer.append(term: 1, payload: [UInt8](repeating: 7, count: 20 + Int(buffer.lastIndex) % 300).span.bytes)
      let index = buffer.lastIndex
      log.append(buffer.batch(from: index, through: index), hardState: HardState(term: 1, vote: 1, commit: index))
      if left == 3 { log.compact(through: index, term: 1) }
      guard (try? log.commitBatch()) != nil else { return Seed() }
      if log.counters.recycledSegments > 2 { left -= 1 }
    }
    return seed(of: disk)
  }

  private func seed(of disk: SimulatedFileSystem) -> Seed {
    guard let name = (try? disk.list(directory))?.last(where: { $0.hasSuffix(".wal") }) else { return Seed() }
    let path = directory + "/" + name
    return Seed(path: path, bytes: disk.contents(of: path) ?? [])
  }

  private var options: LogOptions {
    LogOptions(owner: 7, segmentBytes: 4096, blockBytes: blockBytes, zeroFill: false, memorySegmentBytes: 4096)
  }

  func run(_ input: Span<UInt8>) {
    guard input.count > 2 else { return }
    let seed = input[0] & 8 == 0 ? fresh : recycled
    guard var file = Overlay(of: input, on: seed.bytes, stepBytes: 16) else { return }
    if input[0] & 1 != 0 { file.change { LogFormat.repairChecksums(&$0) } }
    if input[0] & 2 != 0 { file.cut() }
    open(file.bytes, as: seed.path, isWrittenTo: input[0] & 4 != 0)
  }

  private func open(_ bytes: [UInt8], as path: String, isWrittenTo: Bool) {
    let disk = SimulatedFileSystem()
    try? disk.createDirectory(directory)
    disk.setContents(of: path, to: bytes)
    let snapshot = SnapshotMetadata(index: 1 << 61, term: 1)
    guard isWrittenTo else {
      _ = try? LogInspector.inspect(fileSystem: disk, directory: directory)
      return
    }
    guard
      let (log, recovered) = try? WriteAheadLog.open(
        fileSystem: disk, directory: directory, options: options, snapshot: snapshot)
    else { return }
    let buffer = recovered.takeLog()
    precondition(buffer.lastIndex >= buffer.anchorIndex)
    // The snapshot lies behind anything that a log of this size can hold, so the log was emptied.
    precondition(buffer.count == 0 && buffer.anchorIndex == snapshot.index)
    var more = LogBuffer(configuration: .init(segmentBytes: 4096), anchorIndex: snapshot.index, anchorTerm: 1)
    more.append(term: 2, payload: [UInt8](repeating: 1, count: 3).span.bytes)
    log.append(more.batch(from: snapshot.index + 1, through: snapshot.index + 1))
    guard (try? log.commitBatch()) != nil else { fatalError("a log that was opened could not be written to") }
    disk.crash(survivalPerMille: 0)
    guard
      let (_, again) = try? WriteAheadLog.open(
        fileSystem: disk, directory: directory, options: options, snapshot: snapshot)
    else { fatalError("a log that was written to could not be opened again") }
    precondition(again.takeLog().lastIndex == snapshot.index + 1, "an acknowledged entry is gone")
  }
}

nonisolated(unsafe) let fuzzer = LogFuzzer()

@_cdecl("FuzzLogRecords_main")
func fuzzLogRecordsMain(
  _ argumentCount: Int32, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> Int32 {
  cfuzz_run(argumentCount, arguments) { bytes, count in
    fuzzer.run(UnsafeBufferPointer(start: bytes, count: count).span)
    return 0
  }
}
