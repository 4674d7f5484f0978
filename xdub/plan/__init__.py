"""What a run will take before it is paid for: parameters, memory, FLOPs, hours, bytes. Nothing here needs a GPU."""
