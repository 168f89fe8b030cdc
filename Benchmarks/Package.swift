// swift-tools-version: 6.1
import PackageDescription

// A package of its own, so that the tool that runs benchmarks is never built with the library.
//
//   ./run            every benchmark, then the instructions of each hot path where valgrind is installed
//   ./check          only the allocations of the hot paths, against Thresholds/
//
// Thresholds/ holds nothing but counts of our own allocation counter: they are exact. `swift package benchmark thresholds
// update` would write times there too, which are not: a new hot path's file is a copy of another's.

let suites = ["LogAppend", "MessageEncoding", "QuorumCommit", "BroadcastQueue", "RaftCore"]

let benchmark: Target.Dependency = .product(name: "Benchmark", package: "benchmark")
let hotPaths: Target.Dependency = .product(name: "HotPaths", package: "weir")

let package = Package(
  name: "weir-benchmarks",
  platforms: [.macOS(.v15)],
  dependencies: [
    .package(name: "weir", path: ".."),
    // Without its traits: on Linux they ask for packages that interpose the allocator, which ours does already.
    .package(url: "https://github.com/ordo-one/benchmark", from: "1.38.1", traits: []),
  ],
  targets: [
    .target(name: "Support", dependencies: [benchmark, hotPaths], path: "Benchmarks/Support"),
    .executableTarget(name: "Instructions", dependencies: [hotPaths]),
  ]
    + suites.map { suite in
      .executableTarget(
        name: suite, dependencies: ["Support", benchmark, hotPaths], path: "Benchmarks/\(suite)",
        plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")])
    }
)
