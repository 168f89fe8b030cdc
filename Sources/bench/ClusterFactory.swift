import Load

/// What starts the cluster that the suites drive.
func clusterFactory(_ eventLoop: EventLoopOptions) throws -> any TargetFactory {
  EmbeddedTargetFactory(eventLoop: eventLoop.configuration)
}
