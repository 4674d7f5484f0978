"""Files that survive a kill: atomic writes, JSON lines, locks."""
