import Testing

@testable import Simulation

@Suite("Simulation engine")
struct EngineTests {
  @Test("Events come out by time, and in the order of scheduling where times are equal")
  func eventOrder() {
    var random = RandomStream(seed: 7)
    var queue = EventQueue()
    for number in 0..<5000 { queue.push(at: UInt64(random.below(50)), .tick, argument: number) }
    var previous: (time: UInt64, number: Int) = (0, -1)
    var count = 0
    while let event = queue.pop() {
      #expect(event.time > previous.time || (event.time == previous.time && event.argument > previous.number))
      previous = (event.time, event.argument)
      count += 1
    }
    #expect(count == 5000)
  }

  @Test("Streams of different purposes and instances differ; the same one repeats")
  func streams() {
    var seen: Set<UInt64> = []
    for purpose in RandomPurpose.allCases {
      for instance in 0..<20 {
        var one = RandomStream(seed: 42, purpose: purpose, instance: UInt64(instance))
        var other = RandomStream(seed: 42, purpose: purpose, instance: UInt64(instance))
        let first = one.next()
        #expect(first == other.next())
        #expect(seen.insert(first).inserted)
      }
    }
  }

  @Test("Bounded numbers stay within their bounds and reach both ends")
  func bounds() {
    var random = RandomStream(seed: 3)
    var hits = Array(repeating: 0, count: 7)
    for _ in 0..<7000 { hits[random.between(0, 6)] += 1 }
    #expect(hits.allSatisfy { $0 > 800 && $0 < 1200 })
    #expect(random.below(0) == 0)
    #expect(random.between(5, 5) == 5)
  }

  @Test("The trace hash depends on every word and on their order")
  func traceHash() {
    var forward = TraceHash()
    var backward = TraceHash()
    for word in [UInt64(1), 2, 3] { forward.add(word) }
    for word in [UInt64(3), 2, 1] { backward.add(word) }
    #expect(forward != backward)
    let bytes: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    for position in bytes.indices {
      var changed = bytes
      changed[position] ^= 1
      #expect(TraceHash.of(changed.span.bytes) != TraceHash.of(bytes.span.bytes))
    }
  }

  @Test("A plan is a function of its seed")
  func plans() {
    for seed in UInt64(0)..<50 {
      for profile in Profile.allCases {
        let one = Swarm.plan(seed: seed, profile: profile)
        let other = Swarm.plan(seed: seed, profile: profile)
        #expect(one.faults == other.faults && one.core == other.core && one.network == other.network)
        #expect(one.disk == other.disk && one.workload == other.workload)
        #expect(one.initialVoters >= 1 && one.initialVoters + one.initialLearners <= one.nodeCount)
        #expect(one.nodeCount <= 7 && one.clockRatesPerMillion.count == one.nodeCount)
      }
    }
  }

  @Test("Shrinking leaves only the faults that the failure needs")
  func shrinking() {
    var plan = Swarm.plan(seed: 11)
    plan.faults = (0..<40).map { Fault(at: UInt64($0), for: 1, .pause(.node($0))) }
    let needed: Set<FaultAction> = [.pause(.node(7)), .pause(.node(23))]
    var shrinker = Shrinker(invariant: .electionSafety) { candidate in
      needed.isSubset(of: candidate.faults.map(\.action)) ? Violation(.electionSafety, "both") : nil
    }
    let smallest = shrinker.shrink(plan)
    #expect(Set(smallest.faults.map(\.action)) == needed)
    #expect(smallest.workload.clients == 1)
  }
}
