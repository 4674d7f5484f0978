"""Kernels against their competitors: correctness, time, machine code and the tables made of both."""
