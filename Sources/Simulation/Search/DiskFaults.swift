extension SimulationPlan {
  /// Adds what only nodes with real files meet. Drawn from a stream of its own, so that all other decisions of a seed stay
  /// as they are.
  mutating func addDiskFaults() {
    var random = RandomStream(seed: seed, purpose: .disk, instance: (1 << 32) + 1)
    guard disk.kind == .writeAheadLog, nodeCount > 2, random.chance(perMillion: 300_000) else { return }
    for _ in 0..<random.between(1, 2) {
      let begin = electionTimeoutNanoseconds + UInt64(random.below(Int(faultPhaseNanoseconds)))
      let duration = electionTimeoutNanoseconds * UInt64(random.between(5, 60)) / 10
      let target: Target = random.coin() ? .leader : .node(random.below(nodeCount))
      faults.append(Fault(at: begin, for: duration, .fullDisk(target)))
    }
  }
}
