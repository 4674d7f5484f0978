"""Prepare one video in a fresh process, and print its peak memory as JSON: `perf.system.stages`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from xdub.config import load_recipe
from xdub.data.clip import Clip, to_row
from xdub.data.prepare import Preparer
from xdub.media.isolated import idle_decoders


def peak(process: int | str = "self") -> float:
    """Return the peak memory of a process in MB; `getrusage` would count its parent's before it was executed."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text("utf-8"))
    assert match is not None
    return int(match[1]) / 1024


def main() -> None:
    """Prepare the file of the first argument with the recipe's settings of the others."""
    path, *settings = sys.argv[1:]
    preparer = Preparer(load_recipe("tiny", settings))
    facts = {"loaded_mb": peak(), "clips": 0.0, "rows": 0.0, "encoded_bytes": 0.0}
    for item in preparer(path):
        if isinstance(item, Clip):
            facts["clips"] += 1
            facts["encoded_bytes"] += len(to_row(item)["frames"])
        else:
            facts["rows"] += 1
    facts["prepare_mb"] = peak()
    facts["decoder_mb"] = max(peak(process.pid) for process in idle_decoders())
    print(json.dumps(facts | preparer.clock.scores()))


if __name__ == "__main__":
    main()
