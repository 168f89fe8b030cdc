import Testing
import WeirCache

@Suite struct MemberMetadataTests {
  @Test func roundTrips() {
    var metadata = MemberMetadata(raftID: 0x0102_0304, clusterID: .max, role: .leader, raftAddress: "127.0.0.1:7000")
    #expect(MemberMetadata(decoding: metadata.encoded()) == metadata)
    metadata.clientAddress = "[::1]:6379"
    let bytes = metadata.encoded()
    #expect(bytes.count == 20 + 1 + 14 + 1 + 10)
    #expect(Array(bytes[..<12]) == [0x57, 0x52, 1, 2, 4, 3, 2, 1, 0, 0, 0, 0])
    #expect(MemberMetadata(decoding: bytes) == metadata)
  }

  @Test func theLongestFitsWhatGossipAllows() {
    let long = String(repeating: "h", count: 300)
    let metadata = MemberMetadata(raftID: 1, clusterID: 1, role: .follower, raftAddress: long, clientAddress: long)
    #expect(metadata.encoded().count == 502)
    #expect(MemberMetadata(decoding: metadata.encoded())?.clientAddress.count == 240)
  }

  @Test func anythingElseIsLeftAlone() {
    let bytes = MemberMetadata(
      raftID: 7, clusterID: 1, role: .follower, raftAddress: "[::1]:1", clientAddress: "[::1]:2"
    ).encoded()
    for length in 0..<bytes.count { #expect(MemberMetadata(decoding: Array(bytes[..<length])) == nil) }
    #expect(MemberMetadata(decoding: bytes + [0]) == nil)
    for position in [0, 1, 2] {
      var wrong = bytes
      wrong[position] ^= 0x40
      #expect(MemberMetadata(decoding: wrong) == nil)
    }
    var wrongRole = bytes
    wrongRole[3] = 9
    #expect(MemberMetadata(decoding: wrongRole) == nil)
    #expect(
      MemberMetadata(decoding: MemberMetadata(raftID: 0, clusterID: 1, role: .leader, raftAddress: "").encoded()) == nil
    )
  }
}
