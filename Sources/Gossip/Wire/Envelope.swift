import Crypto

/// The encryption envelope: `version, nonce[12], ciphertext, tag[16]`, AES-GCM.
///
/// Version 0 pads the plaintext by PKCS#7 to 16 bytes before sealing (peers that speak protocol 1); version 1 does not.
/// Receivers take both, whatever they speak themselves.
public enum Envelope {
  static let nonceBytes = 12
  static let tagBytes = 16
  static let blockBytes = 16
  /// What a version 1 envelope adds.
  public static let plainOverheadBytes = 1 + nonceBytes + tagBytes
  /// The most that a version 0 envelope adds.
  public static let largestPaddedOverheadBytes = plainOverheadBytes + blockBytes

  /// The nonce of one envelope. Two envelopes of one key must never share it, so the generator that makes it must be
  /// one that cannot be guessed or repeated in production (a seeded one is for simulation only).
  struct Nonce {
    let bytes: [UInt8]

    init(using generator: inout some RandomNumberGenerator) {
      let first = generator.next()
      let second = generator.next()
      var bytes: [UInt8] = []
      bytes.reserveCapacity(Envelope.nonceBytes)
      for shift in stride(from: UInt64(0), to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: first >> shift)) }
      for shift in stride(from: UInt64(0), to: 32, by: 8) { bytes.append(UInt8(truncatingIfNeeded: second >> shift)) }
      self.bytes = bytes
    }
  }

  /// The size of the envelope around so many bytes.
  static func sealedByteCount(of plaintextBytes: Int, version: UInt8) -> Int {
    version == 0
      ? plainOverheadBytes + (plaintextBytes / blockBytes + 1) * blockBytes : plainOverheadBytes + plaintextBytes
  }

  /// Appends the envelope around `plaintext` to `output`, sealed by the primary key.
  static func seal(
    _ plaintext: [UInt8], version: UInt8, keyring: Keyring, authenticating associated: [UInt8],
    nonce: Nonce, into output: inout [UInt8]
  ) throws(WireError) {
    var padded = plaintext
    if version == 0 {
      let padding = blockBytes - plaintext.count % blockBytes
      padded.append(contentsOf: repeatElement(UInt8(padding), count: padding))
    }
    do {
      let box = try AES.GCM.seal(
        padded, using: keyring.symmetricKeys[0], nonce: AES.GCM.Nonce(data: nonce.bytes),
        authenticating: associated)
      // The box holds nonce, ciphertext and tag one after the other, which is the envelope's own order.
      guard let combined = box.combined else { throw WireError.encryptionFailed }
      output.append(version)
      output.append(contentsOf: combined)
    } catch {
      // It fails only for a nonce or key of a wrong length, and both are checked where they are made.
      throw .encryptionFailed
    }
  }

  /// The plaintext of an envelope, opened by whichever key of the keyring fits.
  /// Throws `truncated`, `unknownEncryptionVersion`, `decryptionFailed` or `invalidPadding`.
  static func open(
    _ envelope: Span<UInt8>, keyring: Keyring, authenticating associated: [UInt8]
  ) throws(WireError) -> [UInt8] {
    guard envelope.count > 0 else { throw .truncated(neededBytes: plainOverheadBytes) }
    let version = envelope[0]
    guard version <= 1 else { throw .unknownEncryptionVersion(version) }
    let smallest = version == 0 ? plainOverheadBytes + blockBytes : plainOverheadBytes
    guard envelope.count >= smallest else { throw .truncated(neededBytes: smallest) }
    guard let box = try? AES.GCM.SealedBox(combined: [UInt8](copying: envelope.extracting(1...))) else {
      throw .decryptionFailed
    }
    for key in keyring.symmetricKeys {
      guard let plaintext = try? AES.GCM.open(box, using: key, authenticating: associated) else { continue }
      var bytes = [UInt8](plaintext)
      if version == 0 { try removePadding(&bytes) }
      return bytes
    }
    throw .decryptionFailed
  }

  /// Takes PKCS#7 padding off, checking every byte of it: memberlist looks only at the last one and trusts it.
  private static func removePadding(_ bytes: inout [UInt8]) throws(WireError) {
    guard let last = bytes.last, last >= 1, Int(last) <= blockBytes, Int(last) <= bytes.count,
      bytes.count % blockBytes == 0, bytes.suffix(Int(last)).allSatisfy({ $0 == last })
    else { throw .invalidPadding }
    bytes.removeLast(Int(last))
  }
}
