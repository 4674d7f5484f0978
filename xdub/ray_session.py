"""Connection to Ray: the cluster of this job, the cluster that RAY_ADDRESS names, or a Ray that this process starts."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdub.errors import UserError
from xdub.files.user_folders import ray_folder, spill_folder
from xdub.ray_address import check_address
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


_connections: set[tuple[str, str]] = set()
"""Connections that `ensure_ray` opened: (address, job); any other connection of this process is the caller's."""


def ensure_ray(cpus: int = 1) -> bool:
    """Connect to Ray; return False if this process is connected already.

    A Ray of our own has at least ``cpus`` logical CPUs, and two more than the machine: training workers must leave
    some for the data actors, or both wait for ever. ``XDUB_WORKER_LOGS=1`` shows the workers' output, also in a job.

    Raises:
        UserError: the cluster that RAY_ADDRESS names cannot be used, or the caller is connected by Ray Client.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        _check_direct_connection()
        if on_a_cluster() or not is_ours() or ray.cluster_resources().get("CPU", 0) >= cpus:
            return False
        ray.shutdown()  # our own Ray is too small for this call
    with _own_stop_handler():
        if on_a_cluster():
            _connect_to_cluster()
        else:
            ensure_token()
            _start(cpus)
    _connections.add(_connection())
    return True


def is_ours() -> bool:
    """Return True if `ensure_ray` opened this process's connection to Ray, so this package may close it."""
    import ray

    return ray.is_initialized() and _connection() in _connections


def disconnect() -> None:
    """Close a connection that `ensure_ray` opened, which ends a Ray of our own; keep a connection of the caller."""
    import ray

    if is_ours():
        ray.shutdown()


def _connection() -> tuple[str, str]:
    """Return the address and the job of this process's connection."""
    import ray

    context = ray.get_runtime_context()
    return context.gcs_address, context.get_job_id()


def _check_direct_connection() -> None:
    """Raise UserError if the caller is connected by Ray Client, which has no access to the cluster's state."""
    from ray.util.client import ray as client

    if client.is_connected():
        raise UserError(
            "this process is connected by Ray Client (ray://...), which is not supported; call ray.init() with the "
            "HOST:PORT of the cluster on one of its machines, or use `xdub submit`"
        )


def _connect_to_cluster() -> None:
    """Connect to the cluster of this job, or the cluster that RAY_ADDRESS names."""
    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": _worker_logs()}
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        ray.init(**quiet)  # the job has its own environment of workers, which may not be given twice
        return
    check_address()
    with _worker_settings() as settings:
        ray.init(**quiet, runtime_env=settings)


def _start(cpus: int) -> None:
    """Start a Ray of our own."""
    import ray

    _check_python_path()
    folder = ray_folder()
    for attempt in range(1, STARTS + 1):
        try:
            with environment(NO_DASHBOARD), _worker_settings() as settings:
                if shlex.quote(sys.executable) != sys.executable:
                    # Ray inserts the path of Python into a command of the shell without quotes.
                    settings["py_executable"] = shlex.quote(sys.executable)
                ray.init(
                    address="local",  # a bare init would follow cluster files that a killed Ray left
                    num_cpus=max(cpus, (os.cpu_count() or 1) + 2),
                    include_dashboard=False,
                    _temp_dir=str(folder),
                    object_spilling_directory=spill_folder(folder),
                    object_store_memory=OBJECT_STORE_BYTES,
                    logging_level=logging.ERROR,
                    log_to_driver=_worker_logs(),
                    runtime_env=settings,
                )
            return
        except Exception as error:
            # On a busy machine Ray's processes may need longer than the 30 s that Ray waits for them.
            if attempt == STARTS or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def _check_python_path() -> None:
    """Raise UserError for a path of Python with which Ray would start no worker and wait without end."""
    quotes, blanks = set("'\\"), set(" \t")
    # Ray quotes a path for the command of its workers only if the path has a blank.
    if quotes & set(sys.executable) and not blanks & set(sys.executable):
        raise UserError(
            f"{sys.executable}: Ray cannot start a Python in a folder whose name has a quotation mark or a backslash; "
            "create the virtual environment in another folder"
        )


@contextlib.contextmanager
def _own_stop_handler() -> Iterator[None]:
    """Restore the caller's handler of SIGTERM after the block, in the main thread.

    Ray replaces it twice: by a handler of Python, and below Python by one of its core that prints a stack and aborts
    the process 3 s later, in the middle of a cleanup. Ray's handler of Python stays if the caller has none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        handler = signal.getsignal(signal.SIGTERM) if before in (signal.SIG_DFL, None) else before
        if handler is not None:
            # This call also replaces the core's handler.
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _worker_settings() -> Iterator[dict[str, Any]]:
    """Return Ray's settings for workers that import nothing from the current folder; use them inside the block.

    Ray inserts the driver's current folder before all others in the workers' search path, so a user's ``torch.py``
    would replace torch. It does not if workers have a folder of their own, here an empty one. They change to the
    current folder afterwards, so relative paths keep their meaning on this machine.
    """
    with tempfile.TemporaryDirectory(prefix="xdub-") as empty:
        yield {
            "working_dir": empty,
            "env_vars": {"PYTHONSAFEPATH": "1"},
            "worker_process_setup_hook": _begin_worker(os.getcwd(), _script_folder()),
        }


def _script_folder() -> str | None:
    """Return the folder of the caller's script if Python imports from it, None for the command line."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    folder = os.path.dirname(os.path.realpath(main)) if main else ""
    return folder if folder and folder in sys.path and folder != os.path.dirname(sys.executable) else None


def _begin_worker(current_folder: str, script_folder: str | None) -> Callable[[], None]:
    """Return the function that every worker calls first.

    It is a nested function, so Ray sends its code and not its name: nothing is imported before the path is in order.
    """

    def begin() -> None:
        import contextlib
        import os
        import sys

        with contextlib.suppress(OSError):  # a worker of a cluster may have no such folder
            os.chdir(current_folder)
        if script_folder is not None:
            # The caller's own modules are found, after all packages.
            sys.path.append(script_folder)

    return begin


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
        # On a file system without links this fails, and the token is in the environment.
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)


def hush(data: Dataset) -> None:
    """Send notices about the start, end and settings of a data set to Ray's log files only; errors are still shown."""
    data.context.enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        # The stream handler prints to the terminal; the session's file has a handler of its own.
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)
