import Benchmark
import Support

let benchmarks: @Sendable () -> Void = { registerBenchmarks(of: .broadcastQueue) }
