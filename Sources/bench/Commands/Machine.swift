import ArgumentParser

/// `bench machine`: what the results would say about this machine.
struct Machine: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Prints the allocator that serves this process.")

  func run() throws {
    print("allocator: \(allocatorInUse())")
  }
}
