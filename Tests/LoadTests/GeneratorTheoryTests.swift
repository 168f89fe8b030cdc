import Foundation
import Testing

@testable import Load

/// The generator against results that are known in closed form.
@Suite("Generator against theory")
struct GeneratorTheoryTests {
  static let rate = 1000.0
  static let serviceNanoseconds: UInt64 = 50_000
  static let runSeconds = 20.0
  static let stallSeconds = 1.0

  /// A target that serves 20,000/s stalls for S = 1 s in a run of T = 20 s at 1000/s. Of the arrivals, those within
  /// the stall and the time it takes to work the queue off wait; the quantile q of the response time is
  /// S − (1 − q)(1 − ρ)T with ρ = 1/20.
  @Test(
    "A stall shows in the response time as the formula says, however few operations may be in flight",
    arguments: [1, 16, 100_000])
  func stall(outstandingLimit: Int) {
    let plan = VirtualRun.plan(
      loop: .open(ratePerSecond: Self.rate, arrival: .uniform, outstandingLimit: outstandingLimit),
      seconds: Self.runSeconds)
    let (result, received) = VirtualRun.run(plan, stall: 5_000_000_000..<6_000_000_000) { _ in
      Self.serviceNanoseconds
    }
    #expect(received.count == 20_000)
    #expect(result.errors == 0)
    let load = Self.rate * Double(Self.serviceNanoseconds) / 1e9
    for quantile in [0.97, 0.98, 0.99, 0.999] {
      let expected = Self.stallSeconds - (1 - quantile) * (1 - load) * Self.runSeconds
      let measured = Double(result.writes.response.quantile(quantile)) / 1e9
      #expect(abs(measured / expected - 1) < 0.05, "quantile \(quantile): \(measured) s, expected \(expected) s")
    }
    // Beyond the share of arrivals that the stall touched there is nothing but the service itself.
    #expect(result.writes.response.quantile(0.9) <= 2 * Self.serviceNanoseconds)
    let servicePart = result.writes.service.quantile(0.99)
    if outstandingLimit == 1 {
      // What a tool that times from the sending would report: the stall has all but vanished.
      #expect(servicePart <= 2 * Self.serviceNanoseconds)
      #expect(result.late > 800)
      #expect(result.atLimitShare > 0.04)
    } else if outstandingLimit == 100_000 {
      #expect(Double(servicePart) / 1e9 > 0.7)
      #expect(result.atLimitShare == 0)
    }
    #expect(result.unsent == 0)
  }

  /// Pollaczek–Khinchine: the mean wait of M/D/1 is ρD / (2(1 − ρ)).
  @Test("Poisson arrivals at a server of fixed service time wait as M/D/1 says", arguments: [0.3, 0.6, 0.8])
  func fixedService(load: Double) {
    let service = 100_000.0
    let plan = VirtualRun.plan(
      loop: .open(ratePerSecond: load * 1e9 / service, arrival: .poisson, outstandingLimit: 100_000), seconds: 40)
    let (result, _) = VirtualRun.run(plan) { _ in UInt64(service) }
    let wait = result.writes.response.meanNanoseconds - service
    let expected = load * service / (2 * (1 - load))
    #expect(abs(wait / expected - 1) < 0.1, "waited \(wait) ns, expected \(expected) ns")
    #expect(result.problems().isEmpty, "\(result.problems())")
  }

  /// M/M/1: the response time is exponential with mean 1/(μ − λ).
  @Test("Poisson arrivals at a server of exponential service time respond as M/M/1 says", arguments: [0.3, 0.6])
  func exponentialService(load: Double) {
    let mean = 100_000.0
    let plan = VirtualRun.plan(
      loop: .open(ratePerSecond: load * 1e9 / mean, arrival: .poisson, outstandingLimit: 100_000), seconds: 40)
    let (result, _) = VirtualRun.run(plan) { number in
      UInt64(-log(SeededBits.unitInterval(SeededBits.bits(seed: 99, index: UInt64(number)))) * mean)
    }
    for quantile in [0.5, 0.9, 0.99] {
      let expected = -log(1 - quantile) * mean / (1 - load)
      let measured = Double(result.writes.response.quantile(quantile))
      #expect(abs(measured / expected - 1) < 0.1, "quantile \(quantile): \(measured), expected \(expected)")
    }
  }

  @Test("Little's law holds on open and closed runs", arguments: [true, false])
  func littlesLaw(isOpen: Bool) throws {
    let loop: LoopMode =
      isOpen
      ? .open(ratePerSecond: 6000, arrival: .poisson, outstandingLimit: 1000) : .closed(outstanding: 32)
    let (result, _) = VirtualRun.run(VirtualRun.plan(readPercent: 50, loop: loop, seconds: 10)) { _ in 100_000 }
    let error = try #require(result.littlesLawError)
    #expect(error < 0.01)
    if !isOpen {
      // One server, always busy, 32 in the system: X = μ and R = 32/μ.
      #expect(abs(result.opsPerSecond / 10_000 - 1) < 0.01)
      #expect(abs(result.meanInFlight - 32) < 0.1)
      #expect(abs(result.reads.response.meanNanoseconds / 3_200_000 - 1) < 0.01)
    }
  }

  @Test("A target that cannot keep up is said to have missed the schedule")
  func overload() {
    // Asked 2000/s, serves 1000/s.
    let plan = VirtualRun.plan(
      loop: .open(ratePerSecond: 2000, arrival: .uniform, outstandingLimit: 64), seconds: 5)
    let (result, _) = VirtualRun.run(plan) { _ in 1_000_000 }
    #expect(result.unsent > 3000)
    #expect(result.problems().contains { $0.contains("schedule missed") })
    #expect(result.late > 4000)
    // The response time grows with the queue that never formed in the target.
    #expect(result.writes.response.maxNanoseconds > 2_500_000_000)
    #expect(result.writes.service.maxNanoseconds < 100_000_000)
  }
}

@Suite("Generator bookkeeping")
struct GeneratorBookkeepingTests {
  @Test("Operations that are never answered are unknown, and the run says so")
  func drops() {
    let plan = VirtualRun.plan(loop: .closed(outstanding: 1000), seconds: 1, operationLimit: 2000)
    let (result, received) = VirtualRun.run(plan, fault: .drops(every: 100)) { _ in 10_000 }
    #expect(received.count == 2000)
    #expect(result.writes.unknown == 20)
    #expect(result.history.count { $0.outcome == .unknown } == 20)
    #expect(result.problems().contains { $0.contains("20 had no answer") })
  }

  @Test("Refused operations are failures, and no part of the latency")
  func refusals() {
    let plan = VirtualRun.plan(loop: .closed(outstanding: 8), seconds: 100, operationLimit: 1000)
    let (result, _) = VirtualRun.run(plan, fault: .refuses(every: 10)) { _ in 10_000 }
    #expect(result.writes.failed == 100)
    #expect(result.writes.errorResponse.count == 100)
    #expect(result.writes.response.count == 900)
    #expect(result.history.count { $0.outcome == .failed } == 100)
  }

  @Test("An answer that belongs to no operation is counted, and harms nothing")
  func repeats() {
    let plan = VirtualRun.plan(loop: .closed(outstanding: 4), seconds: 100, operationLimit: 1000)
    let (result, _) = VirtualRun.run(plan, fault: .repeats(every: 50)) { _ in 10_000 }
    // The second copy arrives with the first, before its token can be used again.
    #expect(result.strayCompletions == 20)
    #expect(result.completed == 1000)
    #expect(result.problems().contains { $0.contains("belonged to no operation") })
  }

  @Test("A history of a good target is linearizable; one stale read in a thousand is found")
  func histories() {
    let plan = VirtualRun.plan(
      readPercent: 70, keys: 50, loop: .open(ratePerSecond: 9000, arrival: .poisson, outstandingLimit: 200),
      seconds: 2)
    let (good, _) = VirtualRun.run(plan) { _ in 100_000 }
    #expect(good.history.count == Int(good.completed))
    #expect(LinearizabilityVerdict.isLinearizable(good.history))
    let (bad, _) = VirtualRun.run(plan, fault: .stale(every: 1000)) { _ in 100_000 }
    #expect(!LinearizabilityVerdict.isLinearizable(bad.history))
  }

  @Test("When the history is full, whole keys are given up and the share is right")
  func historyOverflow() {
    let plan = VirtualRun.plan(
      readPercent: 50, keys: 500, loop: .closed(outstanding: 16), seconds: 1000, operationLimit: 50_000)
    let (whole, _) = VirtualRun.run(plan) { _ in 1000 }
    let (part, _) = VirtualRun.run(plan, historyCapacity: 10_000) { _ in 1000 }
    #expect(whole.historySelection.share == 1)
    #expect(part.historySelection.share < 0.3)
    #expect(part.history.count <= 10_000 && part.history.count > 1000)
    // Every operation on a kept key is there.
    let keys = Set(part.history.map(\.key))
    #expect(part.history.count == whole.history.count { keys.contains($0.key) })
    #expect(LinearizabilityVerdict.isLinearizable(part.history))
  }

  @Test("The intervals add up to the whole")
  func intervals() {
    let plan = VirtualRun.plan(
      readPercent: 40, loop: .open(ratePerSecond: 5000, arrival: .uniform, outstandingLimit: 100), seconds: 3.5)
    let (result, _) = VirtualRun.run(plan) { _ in 50_000 }
    #expect(result.intervals.count == 4)
    #expect(result.intervals.reduce(0) { $0 + $1.reads.count } == result.reads.response.count)
    #expect(result.intervals.reduce(0) { $0 + $1.writes.count } == result.writes.response.count)
    #expect(result.intervals.reduce(0) { $0 + $1.offered } == result.offered)
    #expect(abs((result.intervals.last?.lengthSeconds ?? 0) - 0.5) < 0.01)
    #expect(result.operations == 17_500)
    #expect(result.isSteady == true)
  }

  @Test("The warm-up is sent but not measured")
  func warmUp() {
    var plan = VirtualRun.plan(
      loop: .open(ratePerSecond: 1000, arrival: .uniform, outstandingLimit: 100), seconds: 2)
    plan.warmUpNanoseconds = 1_000_000_000
    let (result, received) = VirtualRun.run(plan) { _ in 50_000 }
    #expect(received.count == 3000)
    #expect(result.operations == 2000)
    #expect(result.offered == 2000)
    #expect(result.history.count == 3000)
  }
}
