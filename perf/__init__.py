"""Benchmarks: `python -m perf --help`. Measured numbers with their machine and commit live in perf/results."""
