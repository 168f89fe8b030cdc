import Load

/// What starts the cluster that the suites drive.
func clusterFactory() throws -> any TargetFactory { EmbeddedTargetFactory() }
