import Foundation
import Measure
import Testing

@testable import Gate

struct TestRandom: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// A machine whose speed drifts and jumps, measuring two programs of which one is slower by a factor.
struct NoisyMachine {
  var random: TestRandom
  var drift = 0.0
  let noise: Double

  init(seed: UInt64, noise: Double) {
    random = TestRandom(state: seed)
    self.noise = noise
  }

  mutating func measure(_ factor: Double) -> Double {
    drift += Double.random(in: -0.02...0.02, using: &random)
    // Now and then something else runs on the machine.
    let disturbance = Int.random(in: 0..<10, using: &random) == 0 ? Double.random(in: 0...0.5, using: &random) : 0
    let jitter = Double.random(in: -noise...noise, using: &random)
    return 100 * factor * exp(drift + jitter + disturbance)
  }

  mutating func blocks(_ count: Int, slowdown: Double) -> [PairedBlock] {
    (0..<count).map { index in
      if index.isMultiple(of: 2) {
        let base = measure(1)
        let heads = [measure(slowdown), measure(slowdown)]
        return PairedBlock(base: [base, measure(1)], head: heads)
      }
      let head = measure(slowdown)
      let bases = [measure(1), measure(1)]
      return PairedBlock(base: bases, head: [head, measure(slowdown)])
    }
  }
}

@Suite("Paired gate")
struct PairedGateTests {
  static func verdict(seed: UInt64, slowdown: Double, noise: Double = 0.04, rule: PairedRule = .micro) -> Verdict {
    var machine = NoisyMachine(seed: seed, noise: noise)
    return PairedGate.judge(
      series: "x", first: machine.blocks(rule.leastBlocks, slowdown: slowdown),
      second: machine.blocks(rule.leastBlocks, slowdown: slowdown),
      control: machine.blocks(rule.leastBlocks, slowdown: 1), direction: .lowerIsBetter, rule: rule
    ).verdict
  }

  @Test("A program against itself fails in at most one of 300 jobs, on a machine that drifts")
  func falseAlarms() {
    let failures = (1...300).count { Self.verdict(seed: UInt64($0), slowdown: 1) == .fail }
    #expect(failures <= 1)
  }

  @Test("A slowdown of 30 % is found in nearly every job, one of 5 % is let pass")
  func detection() {
    let found = (1...100).count { Self.verdict(seed: UInt64(1000 + $0), slowdown: 1.3) == .fail }
    #expect(found >= 90, "\(found) of 100")
    let small = (1...100).count { Self.verdict(seed: UInt64(2000 + $0), slowdown: 1.05) == .fail }
    #expect(small <= 2, "\(small) of 100")
  }

  @Test("A speed-up is an improvement, and for throughput more is better")
  func directions() {
    #expect(Self.verdict(seed: 5, slowdown: 0.6) == .improved)
    let blocks = (0..<12).map { PairedBlock(base: [100, 100 + Double($0)], head: [50, 50 + Double($0)]) }
    func judged(_ direction: Direction) -> Verdict {
      PairedGate.judge(
        series: "x", first: blocks, second: blocks, control: [], direction: direction, rule: .micro
      ).verdict
    }
    #expect(judged(.higherIsBetter) == .fail)
    #expect(judged(.lowerIsBetter) == .improved)
  }

  @Test("What fresh blocks do not repeat is not a regression; what has no fresh blocks is not decided")
  func confirmation() {
    let slow = (0..<12).map { PairedBlock(base: [100, 101 + Double($0)], head: [140, 141 + Double($0)]) }
    let same = (0..<12).map { PairedBlock(base: [100, 101 + Double($0)], head: [101 + Double($0), 100]) }
    func judged(_ second: [PairedBlock]) -> SeriesVerdict {
      PairedGate.judge(
        series: "x", first: slow, second: second, control: [], direction: .lowerIsBetter, rule: .micro)
    }
    #expect(judged(slow).verdict == .fail)
    #expect(judged(same).verdict == .pass)
    #expect(judged(same).reason.contains("not reproduced"))
    #expect(judged([]).verdict == .inconclusive)
    #expect(
      PairedGate.needsSecondStage(first: slow, control: [], direction: .lowerIsBetter, rule: .micro))
    #expect(
      !PairedGate.needsSecondStage(first: same, control: [], direction: .lowerIsBetter, rule: .micro))
  }

  @Test("Where the base differs from a copy of itself nobody is blamed")
  func control() {
    let slow = (0..<12).map { PairedBlock(base: [100, 101 + Double($0)], head: [140, 141 + Double($0)]) }
    let moved = (0..<12).map { PairedBlock(base: [100, 101 + Double($0)], head: [112, 113 + Double($0)]) }
    let verdict = PairedGate.judge(
      series: "x", first: slow, second: slow, control: moved, direction: .lowerIsBetter, rule: .micro)
    #expect(verdict.verdict == .inconclusive)
    #expect(verdict.reason.contains("copy of itself"))
  }

  @Test("A pass on a machine too noisy to see anything is inconclusive")
  func blindness() {
    var random = TestRandom(state: 9)
    let blocks = (0..<12).map { _ in
      PairedBlock(
        base: [Double.random(in: 20...500, using: &random), Double.random(in: 20...500, using: &random)],
        head: [Double.random(in: 20...500, using: &random), Double.random(in: 20...500, using: &random)])
    }
    let verdict = PairedGate.judge(
      series: "x", first: blocks, second: [], control: [], direction: .lowerIsBetter, rule: .micro)
    #expect(verdict.verdict == .inconclusive)
    #expect(verdict.reason.contains("blind below"))
  }

  @Test("Blocks with missing or impossible measurements are not used")
  func unusable() {
    #expect(PairedBlock(base: [], head: []).logRatio(.lowerIsBetter) == nil)
    #expect(PairedBlock(base: [1, 0], head: [1, 1]).logRatio(.lowerIsBetter) == nil)
    #expect(PairedBlock(base: [1], head: [1, 1]).logRatio(.lowerIsBetter) == nil)
    #expect(PairedBlock(base: [1, .infinity], head: [1, 1]).logRatio(.lowerIsBetter) == nil)
    let few = [PairedBlock](repeating: PairedBlock(base: [1, 1], head: [2, 2]), count: 11)
    let verdict = PairedGate.judge(
      series: "x", first: few, second: few, control: [], direction: .lowerIsBetter, rule: .micro)
    #expect(verdict.verdict == .inconclusive)
  }

  @Test("A stage's numbers, by hand")
  func arithmetic() {
    // Twelve equal log ratios of ln 1.25: the estimate is 25 %, p = 2⁻¹², no spread.
    let ratios = [Double](repeating: log(1.25), count: 12)
    let stage = PairedStage(logRatios: ratios, rule: .micro, control: [])
    #expect(abs(stage.effect - 0.25) < 1e-12)
    #expect(stage.pValueWorse == 1.0 / 4096)
    #expect(stage.spread == 0)
    #expect(abs(stage.tolerance - 0.1) < 1e-12)
    #expect(stage.isWorse && !stage.isBetter)
    // A noisy control widens the tolerance: 3 × 1.4826 × 0.2 / √(0.955 × 12) = 0.2628, e^… − 1 = 30.1 %.
    let noisy = PairedStage(
      logRatios: ratios, rule: .micro, control: [-0.2, 0.2, -0.2, 0.2, 0, -0.2, 0.2])
    #expect(abs(noisy.tolerance - 0.3005) < 1e-3)
    #expect(!noisy.isWorse)
  }
}

@Suite("Fixed gates")
struct FixedGateTests {
  @Test("A ratio must lie above its bound with confidence, and not far below its baseline")
  func ratios() {
    func judged(_ estimate: Double, _ low: Double, _ high: Double, baseline: Double? = nil) -> Verdict {
      RatioGate.judge(
        series: "lease/safe", ratio: .init(estimate: estimate, low: low, high: high), baseline: baseline
      ).verdict
    }
    #expect(judged(3, 2.8, 3.3) == .pass)
    #expect(judged(0.8, 0.7, 0.9) == .fail)
    #expect(judged(1.1, 0.9, 1.3) == .inconclusive)
    #expect(judged(3, 2.8, 3.3, baseline: 3.5) == .pass)
    #expect(judged(3, 2.8, 3.3, baseline: 4) == .fail)
    #expect(judged(.nan, .nan, .nan) == .inconclusive)
  }

  @Test("Counts are compared exactly, or within both limits; a count that vanished is missing")
  func counts() {
    func judged(_ baseline: Double?, _ measured: Double?, relative: Double = 0, absolute: Double = 0) -> Verdict {
      CountGate.judge(
        series: "messages", baseline: baseline, measured: measured, relative: relative, absolute: absolute
      ).verdict
    }
    #expect(judged(4, 4) == .pass)
    #expect(judged(4, 5) == .fail)
    #expect(judged(4, 3) == .improved)
    #expect(judged(1000, 1015, relative: 0.02, absolute: 5) == .pass)
    #expect(judged(1000, 1030, relative: 0.02, absolute: 50) == .pass)
    #expect(judged(1000, 1060, relative: 0.02, absolute: 50) == .fail)
    #expect(judged(4, nil) == .missing)
    #expect(judged(4, 0) == .missing)
    #expect(judged(0, 0) == .pass)
    #expect(judged(0, 1) == .fail)
    #expect(judged(nil, 4) == .noBaseline)
    #expect(judged(nil, nil) == .noBaseline)
  }

  @Test("The exit code follows the worst of it")
  func exits() {
    func exit(_ verdicts: [Verdict], valid: Bool = true, thresholds: Bool = true) -> GateExit {
      GateExit.of(
        verdicts.map { SeriesVerdict(series: "x", verdict: $0, reason: "") }, runsAreValid: valid,
        thresholdsHold: thresholds)
    }
    #expect(exit([.pass, .improved, .noBaseline]) == .ok)
    #expect(exit([.pass, .fail, .inconclusive], thresholds: false) == .regression)
    #expect(exit([.pass, .missing]) == .regression)
    #expect(exit([.pass], thresholds: false) == .thresholdMissed)
    #expect(exit([.fail], valid: false) == .invalidRun)
    #expect(exit([.pass, .inconclusive]) == .inconclusive)
    #expect(exit([]) == .inconclusive)
    #expect(GateExit.regression.rawValue == 2 && GateExit.inconclusive.rawValue == 5)
  }
}
