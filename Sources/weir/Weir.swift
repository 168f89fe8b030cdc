import ArgumentParser

/// The node's command line: one subcommand a file, in `Commands/`.
@main
struct Weir: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "weir",
    abstract: "A replicated in-memory cache on Raft and SWIM gossip.",
    subcommands: subcommandList)

  /// Every subcommand, in the order the help shows. Add yours here.
  static let subcommandList: [any ParsableCommand.Type] = [
    NodeCommand.self,
    WAL.self,
    TortureNode.self,
  ]
}
