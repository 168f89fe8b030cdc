// swift-tools-version: 6.2
import PackageDescription

// Set in CI: every warning is an error there, and stays a warning for somebody with a newer compiler.
let isStrict = Context.environment["WEIR_STRICT"] == "1"

let common: [SwiftSetting] =
  isStrict ? [.treatAllWarnings(as: .error)] : []

// The pure rooms are optimized in debug builds too: their tests run tens of thousands of seeds and random
// cases, which takes minutes instead of seconds without the optimizer. Assertions stay on.
let optimized: [SwiftSetting] =
  common + [
    .unsafeFlags(["-O"], .when(configuration: .debug))
  ]

// Unsafe code lives in these four rooms only (WeirCache's is the table of the state machine, on the path of every
// committed entry), and each use of it is marked.
let memorySafe: [SwiftSetting] = [.strictMemorySafety()]

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let collections: Target.Dependency = .product(name: "Collections", package: "swift-collections")
let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let histogram: Target.Dependency = .product(name: "Histogram", package: "hdrhistogram-swift")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")

let package = Package(
  name: "weir",
  products: [
    .library(name: "WeirCore", targets: ["WeirCore"]),
    .library(name: "Raft", targets: ["Raft"]),
    .library(name: "Gossip", targets: ["Gossip"]),
    .library(name: "HTTPWire", targets: ["HTTPWire"]),
    .library(name: "RESPWire", targets: ["RESPWire"]),
    .library(name: "WeirTransport", targets: ["WeirTransport"]),
    .library(name: "WeirStorage", targets: ["WeirStorage"]),
    .library(name: "WeirCache", targets: ["WeirCache"]),
    .library(name: "HotPaths", targets: ["HotPaths"]),
    .library(name: "Measure", targets: ["Measure"]),
    .executable(name: "bench", targets: ["bench"]),
    .executable(name: "weir", targets: ["weir"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
  ],
  targets: [
    // C shims, only where Swift cannot reach.
    .target(name: "CWeir"),
    .systemLibrary(name: "CJemalloc"),
    .target(name: "CAllocationCounter"),

    // The optimized core and the two protocols: pure.
    .target(name: "WeirCore", dependencies: ["CWeir"], swiftSettings: optimized + memorySafe),
    .target(name: "Raft", dependencies: ["WeirCore"], swiftSettings: optimized),
    .target(name: "Gossip", dependencies: ["WeirCore", crypto], swiftSettings: optimized),

    // HTTP/1.1 and RESP2 as bytes: pure.
    .target(name: "HTTPWire", swiftSettings: optimized),
    .target(name: "RESPWire", swiftSettings: optimized),

    // The node.
    .target(
      name: "WeirTransport", dependencies: ["WeirCore", "CWeir", logging],
      swiftSettings: optimized + memorySafe),
    .target(
      name: "WeirStorage", dependencies: ["WeirCore", "CWeir", logging],
      swiftSettings: optimized + memorySafe),
    .target(
      name: "WeirCache",
      dependencies: [
        "WeirCore", "Raft", "Gossip", "WeirTransport", "WeirStorage", "HTTPWire", "RESPWire", "CWeir", logging,
      ],
      swiftSettings: optimized + memorySafe),

    // Measuring and judging.
    .target(name: "Measure", dependencies: ["CWeir", crypto, histogram], swiftSettings: optimized),
    .target(name: "Linearizability", swiftSettings: optimized),
    .target(
      name: "Load", dependencies: ["Measure", "Linearizability", "CWeir"], swiftSettings: optimized),
    .target(
      name: "Simulation",
      dependencies: ["WeirCore", "Raft", "Gossip", "WeirStorage", "Linearizability"],
      swiftSettings: optimized),
    .target(
      name: "HotPaths", dependencies: ["WeirCore", "Raft", "CAllocationCounter", "CWeir"],
      swiftSettings: optimized),
    .target(name: "Report", dependencies: ["Measure"], swiftSettings: common),
    .target(name: "Gate", dependencies: ["Measure"], swiftSettings: common),

    // What people run.
    .executableTarget(
      name: "bench",
      dependencies: [
        "WeirCore", "WeirCache", "WeirTransport", "WeirStorage", "Raft", "Gossip", "Load", "Measure",
        "Linearizability", "Simulation", "HotPaths", "Report",
        "Gate", "CAllocationCounter", "CJemalloc", "CWeir", argumentParser, logging,
      ],
      swiftSettings: common),
    .executableTarget(
      name: "weir",
      dependencies: [
        "WeirCache", "WeirStorage", "WeirTransport", "WeirCore", "Gossip", "HTTPWire", "CWeir", argumentParser, logging,
      ],
      swiftSettings: common),

    // Tests mirror the rooms.
    .target(name: "TestSupport", dependencies: [logging], path: "Tests/TestSupport", swiftSettings: common),
    .testTarget(
      name: "WeirCoreTests", dependencies: ["WeirCore", "CWeir", "HotPaths", "CAllocationCounter", "TestSupport"],
      swiftSettings: optimized),
    .testTarget(
      name: "RaftTests", dependencies: ["Raft", "TestSupport"], exclude: ["Scripts"], swiftSettings: optimized),
    .testTarget(
      name: "GossipTests", dependencies: ["Gossip", "CAllocationCounter", "TestSupport"], swiftSettings: common),
    .testTarget(name: "HTTPWireTests", dependencies: ["HTTPWire"], swiftSettings: common),
    .testTarget(name: "RESPWireTests", dependencies: ["RESPWire"], swiftSettings: common),
    .testTarget(name: "WeirTransportTests", dependencies: ["WeirTransport", "TestSupport"], swiftSettings: common),
    .testTarget(name: "WeirStorageTests", dependencies: ["WeirStorage"], swiftSettings: optimized),
    .testTarget(
      name: "WeirCacheTests",
      dependencies: [
        "WeirCache", "WeirTransport", "WeirStorage", "Raft", "HTTPWire", "RESPWire", "CWeir", "Linearizability",
        "TestSupport",
      ],
      swiftSettings: common),
    .testTarget(name: "MeasureTests", dependencies: ["Measure"], swiftSettings: common),
    .testTarget(name: "LinearizabilityTests", dependencies: ["Linearizability"], swiftSettings: common),
    .testTarget(name: "LoadTests", dependencies: ["Load"], swiftSettings: common),
    .testTarget(name: "SimulationTests", dependencies: ["Simulation", "TestSupport"], swiftSettings: optimized),
    .testTarget(name: "ReportTests", dependencies: ["Report"], swiftSettings: common),
    .testTarget(name: "GateTests", dependencies: ["Gate"], swiftSettings: common),
    .testTarget(name: "BenchTests", dependencies: ["Load", "Measure"], swiftSettings: common),
  ],
  swiftLanguageModes: [.v6]
)
