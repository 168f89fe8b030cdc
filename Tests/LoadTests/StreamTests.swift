import Foundation
import Linearizability
import Testing

@testable import Load

enum LinearizabilityVerdict {
  static func isLinearizable(_ history: [HistoryOperation]) -> Bool {
    LinearizabilityChecker.check(history).isLinearizable
  }
}

@Suite("Operation streams")
struct StreamTests {
  /// An order-sensitive digest of a stream.
  static func digest(_ operations: some Sequence<Load.Operation>) -> UInt64 {
    operations.reduce(0) { digest, operation in
      SeededBits.mix(
        digest ^ operation.keyNumber &* 3 ^ operation.value.sequence << 20 ^ UInt64(operation.kind.rawValue) << 60
          ^ UInt64(operation.valueBytes) << 40)
    }
  }

  static let distributions: [KeyDistribution] = [
    .uniform, .zipfian(theta: 0.99), .latest, .hotspot(keyShare: 0.1, operationShare: 0.9), .sequential,
  ]

  @Test("The same seed gives the same stream, another seed another", arguments: distributions)
  func seeds(distribution: KeyDistribution) {
    let workload = Workload(readPercent: 80, keys: 5000, distribution: distribution)
    func stream(_ seed: UInt64) -> UInt64 {
      let stream = OperationStream(workload, seed: seed, client: 1)
      return Self.digest((0..<20_000).lazy.map { stream.operation(at: $0) })
    }
    #expect(stream(42) == stream(42))
    #expect(stream(42) != stream(43))
  }

  @Test("However many workers share a stream, together they send the same operations", arguments: [1, 2, 3, 7])
  func workers(count: Int) {
    let whole = VirtualRun.plan(
      readPercent: 60, loop: .closed(outstanding: 21), seconds: 1000, operationLimit: 5000)
    let stream = OperationStream(whole.workload, seed: whole.seed, client: 1)
    let expected = (0..<5000).map { stream.operation(at: $0) }
    var plan = whole
    plan.workers = count
    let sent = (0..<count).flatMap { worker in
      VirtualRun.run(plan, worker: worker) { _ in 1000 }.received
    }
    let sorted = sent.sorted { $0.value.sequence < $1.value.sequence }
    #expect(sorted == expected)
  }

  @Test("The share of reads is what was asked for", arguments: [0, 5, 50, 95, 100])
  func mix(readPercent: Int) {
    let stream = OperationStream(Workload(readPercent: readPercent, keys: 100), seed: 3, client: 1)
    let reads = (0..<100_000).count { stream.operation(at: $0).kind == .get }
    #expect(abs(Double(reads) / 1000 - Double(readPercent)) < 0.5)
    if readPercent == 0 { #expect(reads == 0) }
    if readPercent == 100 { #expect(reads == 100_000) }
  }

  @Test("Every value has a name of its own")
  func names() {
    let stream = OperationStream(Workload(readPercent: 0, keys: 10), seed: 3, client: 9)
    #expect(Set((0..<10_000).map { stream.operation(at: $0).value }).count == 10_000)
    #expect(stream.operation(at: 0).value == ValueID(client: 9, sequence: 1))
    #expect(ValueID(client: 9, sequence: 1).historyValue != ValueID(client: 10, sequence: 1).historyValue)
  }

  struct ZipfRow: Sendable {
    var keys: Int
    var zeta: Double
    var first: Double
    var topTen: Double
    var topHundredth: Double
  }

  /// θ = 0.99, computed independently.
  static let zipfTable: [ZipfRow] = [
    ZipfRow(keys: 1000, zeta: 7.7290, first: 12.94, topTen: 38.25, topHundredth: 38.25),
    ZipfRow(keys: 10_000, zeta: 10.2244, first: 9.78, topTen: 28.91, topHundredth: 51.78),
    ZipfRow(keys: 100_000, zeta: 12.7783, first: 7.83, topTen: 23.13, topHundredth: 60.48),
    ZipfRow(keys: 1_000_000, zeta: 15.3918, first: 6.50, topTen: 19.21, topHundredth: 66.43),
  ]

  @Test("Zipfian mass agrees with the table within half a percentage point", arguments: zipfTable)
  func zipfian(row: ZipfRow) {
    let table = ZipfianTable(count: row.keys, theta: 0.99)
    #expect(abs(table.zeta - row.zeta) < 1e-3)
    let draws = 1_000_000
    var first = 0
    var topTen = 0
    var topHundredth = 0
    for index in 0..<UInt64(draws) {
      let rank = table.draw(SeededBits.bits(seed: 17, index: index))
      if rank == 0 { first += 1 }
      if rank < 10 { topTen += 1 }
      if rank < UInt64(row.keys / 100) { topHundredth += 1 }
    }
    func percent(_ count: Int) -> Double { 100 * Double(count) / Double(draws) }
    #expect(abs(percent(first) - row.first) < 0.5)
    #expect(abs(percent(topTen) - row.topTen) < 0.5)
    #expect(abs(percent(topHundredth) - row.topHundredth) < 0.5)
  }

  @Test("The scramble spreads the popular keys and keeps their mass; all runs have the same hot keys")
  func scramble() {
    let workload = Workload(readPercent: 100, keys: 10_000, distribution: .zipfian(theta: 0.99))
    func hottest(_ seed: UInt64) -> [UInt64] {
      let stream = OperationStream(workload, seed: seed, client: 1)
      var counts: [UInt64: Int] = [:]
      for index in 0..<200_000 as Range<UInt64> { counts[stream.operation(at: index).keyNumber, default: 0] += 1 }
      let top = counts.sorted { ($0.value, $1.key) > ($1.value, $0.key) }.prefix(10)
      let mass = 100 * Double(top.reduce(0) { $0 + $1.value }) / 200_000
      #expect(abs(mass - 28.91) < 0.7)
      return top.prefix(3).map(\.key)
    }
    let keys = hottest(1)
    #expect(keys == hottest(2))
    #expect(keys != [0, 1, 2])
  }

  @Test("Hot keys get their share; the latest reads follow the writes; sequential touches each key once")
  func others() {
    let hot = OperationStream(
      Workload(readPercent: 100, keys: 1000, distribution: .hotspot(keyShare: 0.2, operationShare: 0.8)), seed: 1,
      client: 1)
    let hits = (0..<100_000).count { hot.operation(at: $0).keyNumber < 200 }
    #expect(abs(Double(hits) / 1000 - 80) < 1)
    #expect((0..<100_000).allSatisfy { hot.operation(at: $0).keyNumber < 1000 })

    let latest = OperationStream(
      Workload(readPercent: 50, keys: 1000, distribution: .latest), seed: 1, client: 1)
    var near = 0
    var reads = 0
    for index in 0..<50_000 as Range<UInt64> where latest.operation(at: index).kind == .get {
      reads += 1
      let distance = (index % 1000 + 1000 - latest.operation(at: index).keyNumber) % 1000
      if distance < 10 { near += 1 }
    }
    #expect(abs(100 * Double(near) / Double(reads) - 38.25) < 1.5)

    let each = OperationStream(.preload(keys: 777, valueBytes: 100), seed: 1, client: 1)
    #expect(Set((0..<777).map { each.operation(at: $0).keyNumber }).count == 777)
    #expect((0..<777).allSatisfy { each.operation(at: $0).kind == .set })
  }

  @Test("Distributions are read from text, and nonsense is refused")
  func parsing() {
    #expect(KeyDistribution("uniform") == .uniform)
    #expect(KeyDistribution("zipfian:0.9") == .zipfian(theta: 0.9))
    #expect(KeyDistribution("zipfian") == .zipfian(theta: 0.99))
    #expect(KeyDistribution("latest") == .latest)
    #expect(KeyDistribution("hotspot:0.1:0.5") == .hotspot(keyShare: 0.1, operationShare: 0.5))
    for text in ["", "zipf", "zipfian:", "zipfian:x", "zipfian:-1", "hotspot:2:1", "uniform:1", "hotspot:0.1"] {
      #expect(KeyDistribution(text) == nil, "\(text)")
    }
    for distribution in Self.distributions where distribution != .sequential {
      #expect(KeyDistribution(distribution.description) == distribution)
    }
  }
}

@Suite("Arrival schedules")
struct ArrivalScheduleTests {
  static func times(_ arrival: Arrival, workers: Int, worker: Int, rate: Double, count: Int, seed: UInt64 = 1)
    -> [UInt64]
  {
    var schedule = ArrivalSchedule(
      arrival: arrival, ratePerSecond: rate, worker: worker, workers: workers, seed: seed)
    return (0..<count).map { _ in
      defer { schedule.advance() }
      return schedule.nextNanoseconds
    }
  }

  @Test("Uniform arrivals of all workers make one even row")
  func uniform() {
    let all = (0..<4).flatMap { Self.times(.uniform, workers: 4, worker: $0, rate: 1_000_000, count: 2500) }.sorted()
    #expect(all.count == 10_000)
    #expect(all.enumerated().allSatisfy { abs(Double($1) - Double($0) * 1000) <= 1 })
  }

  @Test("Poisson gaps are exponential (Anderson–Darling), in rate and in shape")
  func poisson() {
    let count = 20_000
    let times = Self.times(.poisson, workers: 2, worker: 1, rate: 20_000, count: count)
    let gaps = zip(times.dropFirst(), times).map { Double($0 - $1) }
    let mean = gaps.reduce(0, +) / Double(gaps.count)
    // Each of the two workers has half of the rate.
    #expect(abs(mean / 100_000 - 1) < 0.03)
    let sorted = gaps.map { 1 - exp(-$0 / mean) }.sorted()
    let n = Double(sorted.count)
    var sum = 0.0
    for (index, value) in sorted.enumerated() {
      let clamped = min(max(value, 1e-12), 1 - 1e-12)
      let mirrored = min(max(1 - sorted[sorted.count - 1 - index], 1e-12), 1 - 1e-12)
      sum += (2 * Double(index) + 1) * (log(clamped) + log(mirrored))
    }
    let statistic = (-n - sum / n) * (1 + 0.6 / n)
    // Critical value of the test for exponentiality with estimated mean, at 1 %: 1.957.
    #expect(statistic < 1.957)
    #expect(times == times.sorted())
  }

  @Test("Workers do not copy each other, and a seed gives the same times again")
  func seeds() {
    let one = Self.times(.poisson, workers: 2, worker: 0, rate: 1000, count: 100)
    #expect(one == Self.times(.poisson, workers: 2, worker: 0, rate: 1000, count: 100))
    #expect(one != Self.times(.poisson, workers: 2, worker: 1, rate: 1000, count: 100))
    #expect(one != Self.times(.poisson, workers: 2, worker: 0, rate: 1000, count: 100, seed: 2))
  }
}
