import ArgumentParser
import Load

/// `bench`: the default suite.
struct DefaultSuite: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "suite",
    abstract: "The default suite: writes, Safe against Lease reads, and a 95/5 mix. Runs when no subcommand is named.")

  @OptionGroup var options: SuiteOptions

  @Flag(help: "A suite of a few seconds, to see that everything works; its tails say nothing.")
  var short = false

  func run() throws {
    var factory = options.factory
    if short { factory.scale = 0.2 }
    try SuiteSession.run(factory.everything(), options: options, measuresHotPaths: true)
  }
}

/// `bench reads`.
struct Reads: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Safe reads against Lease reads, interleaved in slices.")

  @OptionGroup var options: SuiteOptions

  func run() throws { try SuiteSession.run(options.factory.readsOnly(), options: options) }
}

/// `bench writes`.
struct Writes: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Writes: peak throughput, and latency at a fixed rate.")

  @OptionGroup var options: SuiteOptions

  func run() throws { try SuiteSession.run(options.factory.writesOnly(), options: options) }
}

/// `bench run`: one run as the user puts it together.
struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "One run: a workload, at a rate or as fast as it goes.",
    discussion: """
      With --rate the loop is open: operations start at times fixed beforehand, and what cannot start on time waits, \
      which counts. With --closed the next operation starts when an earlier one ends, which finds the peak throughput \
      and says little about latency.
      """)

  @OptionGroup var options: SuiteOptions

  @Option(help: "read, write or mixed:<percent reads>.")
  var workload = WorkloadKind(argument: "mixed:95") ?? WorkloadKind.reads

  @Option(help: "Operations per second of all workers together (open loop).")
  var rate: Double?

  @Option(help: "How the intended starts are spaced: uniform or poisson.")
  var arrival = Arrival.poisson

  @Flag(help: "Closed loop: as fast as --concurrency allows.")
  var closed = false

  @Option(help: "Operations in flight, all workers together; in an open loop the most there may be.")
  var concurrency: Int?

  @Option(help: "Length of the measured window: 500ms, 10s, 2m.")
  var duration = TimeSpan(seconds: 10)

  @Option(help: "Operations are sent but not measured for this long first.")
  var warmup = TimeSpan(seconds: 2)

  @Option(help: "How reads are served: safe (ReadIndex) or lease.")
  var read = ReadMode.safe

  func validate() throws {
    if closed {
      guard rate == nil else { throw ValidationError("--rate and --closed exclude each other") }
    } else {
      guard let rate else { throw ValidationError("give either --rate N (open loop) or --closed") }
      guard rate > 0, rate <= 100_000_000 else {
        throw ValidationError("--rate must be above 0, and 100000000 at most")
      }
    }
    if let concurrency {
      guard (options.workers...1_000_000).contains(concurrency) else {
        throw ValidationError("--concurrency must be at least one for each worker, and 1000000 at most")
      }
    }
    guard duration.seconds >= 0.1, duration.seconds <= 86_400 else {
      throw ValidationError("--duration must be 100ms...1440m")
    }
    guard warmup.seconds <= 3600 else { throw ValidationError("--warmup must be 60m at most") }
  }

  func run() throws {
    let loop: LoopMode =
      if let rate {
        .open(ratePerSecond: rate, arrival: arrival, outstandingLimit: concurrency ?? 65_536)
      } else {
        .closed(outstanding: concurrency ?? 256)
      }
    let template = RunTemplate(
      name: workload.name,
      workload: Workload(
        readPercent: workload.readPercent, keys: options.keys, distribution: options.distribution,
        valueBytes: options.valueSize),
      readMode: read, loop: loop, warmUpSeconds: warmup.seconds, durationSeconds: duration.seconds)
    try SuiteSession.run(options.factory.single(template), options: options)
  }
}

extension WorkloadKind {
  static let reads = WorkloadKind(readPercent: 100)

  private init(readPercent: Int) {
    self.readPercent = readPercent
  }

  var name: String {
    switch readPercent {
    case 0: "write"
    case 100: "read"
    default: "mixed-\(readPercent)"
    }
  }
}
