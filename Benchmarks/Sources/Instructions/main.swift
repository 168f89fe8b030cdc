import Foundation
import HotPaths

// Instructions an operation of every hot path, by running itself again under callgrind.

let arguments = CommandLine.arguments.dropFirst()
if arguments.first == "--counted" {
  guard let name = arguments.last, let path = HotPaths.named(name) else { exit(1) }
  InstructionCount.runCounted(path)
} else {
  do {
    print(InstructionCount.table(try InstructionCount.measure(paths: HotPaths.all) { ["--counted", $0] }))
  } catch InstructionCount.Failure.valgrindMissing {
    print("Instructions are not counted: \(InstructionCount.Failure.valgrindMissing)")
  } catch {
    FileHandle.standardError.write(Data("Instructions: \(error)\n".utf8))
    exit(1)
  }
}
