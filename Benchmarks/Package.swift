// swift-tools-version: 6.1
import PackageDescription

// A package of its own, so that the tool that runs benchmarks is never built with the library.
let package = Package(
  name: "weir-benchmarks",
  platforms: [.macOS(.v15)],
  dependencies: [
    .package(name: "weir", path: ".."),
    .package(url: "https://github.com/ordo-one/benchmark", from: "1.38.1", traits: []),
  ],
  targets: [
    .target(
      name: "Support",
      dependencies: [
        .product(name: "Benchmark", package: "benchmark"), .product(name: "HotPaths", package: "weir"),
      ],
      path: "Benchmarks/Support")
  ]
    + ["LogAppend", "MessageEncoding", "QuorumCommit", "BroadcastQueue", "RaftCore"].map { suite in
      .executableTarget(
        name: suite,
        dependencies: [
          "Support", .product(name: "Benchmark", package: "benchmark"), .product(name: "HotPaths", package: "weir"),
        ],
        path: "Benchmarks/\(suite)",
        plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")])
    }
)
