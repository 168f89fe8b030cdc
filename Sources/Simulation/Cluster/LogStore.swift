import WeirCore
import WeirStorage

/// The real write-ahead log and snapshot files, on a disk that is simulated.
final class LogStore: DiskStore {
  private static let logDirectory = "/node/log"
  private static let snapshotDirectory = "/node/snapshots"

  private let options: LogOptions
  private var files: SimulatedFileSystem
  private var log: WriteAheadLog?
  private var snapshots: SnapshotStore?
  private let faults: SimulatedFaults
  /// The digest of a log up to an index, where it is known from elsewhere: files do not hold it.
  private let chainAt: (LogIndex) -> UInt64?
  private var isDamaged = false
  private var isFull = false
  private var areFaultsOn = false

  init(owner: NodeID, plan: SimulationPlan, chainAt: @escaping (LogIndex) -> UInt64?) throws(StoreFailure) {
    options = LogOptions(
      owner: owner, segmentBytes: plan.disk.segmentBytes, sync: .always, writeMode: .buffered, zeroFill: false)
    files = SimulatedFileSystem(seed: plan.seed &* 31 &+ owner)
    var faults = SimulatedFaults()
    faults.errorsPerMillion = plan.disk.errorPerMillion / 4
    faults.tornWritesPerMillion = plan.disk.errorPerMillion
    faults.failedSyncsPerMillion = plan.disk.errorPerMillion
    self.faults = faults
    self.chainAt = chainAt
    _ = try open()
  }

  func begin() {
    areFaultsOn = true
    setFaults()
  }

  func heal() {
    areFaultsOn = false
    isFull = false
    setFaults()
  }

  func setFull(_ isFull: Bool) {
    self.isFull = isFull
    setFaults()
  }

  private func setFaults() {
    var now = areFaultsOn ? faults : SimulatedFaults()
    // What is there already may be written over; nothing may grow.
    if isFull { now.capacityBytes = 0 }
    files.faults = now
  }

  /// Runs storage code, and says whether an error was to be expected: an injected one is, corruption only of a disk that
  /// was damaged.
  private func perform<Value>(_ body: () throws(StorageError) -> Value) throws(StoreFailure) -> Value {
    do throws(StorageError) {
      return try body()
    } catch {
      switch error {
      case .fileFailure, .diskFull, .closed: throw StoreFailure(text: "\(error)", isExpected: true)
      case .corrupted, .snapshotMissing: throw StoreFailure(text: "\(error)", isExpected: isDamaged, isFinal: true)
      // A flipped bit may make a header look like another's, too.
      default: throw StoreFailure(text: "\(error)", isExpected: isDamaged, isFinal: true)
      }
    }
  }

  func write(_ write: StableWrite, entries: EntryBatch) throws(StoreFailure) {
    guard let log, let snapshots else { throw StoreFailure(text: "the log is closed", isExpected: false) }
    try perform { () throws(StorageError) in
      if let snapshot = write.snapshot {
        let writer = try snapshots.create(snapshot.metadata)
        try writer.append(snapshot.data.span.bytes)
        _ = try writer.finish()
        if write.snapshotReplacesLog {
          log.reset(anchorIndex: snapshot.metadata.index, anchorTerm: snapshot.metadata.term)
        }
      }
      if !entries.isEmpty || write.hardState != nil { log.append(entries, hardState: write.hardState) }
      if write.compactIndex > 0 { log.compact(through: write.compactIndex, term: write.compactTerm) }
      if log.hasStaged { try log.writeBatch() }
    }
  }

  func synchronize() throws(StoreFailure) {
    guard let log else { throw StoreFailure(text: "the log is closed", isExpected: false) }
    try perform { () throws(StorageError) in try log.synchronize() }
  }

  func crash(_ random: inout RandomStream, tears: Bool) {
    log = nil
    snapshots = nil
    files.crash(survivalPerMille: tears ? random.between(0, 1000) : 0)
  }

  func kill() {
    // What the node's log thread does as soon as it has nothing else to do.
    try? log?.writeMark(durably: false)
    log = nil
    snapshots = nil
    files.kill()
  }

  func misdirectWrite(_ random: inout RandomStream) -> Bool {
    guard let log, log.failure == nil, !isFull, random.below(3) == 0 else { return false }
    files.faults = SimulatedFaults()
    files.faults.misdirectedWritesPerMillion = 1_000_000
    defer { setFaults() }
    // A batch that says what is known already: where it lands decides whether anything is lost, and recovery has to see it.
    log.restateHardState()
    do throws(StorageError) {
      try log.commitBatch()
    } catch {
      return false
    }
    isDamaged = true
    return true
  }

  func damage(_ random: inout RandomStream) -> String {
    files.faults = SimulatedFaults()
    defer { setFaults() }
    guard let names = try? files.list(Self.logDirectory), !names.isEmpty else { return "nothing" }
    let path = Self.logDirectory + "/" + random.pick(names)
    guard let contents = files.contents(of: path), !contents.isEmpty else { return "nothing" }
    // Where there is something: a flipped bit of unused space says nothing.
    let last = contents.lastIndex { $0 != 0 } ?? 0
    let offset = random.below(last + 1)
    isDamaged = true
    switch random.below(4) {
    case 0: return loseSector(at: offset, of: contents, path)
    case 1: return copySector(from: random.below(last + 1), to: offset, of: contents, path)
    default:
      files.flipBit(random.below(8), ofByte: offset, in: path)
      return "a bit of byte \(offset) of \(path) flips"
    }
  }

  /// A sector reads as zeros.
  private func loseSector(at offset: Int, of contents: [UInt8], _ path: String) -> String {
    var contents = contents
    let sector = Self.sector(of: offset, contents)
    contents.replaceSubrange(sector, with: repeatElement(0, count: sector.count))
    files.setContents(of: path, to: contents)
    return "the sector at \(sector.lowerBound) of \(path) reads as zeros"
  }

  /// A sector reads as another one does.
  private func copySector(from source: Int, to target: Int, of contents: [UInt8], _ path: String) -> String {
    var contents = contents
    let from = Self.sector(of: source, contents)
    let to = Self.sector(of: target, contents)
    guard from.count == to.count else { return "nothing changes" }
    contents.replaceSubrange(to, with: contents[from])
    files.setContents(of: path, to: contents)
    return "the sector at \(to.lowerBound) of \(path) reads as the one at \(from.lowerBound)"
  }

  private static func sector(of offset: Int, _ contents: [UInt8]) -> Range<Int> {
    let start = offset / SimulatedFileSystem.sectorBytes * SimulatedFileSystem.sectorBytes
    return start..<min(start + SimulatedFileSystem.sectorBytes, contents.count)
  }

  func wipe() {
    files = SimulatedFileSystem(seed: 1)
    isDamaged = false
  }

  func recover() throws(StoreFailure) -> StableImage { try open() }

  private func open() throws(StoreFailure) -> StableImage {
    let (options, files) = (options, files)
    let chainAt = chainAt
    let (image, log, snapshots) = try perform { () throws(StorageError) in
      let snapshots = try SnapshotStore.open(fileSystem: files, directory: Self.snapshotDirectory)
      var image = StableImage()
      if let newest = try snapshots.newest() {
        image.snapshot = Snapshot(metadata: newest.metadata, data: try Self.read(snapshots, newest))
        image.snapshotChain = RegisterMachine(decoding: image.snapshot.data)?.digest ?? 0
      }
      let (log, recovered) = try WriteAheadLog.open(
        fileSystem: files, directory: Self.logDirectory, options: options,
        snapshot: image.snapshot.isEmpty ? nil : image.snapshot.metadata)
      image.hardState = recovered.hardState
      Self.take(recovered.takeLog(), into: &image, chainAt)
      return (image, log, snapshots)
    }
    self.log = log
    self.snapshots = snapshots
    return image
  }

  private static func read(_ snapshots: SnapshotStore, _ stored: SnapshotStore.Stored) throws(StorageError) -> [UInt8] {
    let reader = try snapshots.reader(stored)
    var data: [UInt8] = []
    do {
      try reader.forEachChunk { chunk in chunk.withUnsafeBytes { data.append(contentsOf: $0) } }
    } catch let error as StorageError {
      throw error
    } catch {
      throw .closed
    }
    return data
  }

  private static func take(
    _ buffer: consuming LogBuffer, into image: inout StableImage, _ chainAt: (LogIndex) -> UInt64?
  ) {
    let anchor = buffer.anchorIndex
    let anchorChain = anchor == image.snapshot.metadata.index ? image.snapshotChain : chainAt(anchor) ?? 0
    image.reset(index: anchor, term: buffer.anchorTerm, chain: anchor == 0 ? 0 : anchorChain)
    guard buffer.count > 0 else { return }
    var chain = image.anchorChain
    var entries: [StoredEntry] = []
    buffer.batch(from: buffer.firstIndex, through: buffer.lastIndex).forEach { header, payload in
      chain = RegisterMachine.chain(chain, header, payload)
      entries.append(
        StoredEntry(
          term: header.term, kind: header.kind, payload: payload.withUnsafeBytes { [UInt8]($0) }, chain: chain))
    }
    for entry in entries { image.append(entry) }
  }
}
