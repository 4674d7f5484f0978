"""Pixel losses from a single step (paper Eq. 3, 11, 13); Eq. 1 is an operator of `xdub_kernels`."""
