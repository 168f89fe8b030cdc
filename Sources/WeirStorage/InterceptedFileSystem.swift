/// Another file system with somebody asked before each operation, who may let it fail, hold it up, or just watch: how tests
/// let a real node meet a failing disk at a place of their choice.
public final class InterceptedFileSystem: FileSystem {
  /// Called before an operation on a path, on the thread that does it; what it throws is what the operation throws.
  public typealias Interceptor = @Sendable (FileError.Operation, String) throws(FileError) -> Void

  private let base: any FileSystem
  private let interceptor: Interceptor

  public init(_ base: any FileSystem, interceptor: @escaping Interceptor) {
    self.base = base
    self.interceptor = interceptor
  }

  public func createDirectory(_ path: String) throws(FileError) {
    try interceptor(.createDirectory, path)
    try base.createDirectory(path)
  }

  public func list(_ directory: String) throws(FileError) -> [String] {
    try interceptor(.list, directory)
    return try base.list(directory)
  }

  public func create(_ path: String, mode: WriteMode) throws(FileError) -> any File {
    try interceptor(.create, path)
    return InterceptedFile(try base.create(path, mode: mode), path, interceptor)
  }

  public func open(_ path: String, mode: WriteMode) throws(FileError) -> any File {
    try interceptor(.open, path)
    return InterceptedFile(try base.open(path, mode: mode), path, interceptor)
  }

  public func openForReading(_ path: String) throws(FileError) -> any File {
    try interceptor(.open, path)
    return InterceptedFile(try base.openForReading(path), path, interceptor)
  }

  public func rename(_ path: String, to newPath: String) throws(FileError) {
    try interceptor(.rename, path)
    try base.rename(path, to: newPath)
  }

  public func remove(_ path: String) throws(FileError) {
    try interceptor(.remove, path)
    try base.remove(path)
  }

  public func synchronizeDirectory(_ path: String) throws(FileError) {
    try interceptor(.synchronizeDirectory, path)
    try base.synchronizeDirectory(path)
  }

  public func lock(_ path: String) throws(FileError) -> (any File)? {
    try interceptor(.lock, path)
    return try base.lock(path)
  }
}

/// A file of an `InterceptedFileSystem`.
private final class InterceptedFile: File {
  private let base: any File
  private let path: String
  private let interceptor: InterceptedFileSystem.Interceptor

  init(_ base: any File, _ path: String, _ interceptor: @escaping InterceptedFileSystem.Interceptor) {
    self.base = base
    self.path = path
    self.interceptor = interceptor
  }

  func sizeBytes() throws(FileError) -> Int {
    try interceptor(.size, path)
    return try base.sizeBytes()
  }

  func read(into buffer: inout MutableRawSpan, at offset: Int) throws(FileError) -> Int {
    try interceptor(.read, path)
    return try base.read(into: &buffer, at: offset)
  }

  func write(_ bytes: RawSpan, at offset: Int) throws(FileError) {
    try interceptor(.write, path)
    try base.write(bytes, at: offset)
  }

  func synchronizeData() throws(FileError) {
    try interceptor(.synchronizeData, path)
    try base.synchronizeData()
  }

  func reserve(byteCount: Int) throws(FileError) {
    try interceptor(.reserve, path)
    try base.reserve(byteCount: byteCount)
  }

  func truncate(toBytes byteCount: Int) throws(FileError) {
    try interceptor(.truncate, path)
    try base.truncate(toBytes: byteCount)
  }
}
