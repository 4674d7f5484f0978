"""`python -m perf COMMAND`: benchmarks of kernels and of the whole system, with correctness before speed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from perf import (
    checkpoint,
    compare,
    data,
    elastic,
    plot,
    pool,
    recovery,
    report,
    resize,
    run,
    sampler,
    segments,
    static,
    submit,
    tracking,
    tune,
)

KERNELS = (run, static, tune, compare, report, plot)
SYSTEM = (data, pool, submit, recovery, resize, elastic, checkpoint, tracking)
MODEL = (sampler, segments)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for part in (*KERNELS, *SYSTEM, *MODEL):
        part.add_parser(commands)
    told = parser.parse_args(arguments)
    return told.main(told)


if __name__ == "__main__":
    sys.exit(main())
