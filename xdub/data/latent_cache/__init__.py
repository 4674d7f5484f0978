"""Latents and speech features of all windows of a data set, computed once by `xdub encode` and read in each epoch."""
