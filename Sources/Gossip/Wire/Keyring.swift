import Crypto

/// The keys that the members share: the first one encrypts, every one is tried to decrypt.
///
/// To change the key of a running cluster: add the new key on every member, then use it on every member, then remove
/// the old one. At each step every member can read what every other sends.
public struct Keyring: Sendable {
  /// AES keys of 16, 24 or 32 bytes; the primary first.
  public private(set) var keys: [[UInt8]]

  /// `SymmetricKey` copies its bytes into memory of its own, so they are made once per key and not once per packet.
  var symmetricKeys: [SymmetricKey]

  /// A keyring whose first key encrypts. Throws `invalidKeyLength`.
  public init(primary: [UInt8], others: [[UInt8]] = []) throws(WireError) {
    keys = []
    symmetricKeys = []
    try add(primary)
    for key in others { try add(key) }
  }

  /// Installs a key for decryption; a key that is installed already stays where it is. Throws `invalidKeyLength`.
  public mutating func add(_ key: [UInt8]) throws(WireError) {
    guard key.count == 16 || key.count == 24 || key.count == 32 else {
      throw .invalidKeyLength(byteCount: key.count)
    }
    guard !keys.contains(key) else { return }
    keys.append(key)
    symmetricKeys.append(SymmetricKey(data: key))
  }

  /// Makes an installed key the one that encrypts. Throws `keyNotInstalled`.
  public mutating func use(_ key: [UInt8]) throws(WireError) {
    guard let index = keys.firstIndex(of: key) else { throw .keyNotInstalled }
    keys.insert(keys.remove(at: index), at: 0)
    symmetricKeys.insert(symmetricKeys.remove(at: index), at: 0)
  }

  /// Forgets a key; one that is not installed is no error. Throws `cannotRemovePrimaryKey`.
  public mutating func remove(_ key: [UInt8]) throws(WireError) {
    guard let index = keys.firstIndex(of: key) else { return }
    guard index != 0 else { throw .cannotRemovePrimaryKey }
    keys.remove(at: index)
    symmetricKeys.remove(at: index)
  }

  public var primary: [UInt8] { keys[0] }
}

extension Keyring: CustomStringConvertible, CustomDebugStringConvertible {
  /// Never the keys themselves: descriptions end up in logs.
  public var description: String { "Keyring(\(keys.count) keys)" }
  public var debugDescription: String { description }
}
