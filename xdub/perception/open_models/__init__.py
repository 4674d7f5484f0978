"""Open models of several files: their registry entries, their download, and their state on this machine."""
