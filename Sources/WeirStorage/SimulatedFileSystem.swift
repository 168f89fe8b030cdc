import Synchronization
import WeirCore

/// A disk in memory that does what real ones are known to do, the same way for the same seed.
///
/// Writes go to the file that everybody sees at once, and to a list of those that are not durable yet. `synchronizeData`
/// makes them durable; `crash` decides which of the others survive, sector by sector and in any order, and takes back the
/// names that were not made durable. Faults (`SimulatedFaults`) strike while it is in use.
public final class SimulatedFileSystem: FileSystem {
  /// A part of a disk that is written whole or not at all, in bytes.
  public static var sectorBytes: Int { 512 }

  /// A write that a crash may take back.
  public struct PendingWrite: Sendable, Hashable {
    public var path: String
    public var offset: Int
    public var byteCount: Int
  }

  private let state: Mutex<State>

  /// - Parameters:
  ///   - seed: what decides about faults and crashes.
  ///   - faults: what strikes, and how often.
  public init(seed: UInt64 = 0, faults: SimulatedFaults = .init()) {
    state = Mutex(State(generator: SplitMix64(seed: seed), faults: faults))
  }

  private struct Inode {
    enum Change {
      case write(offset: Int, bytes: [UInt8])
      case resize(Int)
    }

    var path: String
    var visible: [UInt8] = []
    var durable: [UInt8] = []
    var pending: [Change] = []
  }

  private enum NameChange {
    case add(String, inode: Int)
    case remove(String)
  }

  private struct State {
    var generator: SplitMix64
    var faults: SimulatedFaults
    var inodes: [Inode] = []
    var visibleNames: [String: Int] = [:]
    var durableNames: [String: Int] = [:]
    var pendingNames: [NameChange] = []
    var directories: Set<String> = []
    var locks: [String: Int] = [:]
    var nextLock = 0
    var operations = 0
    /// Files opened before a crash are dead afterwards.
    var life = 0
  }

  // MARK: What tests and the simulator do to it

  /// What strikes from now on.
  public var faults: SimulatedFaults {
    get { state.withLock { $0.faults } }
    set { state.withLock { $0.faults = newValue } }
  }

  /// How many operations there have been: what `SimulatedFaults.failures` counts.
  public var operationCount: Int { state.withLock { $0.operations } }

  /// The writes that a crash may take back, oldest first.
  public var pendingWrites: [PendingWrite] {
    state.withLock { state in
      state.inodes.flatMap { inode in
        inode.pending.compactMap { change in
          guard case .write(let offset, let bytes) = change else { return nil }
          return PendingWrite(path: inode.path, offset: offset, byteCount: bytes.count)
        }
      }
    }
  }

  /// Power fails: of what is not durable, each sector survives or not, as the seed decides. Everybody who has a file open
  /// finds it dead.
  /// - Parameter survivalPerMille: how likely each sector survives; drawn anew per crash if nil.
  public func crash(survivalPerMille: Int? = nil) {
    state.withLock { state in
      let choices = [0, 100, 500, 900, 1000]
      let survival = survivalPerMille ?? choices[state.generator.below(choices.count)]
      for inode in state.inodes.indices {
        var changes = state.inodes[inode].pending
        // Any order: of two writes to one sector, either may be the last.
        if state.faults.reordersAtCrash { changes.shuffle(using: &state.generator) }
        for change in changes {
          for piece in Self.sectors(of: change) where state.generator.below(1000) < survival {
            Self.apply(piece, to: &state.inodes[inode].durable)
          }
        }
      }
      let kept = state.pendingNames.isEmpty ? 0 : state.generator.below(state.pendingNames.count + 1)
      Self.restart(&state, keepingNames: kept)
    }
  }

  /// Power fails, and exactly those writes survive whole that `isKept` says, asked by their place in `pendingWrites`.
  /// All names survive.
  public func crash(keeping isKept: (Int) -> Bool) {
    state.withLock { state in
      var position = 0
      for inode in state.inodes.indices {
        for change in state.inodes[inode].pending {
          if case .write = change {
            if isKept(position) { Self.apply(change, to: &state.inodes[inode].durable) }
            position += 1
          } else {
            Self.apply(change, to: &state.inodes[inode].durable)
          }
        }
      }
      Self.restart(&state, keepingNames: state.pendingNames.count)
    }
  }

  /// The process ends, the machine goes on: nothing is lost.
  public func kill() {
    state.withLock { state in
      state.life += 1
      state.locks.removeAll()
    }
  }

  /// The bytes of a file as everybody sees them, or nil if there is none.
  public func contents(of path: String) -> [UInt8]? {
    state.withLock { state in state.visibleNames[path].map { state.inodes[$0].visible } }
  }

  /// Puts bytes into a file, durably, as if they had always been there.
  public func setContents(of path: String, to bytes: [UInt8]) {
    state.withLock { state in
      if let number = state.visibleNames[path] {
        state.inodes[number].visible = bytes
        state.inodes[number].durable = bytes
        state.inodes[number].pending = []
      } else {
        state.inodes.append(Inode(path: path, visible: bytes, durable: bytes))
        state.visibleNames[path] = state.inodes.count - 1
        state.durableNames[path] = state.inodes.count - 1
      }
    }
  }

  /// Flips a bit on the medium.
  public func flipBit(_ bit: Int, ofByte offset: Int, in path: String) {
    state.withLock { state in
      guard let number = state.visibleNames[path], offset < state.inodes[number].visible.count else { return }
      state.inodes[number].visible[offset] ^= 1 << UInt8(bit & 7)
      if offset < state.inodes[number].durable.count {
        state.inodes[number].durable[offset] ^= 1 << UInt8(bit & 7)
      }
    }
  }

  /// A disk of its own that is in the same state, with nobody using it. Faults do not come along.
  public func copy(seed: UInt64 = 0) -> SimulatedFileSystem {
    let other = SimulatedFileSystem(seed: seed)
    let (inodes, visible, durable, pending, directories) = state.withLock {
      ($0.inodes, $0.visibleNames, $0.durableNames, $0.pendingNames, $0.directories)
    }
    other.state.withLock { state in
      state.inodes = inodes
      state.visibleNames = visible
      state.durableNames = durable
      state.pendingNames = pending
      state.directories = directories
    }
    return other
  }

  private static func restart(_ state: inout State, keepingNames kept: Int) {
    for change in state.pendingNames.prefix(kept) { apply(change, to: &state.durableNames) }
    state.pendingNames.removeAll()
    state.visibleNames = state.durableNames
    for inode in state.inodes.indices {
      state.inodes[inode].pending.removeAll()
      state.inodes[inode].visible = state.inodes[inode].durable
    }
    state.locks.removeAll()
    state.life += 1
  }

  private static func sectors(of change: Inode.Change) -> [Inode.Change] {
    guard case .write(let offset, let bytes) = change else { return [change] }
    var pieces: [Inode.Change] = []
    var start = 0
    while start < bytes.count {
      let end = min(bytes.count, ((offset + start) / sectorBytes + 1) * sectorBytes - offset)
      pieces.append(.write(offset: offset + start, bytes: Array(bytes[start..<end])))
      start = end
    }
    return pieces
  }

  private static func apply(_ change: Inode.Change, to bytes: inout [UInt8]) {
    switch change {
    case .resize(let count):
      if count < bytes.count {
        bytes.removeLast(bytes.count - count)
      } else {
        bytes.append(contentsOf: repeatElement(0, count: count - bytes.count))
      }
    case .write(let offset, let new):
      if bytes.count < offset + new.count {
        bytes.append(contentsOf: repeatElement(0, count: offset + new.count - bytes.count))
      }
      bytes.replaceSubrange(offset..<offset + new.count, with: new)
    }
  }

  private static func apply(_ change: NameChange, to names: inout [String: Int]) {
    switch change {
    case .add(let name, let inode): names[name] = inode
    case .remove(let name): names[name] = nil
    }
  }

  // MARK: FileSystem

  /// Counts an operation and lets the faults have a say.
  private static func begin(
    _ state: inout State, _ operation: FileError.Operation, _ path: String
  ) throws(FileError) {
    defer { state.operations += 1 }
    if let code = state.faults.code(for: operation, number: state.operations, &state.generator) {
      throw FileError(operation: operation, path: path, code: code)
    }
  }

  private func perform<Value: Sendable>(
    _ operation: FileError.Operation, _ path: String, _ body: (inout State) throws(FileError) -> Value
  ) throws(FileError) -> Value {
    let result: Result<Value, FileError> = state.withLock { state in
      do throws(FileError) {
        try Self.begin(&state, operation, path)
        return .success(try body(&state))
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }

  public func createDirectory(_ path: String) throws(FileError) {
    try perform(.createDirectory, path) { state in _ = state.directories.insert(path) }
  }

  public func list(_ directory: String) throws(FileError) -> [String] {
    try perform(.list, directory) { state throws(FileError) in
      guard state.directories.contains(directory) else {
        throw FileError(operation: .list, path: directory, code: Self.missing)
      }
      let prefix = directory + "/"
      return state.visibleNames.keys.filter { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) }
        .filter { !$0.contains("/") }.sorted()
    }
  }

  public func create(_ path: String, mode: WriteMode) throws(FileError) -> any File {
    let (number, life) = try perform(.create, path) { state throws(FileError) in
      guard state.visibleNames[path] == nil else { throw FileError(operation: .create, path: path, code: 17) }
      state.inodes.append(Inode(path: path))
      let number = state.inodes.count - 1
      state.visibleNames[path] = number
      state.pendingNames.append(.add(path, inode: number))
      return (number, state.life)
    }
    return SimulatedFile(system: self, inode: number, path: path, mode: mode, life: life)
  }

  public func open(_ path: String, mode: WriteMode) throws(FileError) -> any File {
    let (number, life) = try perform(.open, path) { state throws(FileError) in
      guard let number = state.visibleNames[path] else {
        throw FileError(operation: .open, path: path, code: Self.missing)
      }
      return (number, state.life)
    }
    return SimulatedFile(system: self, inode: number, path: path, mode: mode, life: life)
  }

  public func openForReading(_ path: String) throws(FileError) -> any File { try open(path, mode: .buffered) }

  public func rename(_ path: String, to newPath: String) throws(FileError) {
    try perform(.rename, path) { state throws(FileError) in
      guard let number = state.visibleNames.removeValue(forKey: path) else {
        throw FileError(operation: .rename, path: path, code: Self.missing)
      }
      state.visibleNames[newPath] = number
      state.inodes[number].path = newPath
      state.pendingNames.append(.add(newPath, inode: number))
      state.pendingNames.append(.remove(path))
    }
  }

  public func remove(_ path: String) throws(FileError) {
    try perform(.remove, path) { state throws(FileError) in
      guard state.visibleNames.removeValue(forKey: path) != nil else {
        throw FileError(operation: .remove, path: path, code: Self.missing)
      }
      state.pendingNames.append(.remove(path))
    }
  }

  public func synchronizeDirectory(_ path: String) throws(FileError) {
    try perform(.synchronizeDirectory, path) { state in
      for change in state.pendingNames { Self.apply(change, to: &state.durableNames) }
      state.pendingNames.removeAll()
    }
  }

  public func lock(_ path: String) throws(FileError) -> (any File)? {
    let held: (Int, Int)? = try perform(.lock, path) { state in
      guard state.locks[path] == nil else { return nil }
      state.nextLock += 1
      state.locks[path] = state.nextLock
      return (state.nextLock, state.life)
    }
    return held.map { number, life in SimulatedLock(system: self, path: path, number: number, life: life) }
  }

  fileprivate func unlock(_ path: String, number: Int) {
    state.withLock { state in
      if state.locks[path] == number { state.locks[path] = nil }
    }
  }

  static var missing: Int32 { 2 }
  static var inputOutputError: Int32 { 5 }
  static var badDescriptor: Int32 { 9 }
  static var noSpace: Int32 { 28 }

  // MARK: Files

  private func performOnFile<Value: Sendable>(
    _ operation: FileError.Operation, _ file: SimulatedFile,
    _ body: (inout State) throws(FileError) -> Value
  ) throws(FileError) -> Value {
    try perform(operation, file.path) { state throws(FileError) in
      guard state.life == file.life else {
        throw FileError(operation: operation, path: file.path, code: Self.badDescriptor)
      }
      return try body(&state)
    }
  }

  fileprivate func size(_ file: SimulatedFile) throws(FileError) -> Int {
    try performOnFile(.size, file) { state in state.inodes[file.inode].visible.count }
  }

  fileprivate func read(_ file: SimulatedFile, at offset: Int, count: Int) throws(FileError) -> ArraySlice<UInt8> {
    try performOnFile(.read, file) { state in
      let bytes = state.inodes[file.inode].visible
      guard offset < bytes.count else { return [] }
      return bytes[offset..<min(offset + count, bytes.count)]
    }
  }

  fileprivate func write(_ file: SimulatedFile, _ bytes: [UInt8], at offset: Int) throws(FileError) {
    try performOnFile(.write, file) { state throws(FileError) in
      try Self.checkSpace(&state, growing: file, to: offset + bytes.count, .write)
      if let part = state.faults.tornWrite(&state.generator, byteCount: bytes.count) {
        Self.record(.write(offset: offset, bytes: Array(bytes[..<part])), &state, file)
        throw FileError(operation: .write, path: file.path, code: Self.inputOutputError)
      }
      var place = offset
      if state.faults.strikes(state.faults.misdirectedWritesPerMillion, &state.generator) {
        let sectors = max(1, state.inodes[file.inode].visible.count / Self.sectorBytes)
        place = state.generator.below(sectors) * Self.sectorBytes
      }
      Self.record(.write(offset: place, bytes: bytes), &state, file)
      if file.mode == .direct { Self.makeDurable(&state, file) }
    }
  }

  fileprivate func synchronize(_ file: SimulatedFile) throws(FileError) {
    try performOnFile(.synchronizeData, file) { state throws(FileError) in
      if state.faults.strikes(state.faults.failedSyncsPerMillion, &state.generator) {
        // The kernel marks the pages clean: they are seen until the power fails, and no later sync writes them.
        state.inodes[file.inode].pending.removeAll()
        throw FileError(operation: .synchronizeData, path: file.path, code: Self.inputOutputError)
      }
      if state.faults.strikes(state.faults.lostSyncsPerMillion, &state.generator) { return }
      Self.makeDurable(&state, file)
    }
  }

  fileprivate func resize(
    _ file: SimulatedFile, _ operation: FileError.Operation, to count: Int, onlyGrowing: Bool
  ) throws(FileError) {
    try performOnFile(operation, file) { state throws(FileError) in
      if onlyGrowing, count <= state.inodes[file.inode].visible.count { return }
      try Self.checkSpace(&state, growing: file, to: count, operation)
      Self.record(.resize(count), &state, file)
    }
  }

  private static func checkSpace(
    _ state: inout State, growing file: SimulatedFile, to count: Int, _ operation: FileError.Operation
  ) throws(FileError) {
    guard let capacity = state.faults.capacityBytes else { return }
    let others = state.visibleNames.values.reduce(0) { $1 == file.inode ? $0 : $0 + state.inodes[$1].visible.count }
    let own = state.inodes[file.inode].visible.count
    if count > own, others + count > capacity {
      throw FileError(operation: operation, path: file.path, code: noSpace)
    }
  }

  private static func record(_ change: Inode.Change, _ state: inout State, _ file: SimulatedFile) {
    apply(change, to: &state.inodes[file.inode].visible)
    state.inodes[file.inode].pending.append(change)
  }

  private static func makeDurable(_ state: inout State, _ file: SimulatedFile) {
    for change in state.inodes[file.inode].pending { apply(change, to: &state.inodes[file.inode].durable) }
    state.inodes[file.inode].pending.removeAll(keepingCapacity: true)
  }
}

/// A file of the simulated disk.
private final class SimulatedFile: File {
  let system: SimulatedFileSystem
  let inode: Int
  let path: String
  let mode: WriteMode
  let life: Int

  init(system: SimulatedFileSystem, inode: Int, path: String, mode: WriteMode, life: Int) {
    self.system = system
    self.inode = inode
    self.path = path
    self.mode = mode
    self.life = life
  }

  func sizeBytes() throws(FileError) -> Int { try system.size(self) }

  func read(into buffer: inout MutableRawSpan, at offset: Int) throws(FileError) -> Int {
    let bytes = try system.read(self, at: offset, count: buffer.byteCount)
    unsafe buffer.withUnsafeMutableBytes { target in unsafe target.copyBytes(from: bytes) }
    return bytes.count
  }

  func write(_ bytes: RawSpan, at offset: Int) throws(FileError) {
    try system.write(self, unsafe bytes.withUnsafeBytes { unsafe Array($0) }, at: offset)
  }

  func synchronizeData() throws(FileError) { try system.synchronize(self) }

  func reserve(byteCount: Int) throws(FileError) {
    try system.resize(self, .reserve, to: byteCount, onlyGrowing: true)
  }

  func truncate(toBytes byteCount: Int) throws(FileError) {
    try system.resize(self, .truncate, to: byteCount, onlyGrowing: false)
  }
}

/// Holds a lock of the simulated disk.
private final class SimulatedLock: File {
  private let system: SimulatedFileSystem
  private let path: String
  private let number: Int

  init(system: SimulatedFileSystem, path: String, number: Int, life: Int) {
    self.system = system
    self.path = path
    self.number = number
  }

  deinit { system.unlock(path, number: number) }

  private var refusal: FileError { FileError(operation: .lock, path: path, code: SimulatedFileSystem.badDescriptor) }

  func sizeBytes() throws(FileError) -> Int { 0 }
  func read(into buffer: inout MutableRawSpan, at offset: Int) throws(FileError) -> Int { throw refusal }
  func write(_ bytes: RawSpan, at offset: Int) throws(FileError) { throw refusal }
  func synchronizeData() throws(FileError) { throw refusal }
  func reserve(byteCount: Int) throws(FileError) { throw refusal }
  func truncate(toBytes byteCount: Int) throws(FileError) { throw refusal }
}
