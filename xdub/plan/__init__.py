"""Memory, FLOPs, hours, cost and bytes of a training run, computed from its recipe. Nothing here needs a GPU."""
