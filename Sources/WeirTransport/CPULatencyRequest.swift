import Glibc

/// Keeps the machine's processors from idle states that take them long to leave, for as long as this lives.
///
/// A lone operation of a cluster is a chain of sleeps and wake-ups: of followers by messages, of whoever wrote by the disk.
/// Each wake-up of a sleeping processor takes as long as its idle state takes to leave; in a virtual machine, where going
/// idle is an exit to the host and an interrupt of another processor is one too, that was 20 to 30 µs a piece, more than the
/// work in between. What is asked for here is the kernel's quality-of-service request for all processors, which `cyclictest`
/// makes too: https://docs.kernel.org/admin-guide/pm/cpuidle.html, "Power Management Quality of Service for CPUs".
///
/// Its price is power: with a limit of 0 idle processors spin (that time counts as idle, and is nobody's). Measured on two
/// quiet cores of an AMD EPYC under Firecracker, one write in flight on three nodes, log synced always (`bench explain --sync
/// always`, in turn with and without `--cpu-latency 0`), p50:
///
/// | | left as they are | 0 µs |
/// | --- | --- | --- |
/// | write | 287 to 329 µs, with 319 to 352 µs of CPU | 191 to 237 µs in 7 runs of 9, 265 and 287; 226 to 290 µs of CPU |
/// | bare round trip over loopback | 66 to 79 µs | 13 to 21 µs |
/// | that and the second of three bare durable writes | 210 to 319 µs | 127 to 172 µs |
public final class CPULatencyRequest: Sendable {
  /// The device that takes the request.
  public static let path = "/dev/cpu_dma_latency"

  private let descriptor: Int32

  /// - Parameter microseconds: how long a processor may take to leave its idle state, 0...`Int32.max`. 0: none but polling.
  /// - Throws: `CPULatencyError`.
  public init(microseconds: Int32) throws(CPULatencyError) {
    guard microseconds >= 0 else { throw .negative(microseconds) }
    descriptor = unsafe open(Self.path, O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .refused(errno: errno) }
    let count = unsafe withUnsafeBytes(of: microseconds) { bytes in
      unsafe write(descriptor, bytes.baseAddress, bytes.count)
    }
    guard count == 4 else {
      let code = errno
      close(descriptor)
      throw .refused(errno: code)
    }
  }

  /// The same of an option that may be left out: nil then, and nothing is asked of the machine.
  /// - Throws: `CPULatencyError`.
  public static func asked(_ microseconds: Int32?) throws(CPULatencyError) -> CPULatencyRequest? {
    guard let microseconds else { return nil }
    return try CPULatencyRequest(microseconds: microseconds)
  }

  deinit { close(descriptor) }
}

/// Why the processors' idle states are as they were.
public enum CPULatencyError: Error, Sendable, Hashable, CustomStringConvertible {
  /// A time is not below 0.
  case negative(Int32)
  /// The system did not take it: not Linux's, or not for this user.
  case refused(errno: Int32)

  public var description: String {
    switch self {
    case .negative(let microseconds): "a limit of \(microseconds) µs is below 0; give 0 or more"
    case .refused(let code):
      "\(CPULatencyRequest.path) cannot be written: \(unsafe String(cString: strerror(code))) (errno \(code)); run as root, or leave idle states as they are"
    }
  }
}
