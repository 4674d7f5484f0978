"""State of a phase on disk: checkpoints, records of committed steps, exported weights."""
