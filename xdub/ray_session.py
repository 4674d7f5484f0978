"""Connection to Ray: the cluster of this job, the cluster that RAY_ADDRESS names, or a Ray that this process starts."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xdub.files.user_folders import ray_folder, spill_folder
from xdub.runtime_env import on_a_cluster, prepare_environment

if TYPE_CHECKING:
    from ray.data import Dataset

OBJECT_STORE_BYTES = 400_000_000
"""Shared memory of a Ray of our own."""
STARTS = 3
"""Attempts to start a Ray of our own."""
NO_DASHBOARD = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}
"""Environment of the processes of a Ray of our own, which has no dashboard: nothing listens on the discard port.

Ray Train queries the dashboard for the state of its controller. Without an address it searches for one for 40 s, and
a failure in that time is reported 11 s late.
"""


def ensure_ray(cpus: int = 1) -> bool:
    """Connect to Ray; return False if this process is connected already.

    A Ray of our own has at least ``cpus`` logical CPUs, and two more than the machine: training workers must leave
    some for the data actors, or both wait for ever. ``XDUB_WORKER_LOGS=1`` shows the workers' output, also in a job.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        return False
    if on_a_cluster():
        ray.init(logging_level=logging.ERROR, log_to_driver=_worker_logs())
        return True
    ensure_token()
    folder = ray_folder()
    for attempt in range(1, STARTS + 1):
        try:
            with environment(NO_DASHBOARD):
                ray.init(
                    address="local",  # a bare init would follow cluster files that a killed Ray left
                    num_cpus=max(cpus, (os.cpu_count() or 1) + 2),
                    include_dashboard=False,
                    _temp_dir=str(folder),
                    object_spilling_directory=spill_folder(folder),
                    object_store_memory=OBJECT_STORE_BYTES,
                    logging_level=logging.ERROR,
                    log_to_driver=_worker_logs(),
                )
            return True
        except Exception as error:
            # On a busy machine Ray's processes may need longer than the 30 s that Ray waits for them.
            if attempt == STARTS or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
    raise AssertionError


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that start inside the block; this process keeps its own."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _worker_logs() -> bool:
    """Return True if this process prints the output of its workers."""
    return bool(os.environ.get("XDUB_WORKER_LOGS"))


def ensure_token() -> None:
    """Create the token that protects the Rays of this user, unless it exists; only this user can read it.

    Ray would create a token that others can read. Two Rays that start at once on a new machine would each create their
    own and then refuse each other. Where no file can be written, such as in a read-only home, this process and its
    children have a token of their own, in their environment.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    try:
        path = Path.home() / ".ray" / "auth_token"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.path.lexists(path):
            _write_token(path)
        # A token that another user wrote would let that user run code in our Ray.
        usable = path.stat().st_uid in (0, os.getuid()) and bool(path.read_text().strip())
    except (OSError, RuntimeError):
        usable = False
    if not usable:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _write_token(path: Path) -> None:
    """Create the token's file at once with its content; a file of another process counts."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(
                name, path
            )  # some file systems have no links, so their users have tokens in the environment
    finally:
        os.unlink(name)


def hush(data: Dataset) -> None:
    """Send notices about the start, end and settings of a data set to Ray's log files only; errors are still shown."""
    data.context.enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        # The stream handler prints to the terminal; the session's file has a handler of its own.
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)


def draining_nodes() -> set[str]:
    """Return the ids of machines that are about to leave, such as reclaimed spot instances."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    nodes = [*status.active_nodes, *status.idle_nodes]
    return {node.node_id for node in nodes if node.node_id and node.node_status == "DRAINING"}


def autoscaler_limits() -> dict[str, float]:
    """Return the most of each resource that the cluster's autoscaler may start; {} without an autoscaler.

    Ray has no public access to these limits, so this one place uses a private function of Ray 2.56 to 2.60.
    """
    import ray

    try:
        return ray._private.state.state.get_max_resources_from_cluster_config() or {}
    except AttributeError as error:
        raise RuntimeError(
            f"Ray {ray.__version__} keeps its autoscaler's limits elsewhere than Ray 2.56 to 2.60; install one of those"
        ) from error
