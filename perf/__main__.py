"""`python -m perf COMMAND`: benchmarks of kernels and of the whole system, with correctness before speed."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

KERNELS = ("run", "static", "tune", "compare", "report", "plot")
SYSTEM = ("data", "pool", "submit", "recovery", "resize", "elastic", "checkpoint", "tracking", "unchanged")
MODEL = ("step", "sampler", "segments")
COMMANDS = (*KERNELS, *SYSTEM, *MODEL)
"""Each is the module of that name. Only the one that is asked for is loaded: a rented GPU machine has few packages."""


def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in words[:1] if words[:1] and words[0] in COMMANDS else COMMANDS:
        importlib.import_module(f"perf.{name}").add_parser(commands)
    told = parser.parse_args(words)
    return told.main(told)


if __name__ == "__main__":
    sys.exit(main())
