"""The Ray that everything here runs on: the cluster we are in, the one that RAY_ADDRESS names, or one of our own."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from xdub.runtime_env import on_a_cluster, prepare_environment

OBJECT_STORE_BYTES = 400_000_000
STARTS = 3


def ensure_ray(cpus: int = 1) -> bool:
    """Connect, unless Ray is connected already: True if this call did it.

    A Ray of our own has at least ``cpus`` logical CPUs, and two more than the machine: training workers must leave
    some for the data actors, or both wait for ever. ``XDUB_WORKER_LOGS=1`` shows what workers print, here and in a job.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        return False
    if on_a_cluster():
        ray.init(logging_level="ERROR", log_to_driver=_worker_logs())
        return True
    ensure_token()
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(
                address="local",  # a bare init would follow cluster files that a killed Ray left
                num_cpus=max(cpus, (os.cpu_count() or 1) + 2),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level="ERROR",
                log_to_driver=_worker_logs(),
            )
            return True
        except Exception as error:
            # On a busy machine Ray's processes may need longer than the 30 s it gives them.
            if attempt == STARTS or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
    raise AssertionError


def _worker_logs() -> bool:
    return bool(os.environ.get("XDUB_WORKER_LOGS"))


def ensure_token() -> None:
    """A token for what Ray starts here: made once for this user, and read by nobody else.

    Ray would make one, for others to read, and two that start at once on a new machine would each make their own and
    then refuse themselves.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = Path.home() / ".ray" / "auth_token"
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    with contextlib.suppress(FileExistsError):  # another process was first: its token is the one
        os.link(name, path)
    os.unlink(name)


def hush(data: Any) -> None:
    """A Ray Data set that tells of its start, end and settings in Ray's log files alone; errors are still shown."""
    data.context.enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(
            handler, logging.StreamHandler
        ):  # the terminal's; the session's file has a handler of its own
            handler.setLevel(logging.ERROR)


def draining_nodes() -> set[str]:
    """Ids of machines that have been told to go, such as reclaimed spot instances."""
    import ray

    return set(ray._private.state.state.get_draining_nodes() or ())
