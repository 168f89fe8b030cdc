// The room of the four hot paths.
