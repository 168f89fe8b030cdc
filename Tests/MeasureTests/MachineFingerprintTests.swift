import Foundation
import Testing

@testable import Measure

@Suite("Machine fingerprint")
struct MachineFingerprintTests {
  static func readings(megahertz: String = "2596.098", model: String = "Example 9000") -> MachineReadings {
    var readings = MachineReadings()
    readings.cpuInfo = """
      processor\t: 0
      vendor_id\t: AuthenticAMD
      cpu family\t: 26
      model\t\t: 2
      model name\t: \(model)
      cpu MHz\t\t: \(megahertz)
      flags\t\t: fpu vme hypervisor sse4_2

      processor\t: 1
      vendor_id\t: SomethingElse
      """
    readings.architecture = "x86_64"
    readings.logicalCores = 2
    readings.gitRevision = "0123456789abcdef0123456789abcdef01234567"
    return readings
  }

  @Test("The first processor's fields are read")
  func fields() {
    let machine = MachineFingerprint(Self.readings())
    #expect(machine.cpuVendor == "AuthenticAMD")
    #expect(machine.cpuModel == "Example 9000")
    #expect(machine.cpuFamily == "26/2")
    #expect(machine.isVirtual)
    #expect(machine.shortRevision == "0123456789ab")
    #expect(machine.key.count == 12)
  }

  @Test("The key follows the processor and not its clock, kernel, memory or commit")
  func key() {
    let key = MachineFingerprint(Self.readings()).key
    var other = Self.readings(megahertz: "3100.000")
    other.kernelRelease = "9.9"
    other.memoryBytes = 1
    other.gitRevision = ""
    #expect(MachineFingerprint(other).key == key)
    #expect(MachineFingerprint(Self.readings(model: "Example 9001")).key != key)
    other.logicalCores = 4
    #expect(MachineFingerprint(other).key != key)
  }

  @Test("A machine that tells nothing still has a fingerprint")
  func unknown() throws {
    let machine = MachineFingerprint(MachineReadings())
    #expect(machine.cpuModel == "unknown")
    #expect(machine.shortRevision == "unknown")
    let decoded = try JSONDecoder().decode(MachineFingerprint.self, from: JSONEncoder().encode(machine))
    #expect(decoded == machine)
  }
}
