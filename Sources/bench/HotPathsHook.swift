import Measure

/// The hot paths of the optimized core, measured alone, for the summary of the default suite.
func measureHotPaths() -> [HotPathSummary] { [] }
