/// Cuts a failing plan down: first its faults by delta debugging (Zeller and Hildebrandt, 2002), then everything else that
/// the failure does not need, one thing at a time.
struct Shrinker {
  /// How many runs may be spent.
  var budget: Int
  private(set) var runs = 0
  private let invariant: Invariant
  private let run: (SimulationPlan) -> Violation?

  /// - Parameter run: runs a plan; a plan counts as failing where it breaks the same invariant.
  init(invariant: Invariant, budget: Int = 300, run: @escaping (SimulationPlan) -> Violation?) {
    self.invariant = invariant
    self.budget = budget
    self.run = run
  }

  /// The smallest plan found that still breaks the invariant.
  mutating func shrink(_ plan: SimulationPlan) -> SimulationPlan {
    var best = plan
    var previousSize = Int.max
    while size(of: best) < previousSize, runs < budget {
      previousSize = size(of: best)
      best = shrinkFaults(best)
      best = simplify(best)
    }
    return best
  }

  private func size(of plan: SimulationPlan) -> Int {
    plan.faults.count * 1000 + plan.workload.clients * 100 + plan.nodeCount * 10
      + (plan.network.lossPerMillion > 0 ? 1 : 0) + (plan.network.duplicatePerMillion > 0 ? 1 : 0)
      + (plan.network.tailPerMillion > 0 ? 1 : 0) + (plan.disk.tearsAtCrash ? 1 : 0)
  }

  private mutating func fails(_ plan: SimulationPlan) -> Bool {
    guard runs < budget else { return false }
    runs += 1
    return run(plan)?.invariant == invariant
  }

  /// Delta debugging over the list of faults.
  private mutating func shrinkFaults(_ plan: SimulationPlan) -> SimulationPlan {
    var best = plan
    var parts = 2
    while !best.faults.isEmpty {
      let length = max(1, best.faults.count / parts)
      var isReduced = false
      var start = 0
      while start < best.faults.count {
        var candidate = best
        candidate.faults.removeSubrange(start..<min(start + length, best.faults.count))
        if fails(candidate) {
          best = candidate
          isReduced = true
        } else {
          start += length
        }
      }
      if length == 1, !isReduced { break }
      if runs >= budget { break }
      parts = isReduced ? max(2, parts - 1) : min(parts * 2, max(best.faults.count, 1))
    }
    return best
  }

  private mutating func simplify(_ plan: SimulationPlan) -> SimulationPlan {
    let steps: [(inout SimulationPlan) -> Void] = [
      { $0.network.lossPerMillion = 0 },
      { $0.network.duplicatePerMillion = 0 },
      { $0.network.tailPerMillion = 0 },
      { $0.network.maximumDelayNanoseconds = $0.network.minimumDelayNanoseconds },
      { $0.network.encodes = false },
      { $0.disk.slowPerMillion = 0 },
      { $0.disk.errorPerMillion = 0 },
      { $0.disk.tearsAtCrash = false },
      { $0.disk.maximumSyncNanoseconds = $0.disk.minimumSyncNanoseconds },
      { $0.clockRatesPerMillion = $0.clockRatesPerMillion.map { _ in 0 } },
      { $0.workload.clients = 1 },
      { $0.workload.clients = max(1, $0.workload.clients / 2) },
      { $0.workload.keys = 1 },
      { $0.workload.deletePerMillion = 0 },
      { $0.workload.operationsPerClient = max(1, $0.workload.operationsPerClient / 4) },
      { $0.core.asynchronousStorage = false },
      { $0.core.maximumBytesPerMessage = 1 << 20 },
      { $0.core.maximumCommittedBytesPerReady = 1 << 20 },
      { $0.initialLearners = 0 },
      { $0.faultPhaseNanoseconds = max($0.faultPhaseNanoseconds / 2, 1) },
    ]
    var best = plan
    for step in steps {
      var candidate = best
      step(&candidate)
      if fails(candidate) { best = candidate }
    }
    return best
  }
}
