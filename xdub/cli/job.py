"""Entry point of a job on the cluster: `python -m xdub.cli.job VERB ...` runs the verb if the versions agree."""

from __future__ import annotations

import json
import os
import sys

from xdub.submit.versions import SUBMITTED, differences, versions


def version_mismatch() -> str | None:
    """Return why this cluster cannot run the job, or None if it can."""
    submitted = os.environ.get(SUBMITTED)
    differing = differences(json.loads(submitted), versions()) if submitted else []
    if not differing:
        return None
    return (
        f"the cluster's image does not fit: {'; '.join(differing)}; use an image with the same versions, "
        "or submit from one"
    )


def main() -> None:
    """Run the verb; exit code 2 if the versions do not agree."""
    from xdub.cli import main as run

    reason = version_mismatch()
    if reason is not None:
        print(f"xdub: error: {reason}", file=sys.stderr)
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
