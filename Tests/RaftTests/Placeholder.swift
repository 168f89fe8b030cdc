// The room's first file goes here; this one goes away with it.
