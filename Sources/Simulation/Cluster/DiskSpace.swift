// Disks without room: the node ends at the first write that needs some, and comes back when there is.
extension SimulatedCluster {
  func fillDisk(_ number: Int, _ node: SimulatedNode) {
    guard let store = node.store, !node.isRetired else { return }
    mark(.diskFull)
    faultNodes[number] = node.position
    node.fullDisks += 1
    store.setFull(true)
  }

  func makeSpace(_ number: Int) {
    guard faultNodes[number] >= 0 else { return }
    let node = nodes[faultNodes[number]]
    faultNodes[number] = -1
    node.fullDisks -= 1
    if node.fullDisks == 0 { node.store?.setFull(false) }
  }
}
