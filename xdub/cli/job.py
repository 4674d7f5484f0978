"""What a job runs: `python -m xdub.cli.job VERB ...`, the verb itself after a look at where it has landed."""

from __future__ import annotations

import json
import os
import sys

from xdub.submit.versions import SUBMITTED, differences, versions


def objection() -> str | None:
    """Why the job had better not begin."""
    told = os.environ.get(SUBMITTED)
    apart = differences(json.loads(told), versions()) if told else []
    if not apart:
        return None
    what = "; ".join(apart)
    return (
        f"the cluster's image does not fit: {what}; use an image with the same versions, or submit from one"
    )


def main() -> None:
    from xdub.cli import main as run

    reason = objection()
    if reason is not None:
        print(f"xdub: error: {reason}", file=sys.stderr)
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
