import Foundation
import Measure

/// Reads what the fingerprint is made of from the running machine.
enum MachineReader {
  static func fingerprint() -> MachineFingerprint {
    var readings = MachineReadings()
    readings.cpuInfo = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
    readings.architecture = architecture
    var name = utsname()
    if uname(&name) == 0 {
      readings.kernelRelease = withUnsafeBytes(of: name.release) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
    }
    readings.logicalCores = ProcessInfo.processInfo.activeProcessorCount
    readings.numaNodes = numaNodes()
    readings.memoryBytes = ProcessInfo.processInfo.physicalMemory
    readings.allocator = allocatorInUse()
    readings.toolchain = toolchain
    readings.buildConfiguration = buildConfiguration
    readings.gitRevision = git(["rev-parse", "HEAD"]) ?? ""
    readings.gitIsDirty = !(git(["status", "--porcelain", "--untracked-files=no"]) ?? "").isEmpty
    return MachineFingerprint(readings)
  }

  private static var architecture: String {
    #if arch(x86_64)
      "x86_64"
    #elseif arch(arm64)
      "aarch64"
    #else
      "other"
    #endif
  }

  private static var buildConfiguration: String {
    #if DEBUG
      "debug"
    #else
      "release"
    #endif
  }

  /// The compiler this was built with, as closely as it can be asked at compile time.
  private static var toolchain: String {
    #if compiler(>=6.4)
      "6.4 or later"
    #elseif compiler(>=6.3.2)
      "6.3.2 or later"
    #elseif compiler(>=6.3.1)
      "6.3.1"
    #elseif compiler(>=6.3)
      "6.3"
    #else
      "6.2"
    #endif
  }

  private static func numaNodes() -> Int {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/sys/devices/system/node")) ?? []
    return max(1, entries.count { $0.hasPrefix("node") && $0.dropFirst(4).allSatisfy(\.isNumber) })
  }

  /// What git says in the current folder; nil where there is no git or no repository.
  private static func git(_ arguments: [String]) -> String? {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["git"] + arguments
    let output = Pipe()
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    process.standardInput = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return nil }
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { return nil }
    return String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
  }
}
