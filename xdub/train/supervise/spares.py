"""Spare processes: the place of a lost rank is taken by one that has loaded a rank's code already.

A rank's process needs seconds to start, most of them for torch, Ray Train and DeepSpeed. Some time after the first step
each machine's first rank has Ray's node manager start as many processes as it has ranks, and Ray gives them to the next
worker group, as it gives out any idle process whose environment is the one that is asked for. So a spare's environment
is a rank's, and inherited by whatever a rank starts; what makes a process a spare is that it finds a *marker*, a file
that it takes for itself. Ray calls :func:`load_ahead` at the start of every process in this environment.

A job's markers lie in Ray's session folder of each machine: `wanted-N` (it says on what the ranks compute) becomes
`spare-PID` when a process takes it, and goes when a rank runs in that process.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

HOOK = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
"""Ray calls the function that this environment variable names at the start of a worker process (Ray 2.60)."""
RANK_ENVIRONMENT = {HOOK: f"{__name__}.load_ahead"}
OTHER_ENVIRONMENT = {HOOK: ""}
"""For other processes that a rank starts: they take neither spares nor markers."""
DELAY_SECONDS = 10.0
"""From the first step on: what Ray Data starts for itself would take the first spares."""
LOOK_SECONDS = 60.0
"""Between looks after the spares."""
ASKS = 3
"""In a row that may lead to nothing."""
FRESH_SECONDS = 60.0
"""Age of a marker that is no longer taken: its spare did not come."""
KEEP_SECONDS = 24 * 3600
"""How long Ray keeps a spare that nobody uses."""
MODULES = (
    "torch.distributed",
    "ray.data",
    "ray.train.torch",
    "ray.train.v2._internal.execution.worker_group.worker",
    "xdub.train.rank",
    "xdub.train.show.samples",
    "xdub.media.clip_bytes",
    "av",
)


class Spares:
    """A rank's part in this, as a context manager: it is no spare any more, and a machine's first rank keeps others.

    Where there can be none, a full disk or a Ray with other internals, it says so once, and training does without.
    """

    def __init__(self, ranks: int, device: str, *, first: bool) -> None:
        """``ranks`` of this machine compute on ``device`` ("cpu" or "cuda"); ``first``: this is the first of them."""
        self._ranks, self._device = ranks, device
        self._wanted = first
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="spares", daemon=True)

    def beat(self) -> None:
        """A step has been made."""
        if self._wanted:
            self._wanted = False
            self._thread.start()

    def __enter__(self) -> Spares:
        with self._or_without():
            _become_rank()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _look_after(self) -> None:
        with self._or_without():
            asked, seconds = 0, DELAY_SECONDS
            while not self._done.wait(seconds):
                asked = asked + 1 if keep(self._ranks, self._device) else 0
                if asked > ASKS:
                    raise RuntimeError(f"Ray has started none, asked {ASKS} times")
                seconds = LOOK_SECONDS

    @contextlib.contextmanager
    def _or_without(self) -> Generator[None]:
        try:
            yield
        except Exception as error:
            self._wanted = False
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"no spare workers, so a lost one will cost seconds more: {text}", file=sys.stderr)


def keep(count: int, device: str) -> int:
    """Have so many spares on this machine; the number that was missing and has been asked for."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    for marker in folder.glob("wanted-*"):
        marker.unlink(missing_ok=True)
    missing = max(0, count - len(running()))
    for number in range(missing):
        (folder / f"wanted-{number}").write_text(device, "utf-8")
    if missing:
        _ask_node_manager(missing)
    return missing


def running() -> list[int]:
    """Process ids of this job's spares on this machine that no rank runs in."""
    pids = {int(path.name.partition("-")[2]): path for path in _folder().glob("spare-*")}
    for pid, path in list(pids.items()):
        if not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)
            del pids[pid]
    return sorted(pids)


def _become_rank() -> None:
    """This process is a spare no longer, if it was one."""
    (_folder() / f"spare-{os.getpid()}").unlink(missing_ok=True)


def load_ahead() -> None:
    """Load a rank's code if this process is to be a spare. Ray would end the process for an exception."""
    try:
        device = _take_marker(_folder())
        if device is not None:
            _load(device)
    except Exception as error:
        print(f"a spare worker could not load ahead: {type(error).__name__}: {error}", file=sys.stderr)


def _take_marker(folder: Path) -> str | None:
    """The device type on a marker that is now this process's; None if there is none."""
    for marker in sorted(folder.glob("wanted-*")):
        with contextlib.suppress(FileNotFoundError):  # another one was quicker
            if time.time() - marker.stat().st_mtime < FRESH_SECONDS:
                return marker.rename(folder / f"spare-{os.getpid()}").read_text("utf-8")
    return None


def _load(device: str) -> None:
    for module in MODULES:
        importlib.import_module(module)
    if device == "cpu":  # elsewhere it would look for GPUs before Ray has said which are this rank's
        import torch

        from xdub.train.engine import import_deepspeed

        import_deepspeed(torch.device(device))


def _folder() -> Path:
    """Of this job's markers on this machine."""
    import ray

    context, node = ray.get_runtime_context(), ray._private.worker.global_worker.node
    return Path(node.get_session_dir_path(), "xdub-spares", context.get_job_id(), context.get_node_id())


def _ask_node_manager(count: int) -> None:
    """Ray has no public way to start processes ahead; its own node manager does it for its drivers."""
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.utils import get_runtime_env_info
    from ray.core.generated import node_manager_pb2, node_manager_pb2_grpc
    from ray.runtime_env import RuntimeEnv

    messages: Any = node_manager_pb2  # made when it is loaded
    context = ray.get_runtime_context()
    info = get_runtime_env_info(RuntimeEnv.deserialize(context.get_runtime_env_string()))
    info.serialized_runtime_env = context.get_runtime_env_string()  # Ray compares it letter by letter
    request = messages.PrestartWorkersRequest(
        language="PYTHON",
        job_id=bytes.fromhex(context.get_job_id()),
        runtime_env_info=info,
        keep_alive_duration_secs=KEEP_SECONDS,
        num_workers=count,
    )
    node = ray._private.worker.global_worker.node
    with init_grpc_channel(f"{node.node_ip_address}:{node.node_manager_port}") as channel:
        node_manager_pb2_grpc.NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=30)
