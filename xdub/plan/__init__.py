"""Memory, FLOPs, hours, cost and bytes of a training run, computed from its recipe. The package needs no GPU."""
