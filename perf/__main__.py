"""`python -m perf COMMAND`: benchmarks of the kernels, with correctness before speed, and of the data stream."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from perf import compare, data, plot, report, run, static, tune


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for part in (run, static, tune, compare, report, plot, data):
        part.add_parser(commands)
    told = parser.parse_args(arguments)
    return told.main(told)


if __name__ == "__main__":
    sys.exit(main())
