import Crypto
import Foundation

/// What was read from the machine, as it was read: the input of `MachineFingerprint`, which does no I/O.
public struct MachineReadings: Sendable {
  /// The text of the kernel's CPU list.
  public var cpuInfo = ""
  public var architecture = ""
  public var kernelRelease = ""
  public var logicalCores = 1
  public var numaNodes = 1
  public var memoryBytes: UInt64 = 0
  public var allocator = ""
  public var toolchain = ""
  public var buildConfiguration = ""
  /// The full hash of the commit; empty where there is no repository.
  public var gitRevision = ""
  public var gitIsDirty = false

  public init() {}
}

/// On what a result was measured.
public struct MachineFingerprint: Codable, Sendable, Equatable {
  /// Twelve hexadecimal digits over what makes timings comparable: architecture, CPU vendor, family and model,
  /// logical CPUs, NUMA nodes, hypervisor or not. Clock rates, host name, memory size and kernel patch level stay
  /// out: a key that changes with each boot never finds its baseline again.
  public var key: String
  public var architecture: String
  public var cpuVendor: String
  public var cpuModel: String
  public var cpuFamily: String
  public var logicalCores: Int
  public var numaNodes: Int
  public var isVirtual: Bool
  public var memoryBytes: UInt64
  public var kernel: String
  public var allocator: String
  public var toolchain: String
  public var buildConfiguration: String
  public var gitRevision: String
  public var gitIsDirty: Bool

  public init(_ readings: MachineReadings) {
    let fields = Self.fields(ofFirstProcessor: readings.cpuInfo)
    architecture = readings.architecture
    cpuVendor = fields["vendor_id"] ?? fields["CPU implementer"] ?? "unknown"
    cpuModel = fields["model name"] ?? fields["CPU part"] ?? "unknown"
    cpuFamily = [fields["cpu family"], fields["model"]].compactMap(\.self).joined(separator: "/")
    logicalCores = readings.logicalCores
    numaNodes = readings.numaNodes
    isVirtual = (fields["flags"] ?? "").split(separator: " ").contains("hypervisor")
    memoryBytes = readings.memoryBytes
    kernel = readings.kernelRelease
    allocator = readings.allocator
    toolchain = readings.toolchain
    buildConfiguration = readings.buildConfiguration
    gitRevision = readings.gitRevision
    gitIsDirty = readings.gitIsDirty
    let identity = [
      architecture, cpuVendor, cpuFamily, cpuModel, String(logicalCores), String(numaNodes),
      isVirtual ? "virtual" : "bare",
    ]
    let digest = SHA256.hash(data: Data(identity.joined(separator: "\n").utf8))
    key = digest.prefix(6).map { byte in
      let digits = String(byte, radix: 16)
      return digits.count == 1 ? "0" + digits : digits
    }.joined()
  }

  /// The first twelve digits of the commit, as file names carry it; `unknown` outside a repository.
  public var shortRevision: String { gitRevision.isEmpty ? "unknown" : String(gitRevision.prefix(12)) }

  private static func fields(ofFirstProcessor text: String) -> [String: String] {
    var fields: [String: String] = [:]
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      guard !line.allSatisfy(\.isWhitespace) else {
        if fields.isEmpty { continue }
        break
      }
      let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2 else { continue }
      fields[parts[0].trimmingCharacters(in: .whitespaces)] = parts[1].trimmingCharacters(in: .whitespaces)
    }
    return fields
  }
}
