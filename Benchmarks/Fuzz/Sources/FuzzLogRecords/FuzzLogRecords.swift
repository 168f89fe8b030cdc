import CFuzzDriver
import WeirCore
import WeirStorage

// The log's reader: whatever lies in a log's directory must be read or refused, in bounded memory, and what was read must
// still be there after it was opened, written to and opened again. The fuzzer guesses no checksums, so the first byte of
// the input may ask that they be put right: then the fields behind them are what is fuzzed.

final class LogFuzzer {
  private let directory = "/log"
  private let blockBytes = 256
  /// A log that was written properly, which inputs are laid over.
  private var seed: [UInt8] = []

  init() {
    let disk = SimulatedFileSystem()
    guard let log = try? WriteAheadLog.open(fileSystem: disk, directory: directory, options: options).log else {
      return
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
    seed = disk.contents(of: path) ?? []
  }

  private var path: String { directory + "/0000000000000001.wal" }

  private var options: LogOptions {
    LogOptions(owner: 7, segmentBytes: 4096, blockBytes: blockBytes, zeroFill: false, memorySegmentBytes: 4096)
  }

  func run(_ input: Span<UInt8>) {
    guard input.count > 2 else { return }
    var bytes = seed
    let start = Int(input[1]) * 16 % seed.count
    for index in 2..<input.count {
      let position = start + index - 2
      if position < bytes.count { bytes[position] = input[index] } else { bytes.append(input[index]) }
    }
    if bytes.count > 1 << 16 { return }
    if input[0] & 1 != 0 { LogFormat.repairChecksums(&bytes) }
    if input[0] & 2 != 0 { bytes.removeLast(bytes.count - min(bytes.count, start + input.count - 2)) }
    open(bytes, isWrittenTo: input[0] & 4 != 0)
  }

  private func open(_ bytes: [UInt8], isWrittenTo: Bool) {
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
