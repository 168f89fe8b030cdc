import Foundation
import Testing

@testable import Linearizability

@Suite("History files")
struct HistoryFileTests {
  @Test("A line has exactly the names that scripts rely on")
  func line() {
    var bytes: [UInt8] = []
    HistoryFile.append(set(0xAB, 12, 34, key: 7), to: &bytes)
    HistoryFile.append(get(0, 56, 78, key: 7, .unknown), to: &bytes)
    HistoryFile.append(delete(90, 91, key: 7, .failed), to: &bytes)
    let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    #expect(
      lines == [
        #"{"client":1,"op":"set","key":"0000000000000007","value":"00000000000000ab","call_ns":12,"return_ns":34,"status":"ok"}"#,
        #"{"client":2,"op":"get","key":"0000000000000007","value":null,"call_ns":56,"return_ns":78,"status":"unknown"}"#,
        #"{"client":3,"op":"del","key":"0000000000000007","value":null,"call_ns":90,"return_ns":91,"status":"failed"}"#,
      ])
  }

  @Test("What is written is read back, and judged the same")
  func roundTrip() throws {
    for seed in 1...40 as ClosedRange<UInt64> {
      let history = CrossCheckTests.history(seed: seed, operations: 30, withDeletes: true)
      var bytes: [UInt8] = []
      for operation in history { HistoryFile.append(operation, to: &bytes) }
      let named = try HistoryFile.read(Data(bytes))
      #expect(named.operations.count == history.count)
      for (read, written) in zip(named.operations, history) {
        #expect(read.kind == written.kind && read.outcome == written.outcome && read.client == written.client)
        #expect(read.callNanoseconds == written.callNanoseconds)
        #expect(read.returnNanoseconds == written.returnNanoseconds)
        let value = read.value == 0 ? 0 : try #require(UInt64(named.values[Int(read.value)], radix: 16))
        #expect(value == written.value)
      }
      #expect(
        LinearizabilityChecker.check(named.operations).isLinearizable
          == LinearizabilityChecker.check(history).isLinearizable)
    }
  }

  @Test(
    "A line that is no operation is refused with its number",
    arguments: [
      "nonsense", "{}", #"{"client":-1,"op":"set","key":"k","value":"v","call_ns":1,"return_ns":2,"status":"ok"}"#,
      #"{"client":1,"op":"put","key":"k","value":"v","call_ns":1,"return_ns":2,"status":"ok"}"#,
      #"{"client":1,"op":"set","key":"k","value":"v","call_ns":1,"return_ns":2,"status":"fine"}"#,
    ])
  func refused(line: String) {
    let good = #"{"client":1,"op":"set","key":"k","value":"v","call_ns":1,"return_ns":2,"status":"ok"}"#
    do {
      _ = try HistoryFile.read(Data("\(good)\n\(line)\n".utf8))
      Issue.record("accepted \(line)")
    } catch let error as HistoryFile.ReadError {
      #expect(error.line == 2)
    } catch {
      Issue.record("\(error)")
    }
  }

  @Test("A line that is too long is refused before it is parsed")
  func longLine() {
    let line = Data(repeating: UInt8(ascii: "x"), count: HistoryFile.longestLineBytes + 1)
    #expect(throws: HistoryFile.ReadError.self) { try HistoryFile.read(line) }
  }
}
