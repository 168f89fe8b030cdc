import Glibc

/// Why the transport could not do what was asked.
public enum TransportError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The host has no address here.
  case unresolvableHost(String)
  /// A system call failed with this `errno`.
  case systemCall(String, errno: Int32)
  /// The address to listen on is in use or not of this machine.
  case cannotListen(String, errno: Int32)

  public var description: String {
    switch self {
    case .unresolvableHost(let host):
      "'\(host)' has no address; give host:port with a numeric address or a name that resolves"
    case .systemCall(let call, let code):
      "\(call) failed: \(unsafe String(cString: strerror(code))) (errno \(code))"
    case .cannotListen(let address, let code):
      "cannot listen on \(address): \(unsafe String(cString: strerror(code))) (errno \(code)); choose another address"
    }
  }
}
