#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Files of the operating system.
public final class RealFileSystem: FileSystem {
  public init() {}

  public func createDirectory(_ path: String) throws(FileError) {
    if unsafe mkdir(path, 0o755) == 0 {
      try synchronizeDirectory(Self.parent(of: path))
      return
    }
    switch errno {
    case EEXIST: return
    case ENOENT:
      let parent = Self.parent(of: path)
      guard parent != path else { throw FileError(operation: .createDirectory, path: path, code: ENOENT) }
      try createDirectory(parent)
      if unsafe mkdir(path, 0o755) != 0, errno != EEXIST { throw error(.createDirectory, path) }
      try synchronizeDirectory(parent)
    default: throw error(.createDirectory, path)
    }
  }

  public func list(_ directory: String) throws(FileError) -> [String] {
    guard let stream = unsafe opendir(directory) else { throw error(.list, directory) }
    defer { unsafe closedir(stream) }
    var names: [String] = []
    while true {
      errno = 0
      guard let item = unsafe readdir(stream) else {
        if errno != 0 { throw error(.list, directory) }
        break
      }
      let name = unsafe withUnsafeBytes(of: &item.pointee.d_name) { bytes in
        unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  public func create(_ path: String, mode: WriteMode) throws(FileError) -> any File {
    try open(path, flags: O_RDWR | O_CREAT | O_EXCL | flags(of: mode), .create)
  }

  public func open(_ path: String, mode: WriteMode) throws(FileError) -> any File {
    try open(path, flags: O_RDWR | flags(of: mode), .open)
  }

  public func openForReading(_ path: String) throws(FileError) -> any File {
    try open(path, flags: O_RDONLY, .open)
  }

  public func rename(_ path: String, to newPath: String) throws(FileError) {
    if Self.systemRename(path, newPath) != 0 { throw error(.rename, path) }
  }

  public func remove(_ path: String) throws(FileError) {
    if unsafe unlink(path) != 0 { throw error(.remove, path) }
  }

  public func synchronizeDirectory(_ path: String) throws(FileError) {
    let descriptor = openDescriptor(path, O_RDONLY | O_DIRECTORY)
    guard descriptor >= 0 else { throw error(.synchronizeDirectory, path) }
    defer { close(descriptor) }
    if fsync(descriptor) != 0 { throw error(.synchronizeDirectory, path) }
  }

  public func lock(_ path: String) throws(FileError) -> (any File)? {
    let file = try open(path, flags: O_RDWR | O_CREAT, .lock)
    if flock(file.descriptor, LOCK_EX | LOCK_NB) == 0 { return file }
    if errno == EWOULDBLOCK { return nil }
    throw error(.lock, path)
  }

  private func open(_ path: String, flags: Int32, _ operation: FileError.Operation) throws(FileError) -> RealFile {
    let descriptor = openDescriptor(path, flags)
    guard descriptor >= 0 else { throw error(operation, path) }
    return RealFile(descriptor: descriptor, path: path)
  }

  private func openDescriptor(_ path: String, _ flags: Int32) -> Int32 {
    while true {
      let descriptor = Self.systemOpen(path, flags | O_CLOEXEC)
      if descriptor >= 0 || errno != EINTR { return descriptor }
    }
  }

  private static func systemOpen(_ path: String, _ flags: Int32) -> Int32 {
    #if canImport(Glibc)
      unsafe Glibc.open(path, flags, 0o644)
    #else
      unsafe Musl.open(path, flags, 0o644)
    #endif
  }

  private static func systemRename(_ path: String, _ newPath: String) -> Int32 {
    #if canImport(Glibc)
      unsafe Glibc.rename(path, newPath)
    #else
      unsafe Musl.rename(path, newPath)
    #endif
  }

  private func flags(of mode: WriteMode) -> Int32 {
    switch mode {
    case .buffered: 0
    case .direct: Self.directFlag | O_DSYNC
    case .uncached: Self.directFlag
    }
  }

  /// O_DIRECT, whose number differs by processor, and which the C headers hide from Swift.
  private static var directFlag: Int32 {
    #if arch(arm64) || arch(arm)
      0o200000
    #else
      0o40000
    #endif
  }

  private static func parent(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  private func error(_ operation: FileError.Operation, _ path: String) -> FileError {
    FileError(operation: operation, path: path, code: errno)
  }
}

/// A descriptor, closed with the last reference.
final class RealFile: File {
  let descriptor: Int32
  let path: String

  init(descriptor: Int32, path: String) {
    self.descriptor = descriptor
    self.path = path
  }

  deinit { close(descriptor) }

  func sizeBytes() throws(FileError) -> Int {
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else { throw error(.size) }
    return Int(status.st_size)
  }

  func read(into buffer: inout MutableRawSpan, at offset: Int) throws(FileError) -> Int {
    var done = 0
    let wanted = buffer.byteCount
    while done < wanted {
      let count = unsafe buffer.withUnsafeMutableBytes { bytes in
        unsafe pread(descriptor, bytes.baseAddress.map { unsafe $0 + done }, wanted - done, off_t(offset + done))
      }
      if count == 0 { break }
      if count > 0 {
        done += count
      } else if errno != EINTR {
        throw error(.read)
      }
    }
    return done
  }

  func write(_ bytes: RawSpan, at offset: Int) throws(FileError) {
    var done = 0
    let wanted = bytes.byteCount
    while done < wanted {
      let count = unsafe bytes.withUnsafeBytes { bytes in
        unsafe pwrite(descriptor, bytes.baseAddress.map { unsafe $0 + done }, wanted - done, off_t(offset + done))
      }
      if count > 0 {
        done += count
      } else if count == 0 {
        throw FileError(operation: .write, path: path, code: EIO)
      } else if errno != EINTR {
        throw error(.write)
      }
    }
  }

  func synchronizeData() throws(FileError) {
    // Not even after EINTR is it tried again: the pages may be marked clean by then.
    if fdatasync(descriptor) != 0 { throw error(.synchronizeData) }
  }

  func reserve(byteCount: Int) throws(FileError) {
    while true {
      let code = posix_fallocate(descriptor, 0, off_t(byteCount))
      if code == 0 { return }
      if code != EINTR { throw FileError(operation: .reserve, path: path, code: code) }
    }
  }

  func truncate(toBytes byteCount: Int) throws(FileError) {
    while ftruncate(descriptor, off_t(byteCount)) != 0 {
      if errno != EINTR { throw error(.truncate) }
    }
  }

  private func error(_ operation: FileError.Operation) -> FileError {
    FileError(operation: operation, path: path, code: errno)
  }
}
