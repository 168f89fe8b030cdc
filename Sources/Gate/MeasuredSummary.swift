import Foundation
import Measure

/// What a gate reads of a `summary.json`. Not the whole: the base is an older program, which need not know every name
/// that the head writes.
public struct MeasuredSummary: Codable, Sendable, Equatable {
  public struct Run: Codable, Sendable, Equatable {
    public struct Latency: Codable, Sendable, Equatable {
      public var count: UInt64
      public var p50: UInt64?
      public var p99: UInt64?
    }

    public var name: String
    public var operation: String
    public var opsPerSecond: Double
    public var cpuMicrosecondsPerOp: Double
    public var messagesPerOp: Double?
    public var peerBytesPerOp: Double?
    public var fsyncsPerOp: Double?
    public var responseNanoseconds: Latency
  }

  public struct Ratio: Codable, Sendable, Equatable {
    public var throughputRatio: Statistics.Interval
  }

  public struct Machine: Codable, Sendable, Equatable {
    /// Of the machine's kind: see `MachineFingerprint.key`.
    public var key: String
    public var architecture: String
    public var toolchain: String
    public var gitRevision: String
  }

  public var valid: Bool
  public var problems: [String]
  public var startedUTC: String
  public var machine: Machine
  public var runs: [Run]
  public var leaseToSafe: Ratio?

  public init(json: Data) throws(GateError) {
    do {
      self = try JSONDecoder().decode(MeasuredSummary.self, from: json)
    } catch {
      throw .unreadable(what: "a bench's summary", reason: "\(error)")
    }
  }
}

/// The part of `bench hot-paths --json -` that a gate reads.
public struct MeasuredHotPaths: Codable, Sendable, Equatable {
  public struct Path: Codable, Sendable, Equatable {
    public var name: String
    public var nanosecondsPerOp: Double
    public var allocationsPerOp: Double
    public var bytesPerOp: Double
  }

  public var hotPaths: [Path]

  public init(json: Data) throws(GateError) {
    do {
      self = try JSONDecoder().decode(MeasuredHotPaths.self, from: json)
    } catch {
      throw .unreadable(what: "the hot paths", reason: "\(error)")
    }
  }
}

/// Why a gate cannot judge; the text says what to do.
public enum GateError: Error, Sendable, Equatable, CustomStringConvertible {
  case unreadable(what: String, reason: String)
  /// The program could not be run, or ended with something else than a result.
  case failed(program: String, arguments: [String], status: Int32, output: String)
  /// A baseline needs more valid runs than there are.
  case tooFewRuns(valid: Int, needed: Int)
  /// Runs of different machines or toolchains do not make a baseline together.
  case mixedRuns(String)

  public var description: String {
    switch self {
    case .unreadable(let what, let reason):
      "\(what) cannot be read (\(reason)): is the program a bench of this project?"
    case .failed(let program, let arguments, let status, let output):
      "\(([program] + arguments).joined(separator: " ")) ended with \(status): run it alone to see why\n\(output)"
    case .tooFewRuns(let valid, let needed):
      "\(valid) valid runs; a baseline is made of \(needed) at least, so that it shows its own spread: run bench again"
    case .mixedRuns(let what):
      "the runs differ in \(what): accept those of one machine, toolchain and revision together"
    }
  }
}
