import Load

/// What starts the cluster that the suites drive.
func clusterFactory() -> any TargetFactory { EmbeddedTargetFactory() }
