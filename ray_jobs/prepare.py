"""Cluster entry point of `xdub prepare` on the Ray cluster that the job was submitted to.

ray job submit --working-dir . -- python ray_jobs/prepare.py --help
"""

from __future__ import annotations

import sys

from xdub.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "prepare")
    main()
