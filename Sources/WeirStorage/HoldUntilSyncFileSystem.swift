import Synchronization
import WeirCore

/// Real files on which killing the process is a power cut: writes stay in this process's memory until they are synced,
/// and names until their directory is. Everybody in the process sees them at once.
///
/// `kill -9` alone proves nothing about syncing, as the operating system keeps what the process wrote. With this file
/// system in between, what was not synced is gone with the process; no root, no kernel module, no other disk is needed.
public final class HoldUntilSyncFileSystem: FileSystem {
  private let base = RealFileSystem()
  private let state: Mutex<State>

  private enum NameChange {
    case link(HeldFile, String)
    case rename(HeldFile, String)
    case remove(HeldFile)
  }

  private struct State {
    /// The files of each directory that was touched, as everybody here sees them.
    var names: [String: [String: HeldFile?]] = [:]
    var pending: [String: [NameChange]] = [:]
    var nextHidden = 0
    var leaks: SplitMix64?
  }

  /// - Parameter leakSeed: if there is one, some sectors of some writes reach the file before they are synced, in any
  ///   order, as an operating system's write-back does: a kill then also tears writes.
  public init(leakSeed: UInt64? = nil) {
    state = Mutex(State(leaks: leakSeed.map { SplitMix64(seed: $0) }))
  }

  private static var hiddenPrefix: String { ".held-" }

  private static func split(_ path: String) -> (directory: String, name: String) {
    guard let slash = path.lastIndex(of: "/") else { return (".", path) }
    return (String(path[..<slash]), String(path[path.index(after: slash)...]))
  }

  /// Reads a directory the first time it is touched, and removes what an earlier process left unlinked in it.
  private func touch(_ directory: String, _ state: inout State) throws(FileError) {
    guard state.names[directory] == nil else { return }
    var names: [String: HeldFile?] = [:]
    for name in try base.list(directory) {
      if name.hasPrefix(Self.hiddenPrefix) {
        try base.remove(directory + "/" + name)
      } else {
        names.updateValue(nil, forKey: name)
      }
    }
    state.names[directory] = names
  }

  private func perform<Value: Sendable>(
    _ path: String, _ body: (inout State, _ directory: String, _ name: String) throws(FileError) -> Value
  ) throws(FileError) -> Value {
    let (directory, name) = Self.split(path)
    let result: Result<Value, FileError> = state.withLock { state in
      do throws(FileError) {
        try touch(directory, &state)
        return .success(try body(&state, directory, name))
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }

  /// The file of a name, opened for the first time if need be.
  private func find(
    _ path: String, _ operation: FileError.Operation, _ state: inout State, _ directory: String, _ name: String
  ) throws(FileError) -> HeldFile {
    guard let known = state.names[directory]?[name] else {
      throw FileError(operation: operation, path: path, code: SimulatedFileSystem.missing)
    }
    if let known { return known }
    let file = HeldFile(real: try base.open(path, mode: .buffered), realPath: path)
    state.names[directory]?.updateValue(file, forKey: name)
    return file
  }

  public func createDirectory(_ path: String) throws(FileError) { try base.createDirectory(path) }

  public func list(_ directory: String) throws(FileError) -> [String] {
    try perform(directory + "/.") { state, _, _ throws(FileError) in
      try touch(directory, &state)
      return state.names[directory]?.keys.sorted() ?? []
    }
  }

  public func create(_ path: String, mode: WriteMode) throws(FileError) -> any File {
    try perform(path) { state, directory, name throws(FileError) in
      guard state.names[directory]?[name] == nil else { throw FileError(operation: .create, path: path, code: 17) }
      state.nextHidden += 1
      let hidden = "\(directory)/\(Self.hiddenPrefix)\(state.nextHidden)"
      let file = HeldFile(real: try base.create(hidden, mode: .buffered), realPath: hidden)
      state.names[directory]?.updateValue(file, forKey: name)
      state.pending[directory, default: []].append(.link(file, path))
      return HeldHandle(system: self, file: file, path: path, mode: mode)
    }
  }

  public func open(_ path: String, mode: WriteMode) throws(FileError) -> any File {
    try perform(path) { state, directory, name throws(FileError) in
      HeldHandle(
        system: self, file: try find(path, .open, &state, directory, name), path: path, mode: mode)
    }
  }

  public func openForReading(_ path: String) throws(FileError) -> any File { try open(path, mode: .buffered) }

  public func rename(_ path: String, to newPath: String) throws(FileError) {
    try perform(path) { state, directory, name throws(FileError) in
      let file = try find(path, .rename, &state, directory, name)
      let target = Self.split(newPath)
      guard target.directory == directory else { throw FileError(operation: .rename, path: path, code: 18) }
      state.names[directory]?.removeValue(forKey: name)
      state.names[directory]?.updateValue(file, forKey: target.name)
      state.pending[directory, default: []].append(.rename(file, newPath))
    }
  }

  public func remove(_ path: String) throws(FileError) {
    try perform(path) { state, directory, name throws(FileError) in
      let file = try find(path, .remove, &state, directory, name)
      state.names[directory]?.removeValue(forKey: name)
      state.pending[directory, default: []].append(.remove(file))
    }
  }

  public func synchronizeDirectory(_ path: String) throws(FileError) {
    try perform(path + "/.") { state, _, _ throws(FileError) in
      for change in state.pending.removeValue(forKey: path) ?? [] {
        switch change {
        case .link(let file, let target), .rename(let file, let target):
          try base.rename(file.realPath, to: target)
          file.realPath = target
        case .remove(let file):
          try base.remove(file.realPath)
        }
      }
    }
  }

  public func lock(_ path: String) throws(FileError) -> (any File)? { try base.lock(path) }

  fileprivate func withFile<Value: Sendable>(
    _ file: HeldFile, _ body: (HeldFile) throws(FileError) -> Value
  ) throws(FileError) -> Value {
    let result: Result<Value, FileError> = state.withLock { _ in
      do throws(FileError) {
        return .success(try body(file))
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }

  /// Lets a part of a write through early, if the seed says so.
  fileprivate func leak(_ file: HeldFile, _ bytes: [UInt8], at offset: Int) throws(FileError) {
    let sectors: [Range<Int>] = state.withLock { state in
      guard var generator = state.leaks else { return [] }
      defer { state.leaks = generator }
      guard generator.below(4) == 0 else { return [] }
      return stride(from: 0, to: bytes.count, by: SimulatedFileSystem.sectorBytes).compactMap { start in
        generator.below(2) == 0 ? start..<min(start + SimulatedFileSystem.sectorBytes, bytes.count) : nil
      }
    }
    for sector in sectors { try file.writeThrough(Array(bytes[sector]), at: offset + sector.lowerBound) }
  }
}

/// A file's real part, and what is held back. Used under the lock of its file system; that is why it may cross threads.
private final class HeldFile: @unchecked Sendable {
  private enum Change {
    case write(offset: Int, bytes: [UInt8])
    case resize(Int)
  }

  let real: any File
  var realPath: String
  private var held: [Change] = []

  init(real: any File, realPath: String) {
    self.real = real
    self.realPath = realPath
  }

  func sizeBytes() throws(FileError) -> Int {
    var size = try real.sizeBytes()
    for change in held {
      switch change {
      case .write(let offset, let bytes): size = max(size, offset + bytes.count)
      case .resize(let count): size = count
      }
    }
    return size
  }

  func read(at offset: Int, count: Int) throws(FileError) -> [UInt8] {
    let end = min(offset + count, try sizeBytes())
    guard offset < end else { return [] }
    let buffer = AlignedBuffer(capacity: end - offset)
    var span = unsafe MutableRawSpan(_unsafeBytes: buffer.bytes(in: 0..<end - offset))
    _ = try real.read(into: &span, at: offset)
    var bytes = unsafe Array(buffer.bytes(in: 0..<end - offset))
    for change in held {
      switch change {
      case .write(let start, let new):
        let lower = max(start, offset)
        let upper = min(start + new.count, end)
        guard lower < upper else { continue }
        bytes.replaceSubrange(lower - offset..<upper - offset, with: new[lower - start..<upper - start])
      case .resize(let size):
        guard size < end else { continue }
        for position in max(size, offset)..<end { bytes[position - offset] = 0 }
      }
    }
    return bytes
  }

  func hold(write bytes: [UInt8], at offset: Int) { held.append(.write(offset: offset, bytes: bytes)) }
  func hold(resize count: Int) { held.append(.resize(count)) }

  func release() throws(FileError) {
    for change in held {
      switch change {
      case .write(let offset, let bytes): try writeThrough(bytes, at: offset)
      case .resize(let count): try real.truncate(toBytes: count)
      }
    }
    held.removeAll()
  }

  func writeThrough(_ bytes: [UInt8], at offset: Int) throws(FileError) {
    try real.write(unsafe bytes.span.bytes, at: offset)
  }
}

/// One opening of a held file.
private final class HeldHandle: File {
  let system: HoldUntilSyncFileSystem
  let file: HeldFile
  let path: String
  let mode: WriteMode

  init(system: HoldUntilSyncFileSystem, file: HeldFile, path: String, mode: WriteMode) {
    self.system = system
    self.file = file
    self.path = path
    self.mode = mode
  }

  func sizeBytes() throws(FileError) -> Int {
    try system.withFile(file) { file throws(FileError) in try file.sizeBytes() }
  }

  func read(into buffer: inout MutableRawSpan, at offset: Int) throws(FileError) -> Int {
    let count = buffer.byteCount
    let bytes = try system.withFile(file) { file throws(FileError) in try file.read(at: offset, count: count) }
    unsafe buffer.withUnsafeMutableBytes { target in unsafe target.copyBytes(from: bytes) }
    return bytes.count
  }

  func write(_ bytes: RawSpan, at offset: Int) throws(FileError) {
    let copy = unsafe bytes.withUnsafeBytes { unsafe Array($0) }
    try system.withFile(file) { file throws(FileError) in
      file.hold(write: copy, at: offset)
      if mode == .direct { try file.release() }
    }
    if mode != .direct { try system.leak(file, copy, at: offset) }
  }

  func synchronizeData() throws(FileError) {
    try system.withFile(file) { file throws(FileError) in try file.release() }
  }

  func reserve(byteCount: Int) throws(FileError) {
    try system.withFile(file) { file throws(FileError) in
      if try file.sizeBytes() < byteCount { file.hold(resize: byteCount) }
    }
  }

  func truncate(toBytes byteCount: Int) throws(FileError) {
    try system.withFile(file) { file throws(FileError) in file.hold(resize: byteCount) }
  }
}
