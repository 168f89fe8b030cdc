import ArgumentParser
import Foundation
import Simulation

/// `bench gossip`: what the failure detector and the dissemination do, measured in virtual time.
struct GossipCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "gossip",
    abstract: "Measures failure detection, false positives, traffic and convergence of gossip in virtual time.",
    discussion: """
      Every figure is a function of the seed: the same seed gives the same figures on every machine. The short form \
      takes about a minute of processor time; --long runs the loss experiment for 24 virtual hours.
      """)

  @Option(help: "Seed of all random choices.")
  var seed: UInt64 = 1

  @Option(help: "Members in the experiments with one cluster size, 16 to 256.")
  var members = 128

  @Flag(help: "The long forms: more trials, and 24 virtual hours of packet loss.")
  var long = false

  @Option(help: "Writes the figures as JSON to this file; - for standard output, with nothing else there.")
  var json: String?

  func validate() throws {
    guard (16...256).contains(members) else { throw ValidationError("--members must be 16...256") }
  }

  func run() throws {
    let figures = try GossipFigures.measure(seed: seed, members: members, isLong: long) { text in
      FileHandle.standardError.write(Data("\(text)\n".utf8))
    }
    if json != "-" { print(figures.table) }
    if let json { try JSONOutput.write(figures, to: json) }
    try verdict(figures)
  }

  /// A figure that misses its limit ends the command with the code for that.
  private func verdict(_ figures: GossipFigures) throws {
    let missed = figures.missedLimits
    guard !missed.isEmpty else { return }
    FileHandle.standardError.write(Data(("missed: " + missed.joined(separator: "; ") + "\n").utf8))
    throw ExitStatus.thresholdMissed
  }
}

/// The figures of one run of `bench gossip`. Times are in probe periods or gossip rounds, sizes in bytes.
struct GossipFigures: Encodable {
  struct Detection: Encodable {
    var members: Int
    var trials: Int
    var firstSuspicionMeanPeriods: Double
    var firstSuspicionP99Periods: Double
    var firstDeathMeanPeriods: Double
    var firstDeathP99Periods: Double
    var allKnowMeanPeriods: Double
    var allKnowP99Periods: Double
  }
  struct Traffic: Encodable {
    var members: Int
    var packetsPerMemberAndPeriod: Double
    var messagesPerMemberAndPeriod: Double
    var packetBytesPerMemberAndPeriod: Double
    var streamBytesPerMemberAndPeriod: Double
  }
  struct Endurance: Encodable {
    var members: Int
    var lossPercent: Int
    var virtualHours: Double
    var suspicions: Int
    var refutations: Int
    var falseDeaths: Int
  }
  struct SlowMembers: Encodable {
    var members: Int
    var slowMembers: Int
    var virtualMinutes: Double
    var falsePositivesPlain: Int
    var falsePositivesLifeguard: Int
    var falsePositivesAtHealthyPlain: Int
    var falsePositivesAtHealthyLifeguard: Int
  }
  struct Convergence: Encodable {
    var members: Int
    var trials: Int
    var complete: Int
    var meanRounds: Double
    var maximumRounds: Double
    var boundRounds: Int
    var duplicatesPerMember: Double
  }

  var seed: UInt64
  var detection: Detection
  var traffic: [Traffic]
  var endurance: Endurance
  var slowMembers: SlowMembers
  var convergence: [Convergence]

  // MARK: Measuring

  static func measure(
    seed: UInt64, members: Int, isLong: Bool, progress: (String) -> Void
  ) throws -> GossipFigures {
    progress("detection of dead members…")
    let detection = try GossipExperiments.detection(nodeCount: members, trials: isLong ? 400 : 96, seed: seed)
    progress("traffic of quiet clusters…")
    let traffic = try [8, 16, 32, 64, 128, 256].map {
      try GossipExperiments.traffic(nodeCount: $0, periods: isLong ? 960 : 240, seed: seed)
    }
    progress("packet loss…")
    let endurance = try GossipExperiments.endurance(
      nodeCount: members, lossPercent: 5, virtualMinutes: isLong ? 24 * 60 : 30, seed: seed)
    progress("slow members, plain SWIM and Lifeguard…")
    let slow = try [false, true].map { usesLifeguard in
      try GossipExperiments.slowMembers(
        nodeCount: members, usesLifeguard: usesLifeguard, pauseSeconds: 5, virtualMinutes: isLong ? 60 : 5, seed: seed)
    }
    progress("convergence of broadcasts…")
    let convergence = try [16, 64, 256].map {
      try GossipExperiments.convergence(nodeCount: $0, trials: isLong ? 100 : 20, seed: seed)
    }
    return GossipFigures(
      seed: seed, detection: Detection(detection), traffic: traffic.map(Traffic.init),
      endurance: Endurance(endurance), slowMembers: SlowMembers(plain: slow[0], guarded: slow[1]),
      convergence: convergence.map(Convergence.init))
  }

  // MARK: Judging

  /// What a cluster is to keep to; each text names a figure that does not.
  var missedLimits: [String] {
    var missed: [String] = []
    if endurance.falseDeaths > 0 {
      missed.append("\(endurance.falseDeaths) members falsely declared dead, none allowed")
    }
    if slowMembers.falsePositivesLifeguard * 20 > slowMembers.falsePositivesPlain {
      missed.append("Lifeguard leaves more than 1/20 of plain SWIM's false positives")
    }
    for figure in convergence where figure.meanRounds > Double(figure.boundRounds) {
      missed.append("broadcasts to \(figure.members) members take more rounds than the bound")
    }
    // One in a thousand may miss somebody; of the few that are tried here, one in fifty.
    for figure in convergence where figure.complete * 50 < figure.trials * 49 {
      missed.append("\(figure.trials - figure.complete) of \(figure.trials) broadcasts did not reach all members")
    }
    if let least = traffic.map(\.packetBytesPerMemberAndPeriod).min(),
      let most = traffic.map(\.packetBytesPerMemberAndPeriod).max(), most > least * 1.25
    {
      missed.append("packet bytes of a member grow with the cluster")
    }
    return missed
  }

  // MARK: Printing

  var table: String {
    let slow = slowMembers
    let sections: [[String]] = [
      ["gossip in virtual time, seed \(seed), LAN timings (probe period 1 s, gossip round 0.2 s)"],
      Self.section(
        "a dead member, \(detection.members) members, \(detection.trials) trials, in probe periods",
        ["mean", "p99"],
        [
          ("first suspicion", [detection.firstSuspicionMeanPeriods, detection.firstSuspicionP99Periods]),
          ("first declared dead", [detection.firstDeathMeanPeriods, detection.firstDeathP99Periods]),
          ("all know", [detection.allKnowMeanPeriods, detection.allKnowP99Periods]),
        ]),
      Self.section(
        "a quiet cluster, for each member and probe period",
        ["packets", "messages", "packet bytes", "stream bytes"],
        traffic.map {
          (
            "\($0.members) members",
            [
              $0.packetsPerMemberAndPeriod, $0.messagesPerMemberAndPeriod, $0.packetBytesPerMemberAndPeriod,
              $0.streamBytesPerMemberAndPeriod,
            ]
          )
        }),
      Self.section(
        "\(endurance.lossPercent)% packet loss, \(endurance.members) members",
        ["hours", "suspicions", "refuted", "false deaths"],
        [
          (
            "Lifeguard",
            [endurance.virtualHours]
              + [endurance.suspicions, endurance.refutations, endurance.falseDeaths].map(Double.init)
          )
        ]),
      Self.section(
        "\(slow.slowMembers) of \(slow.members) members stalled 5 s at a time: healthy members held dead",
        ["minutes", "times", "at healthy ones"],
        [
          ("plain SWIM", slow.falsePositivesPlain, slow.falsePositivesAtHealthyPlain),
          ("Lifeguard", slow.falsePositivesLifeguard, slow.falsePositivesAtHealthyLifeguard),
        ].map { ($0.0, [slow.virtualMinutes, Double($0.1), Double($0.2)]) }),
      Self.section(
        "\(convergence.first?.trials ?? 0) user broadcasts, in gossip rounds until all have it",
        ["reach all", "mean", "maximum", "bound", "duplicates a member"],
        convergence.map {
          (
            "\($0.members) members",
            [
              Double($0.complete), $0.meanRounds, $0.maximumRounds, Double($0.boundRounds), $0.duplicatesPerMember,
            ]
          )
        }),
    ]
    return sections.map { $0.joined(separator: "\n") }.joined(separator: "\n\n")
  }

  /// A title, and rows of numbers under right-aligned heads. A column of whole numbers has no decimals.
  private static func section(
    _ title: String, _ heads: [String], _ rows: [(label: String, values: [Double])]
  ) -> [String] {
    let labelWidth = (rows.map(\.label.count).max() ?? 0) + 2
    func line(_ label: String, _ cells: [String]) -> String {
      let padded = ("  " + label).padding(toLength: labelWidth, withPad: " ", startingAt: 0)
      return padded
        + zip(cells, heads).map { cell, head in
          String(repeating: " ", count: max(0, max(head.count, 9) + 2 - cell.count)) + cell
        }.joined()
    }
    let decimals = heads.indices.map { column in
      rows.allSatisfy { $0.values[column] == $0.values[column].rounded() } ? 0 : 2
    }
    let body = rows.map { row in
      line(row.label, zip(row.values, decimals).map { String(format: "%.\($1)f", $0) })
    }
    return [title, line("", heads)] + body
  }
}

extension GossipFigures.Detection {
  init(_ figures: GossipExperiments.Detection) {
    self.init(
      members: figures.nodeCount, trials: figures.trials, firstSuspicionMeanPeriods: figures.firstSuspicion.mean,
      firstSuspicionP99Periods: figures.firstSuspicion.percentile(99),
      firstDeathMeanPeriods: figures.firstDeath.mean, firstDeathP99Periods: figures.firstDeath.percentile(99),
      allKnowMeanPeriods: figures.allKnow.mean, allKnowP99Periods: figures.allKnow.percentile(99))
  }
}

extension GossipFigures.Traffic {
  init(_ figures: GossipExperiments.Traffic) {
    self.init(
      members: figures.nodeCount, packetsPerMemberAndPeriod: figures.packets,
      messagesPerMemberAndPeriod: figures.messages, packetBytesPerMemberAndPeriod: figures.packetBytes,
      streamBytesPerMemberAndPeriod: figures.streamBytes)
  }
}

extension GossipFigures.Endurance {
  init(_ figures: GossipExperiments.Endurance) {
    self.init(
      members: figures.nodeCount, lossPercent: figures.lossPercent, virtualHours: figures.virtualHours,
      suspicions: figures.suspicions, refutations: figures.refutations, falseDeaths: figures.falseDeaths)
  }
}

extension GossipFigures.SlowMembers {
  init(plain: GossipExperiments.SlowMembers, guarded: GossipExperiments.SlowMembers) {
    self.init(
      members: plain.nodeCount, slowMembers: plain.slowCount, virtualMinutes: plain.virtualMinutes,
      falsePositivesPlain: plain.falsePositives, falsePositivesLifeguard: guarded.falsePositives,
      falsePositivesAtHealthyPlain: plain.falsePositivesAtHealthy,
      falsePositivesAtHealthyLifeguard: guarded.falsePositivesAtHealthy)
  }
}

extension GossipFigures.Convergence {
  init(_ figures: GossipExperiments.Convergence) {
    self.init(
      members: figures.nodeCount, trials: figures.trials, complete: figures.complete, meanRounds: figures.rounds.mean,
      maximumRounds: figures.rounds.maximum, boundRounds: figures.bound,
      duplicatesPerMember: figures.duplicatesPerMember)
  }
}
