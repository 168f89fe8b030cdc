// swift-tools-version: 6.2
import PackageDescription

// Fuzz targets of the decoders, for libFuzzer. A package of its own: building it needs the fuzzer's runtime and its
// instrumentation, which no other build wants.
//
//   ./run 60                     every target for so many seconds
//   ./run 600 FuzzSnapshot       one of them
//
// What it runs: swift build -c release -Xswiftc -sanitize=fuzzer -Xswiftc -use-ld=lld, then .build/release/FuzzSnapshot.

/// Each target's name, and the rooms it reaches into. One folder each under Sources/.
let fuzzers: [(name: String, rooms: [String])] = [
  ("FuzzGossipPacket", ["Gossip"]),
  ("FuzzGossipStream", ["Gossip"]),
  ("FuzzMessage", ["WeirCore"]),
  ("FuzzLogFrames", ["WeirCore"]),
  ("FuzzLogRecords", ["WeirCore", "WeirStorage"]),
  ("FuzzSnapshot", ["WeirCore", "WeirStorage"]),
  ("FuzzHTTPRequest", ["HTTPWire"]),
  ("FuzzRESPCommand", ["RESPWire"]),
]

let package = Package(
  name: "weir-fuzz",
  dependencies: [.package(name: "weir", path: "../..")],
  targets: [
    .target(name: "CFuzzDriver"),
    .target(name: "FuzzSupport", dependencies: ["CFuzzDriver", .product(name: "WeirCore", package: "weir")]),
  ]
    + fuzzers.map { fuzzer in
      .executableTarget(
        name: fuzzer.name,
        dependencies: ["CFuzzDriver", "FuzzSupport"] + fuzzer.rooms.map { .product(name: $0, package: "weir") },
        swiftSettings: [.unsafeFlags(["-parse-as-library"])])
    },
  swiftLanguageModes: [.v6]
)
