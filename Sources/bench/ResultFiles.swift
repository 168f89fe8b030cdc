import Foundation
import Linearizability
import Load
import Measure
import Report

/// The folder of one bench: made before anything is started, so that results that cannot be written are known then.
struct ResultFiles {
  let folder: URL

  /// - Throws: `UsageError` where the folder cannot be made or written to.
  init(parent: String, started: Date, revision: String) throws {
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    formatter.timeZone = TimeZone(secondsFromGMT: 0)
    formatter.dateFormat = "yyyyMMdd'T'HHmmss'Z'"
    let name = "\(formatter.string(from: started))-\(revision)"
    let parentFolder = URL(fileURLWithPath: parent, isDirectory: true)
    do {
      try FileManager.default.createDirectory(at: parentFolder, withIntermediateDirectories: true)
      folder = try Self.makeFolder(named: name, in: parentFolder)
    } catch {
      throw UsageError("results cannot be written to \(parent): \(Self.reason(error)); choose another with --results")
    }
  }

  /// Two benches may start in the same second.
  private static func makeFolder(named name: String, in parent: URL) throws -> URL {
    var attempt = 1
    while true {
      let folder = parent.appendingPathComponent(attempt == 1 ? name : "\(name)-\(attempt)", isDirectory: true)
      do {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
        return folder
      } catch CocoaError.fileWriteFileExists where attempt < 100 {
        attempt += 1
      }
    }
  }

  static func reason(_ error: any Error) -> String {
    let underlying = (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError
    return (underlying ?? error as NSError).localizedDescription
  }

  /// Removes the folder: for a bench that ended before it had anything to write.
  func remove() {
    try? FileManager.default.removeItem(at: folder)
  }

  func write(_ summary: BenchSummary, _ outcome: SuiteOutcome, startedEpochSeconds: Double) throws {
    try write(JSONOutput.data(summary), to: "summary.json")
    try write(Data(IntervalRow.csv(outcome.rows).utf8), to: "series.csv")
    try write(
      Data(HistogramLog.text(startEpochSeconds: startedEpochSeconds, intervals: outcome.logIntervals).utf8),
      to: "latency.hlog")
    for spectrum in Self.histograms(outcome) {
      try write(Data(PercentileFile.text(of: spectrum.histogram).utf8), to: "\(spectrum.name).hgrm")
    }
    let report = HTMLReport.text(
      ReportData(summary: summary, spectra: Self.spectra(outcome), rows: outcome.rows))
    try write(Data(report.utf8), to: "report.html")
  }

  func write(text: String, to name: String) throws { try write(Data(text.utf8), to: name) }

  private func write(_ data: Data, to name: String) throws {
    try data.write(to: folder.appendingPathComponent(name), options: .atomic)
  }

  /// The response times of each operation of each run.
  private static func histograms(_ outcome: SuiteOutcome) -> [(name: String, histogram: LatencyHistogram)] {
    outcome.runs.flatMap { run in
      [("read", run.result.reads.response), ("write", run.result.writes.response)]
        .filter { !$0.1.isEmpty }.map { ("\(run.template.name)-\($0.0)", $0.1) }
    }
  }

  private static func spectra(_ outcome: SuiteOutcome) -> [LatencySpectrum] {
    outcome.runs.flatMap { run in
      [("read", run.result.reads), ("write", run.result.writes)].filter { !$0.1.response.isEmpty }.map {
        operation, of in
        LatencySpectrum(
          run: run.template.name, operation: operation, isOpen: run.template.loop.isOpen, response: of.response,
          service: of.service)
      }
    }
  }

  /// Writes the history as JSON lines.
  static func writeHistory(_ operations: [HistoryOperation], to path: String) throws {
    guard FileManager.default.createFile(atPath: path, contents: nil),
      let file = FileHandle(forWritingAtPath: path)
    else { throw UsageError("the history cannot be written to \(path)") }
    defer { try? file.close() }
    var bytes: [UInt8] = []
    for operation in operations {
      HistoryFile.append(operation, to: &bytes)
      if bytes.count >= 1 << 20 {
        try file.write(contentsOf: bytes)
        bytes.removeAll(keepingCapacity: true)
      }
    }
    try file.write(contentsOf: bytes)
  }
}
