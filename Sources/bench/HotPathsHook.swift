import HotPaths
import Measure

/// The hot paths of the optimized core, measured alone and briefly, for the summary of the default suite.
func measureHotPaths() -> [HotPathSummary] {
  HotPathReport.measure(short: true).hotPaths.map { path in
    HotPathSummary(
      name: path.name, suite: path.suite.rawValue, nanosecondsPerOp: path.nanosecondsPerOp,
      allocationsPerOp: path.allocationsPerOp, bytesPerOp: path.bytesPerOp,
      reference: path.reference.map { .init(name: $0.name, nanosecondsPerOp: $0.nanosecondsPerOp) })
  }
}
