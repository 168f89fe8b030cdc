#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

extension FileError: CustomStringConvertible {
  /// No space is left, or the quota is used up.
  public var isDiskFull: Bool { code == ENOSPC || code == EDQUOT }

  /// The file system does not know the mode of writing.
  var isInvalidArgument: Bool { code == EINVAL || code == EOPNOTSUPP }

  /// There is no such file.
  public var isMissing: Bool { code == ENOENT }

  public var description: String {
    let text = unsafe strerror(code).map { unsafe String(cString: $0) } ?? "error"
    return "\(operation.rawValue) \(path): \(text) (errno \(code))"
  }
}

extension StorageError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .fileFailure(let error):
      "storage failed: \(error). Nothing is acknowledged any more; check the disk, then restart the node"
    case .diskFull(let error):
      "the disk is full: \(error). The log is intact and takes nothing more; make space, then restart the node"
    case .corrupted(let place):
      "\(place.path) is damaged at byte \(place.offsetBytes): \(place.reason). Bytes that were durable have changed, so "
        + "this node must not vote with them: remove its data directory and let it join again as a new member"
    case .wrongOwner(let path, let expected, let found):
      "\(path) belongs to node \(found), not to node \(expected). Check the data directory and the node's id"
    case .locked(let path):
      "\(path) is used by another process. Stop that one first, or choose another data directory"
    case .unknownVersion(let path, let version):
      "\(path) has format version \(version), which this program does not know. Use the program that wrote it, or newer"
    case .snapshotMissing(let anchor, let newest):
      "the log begins behind entry \(anchor), but the newest readable snapshot ends at entry \(newest). Restore the "
        + "snapshot, or remove the data directory and let the node join again as a new member"
    case .closed:
      "the log is closed"
    }
  }
}
