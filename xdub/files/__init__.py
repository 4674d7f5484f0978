"""Files that survive a kill: atomic writes, JSON lines, locks, and the weights shipped with the package."""
