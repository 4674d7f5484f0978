"""Environment of a run: no package reports usage, Ray and MLflow are quick and quiet on one machine.

The CLI and jobs set it before they import Ray, MLflow or the hub libraries; importing this module sets nothing.
Variables that the user has set keep their values.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import re
import socket
import sys
import tempfile
from pathlib import Path

from xdub.errors import UserError
from xdub.files.user_folders import (
    allows_execution,
    can_write,
    compiled_folder,
    home_folder,
    is_foreign,
    private_folder,
)
from xdub.ray_address import names_a_cluster

SETTINGS = {
    # No telemetry.
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Ray's jobs and sessions are protected by a token; its client reads the mode once, at the first call.
    "RAY_AUTH_MODE": "token",
    # Disable auto-connect: after a shutdown, Ray Data's threads would otherwise start a new Ray, which dies with its
    # thread and kills the process a minute later.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # Ray Train notices a worker group's end and a reported checkpoint at its next poll (default 2 s).
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Our supervisor watches for machines that will be reclaimed, and metrics go to MLflow, so every attempt starts two
    # actors less.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # A group that waits for a machine which has just died restarts on the remaining machines.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "40",
    # Ray would lower its workers' priority below all other processes; training is the purpose of the machine.
    "RAY_worker_niceness": "0",
    # OpenMP's threads spin while they wait for one another. With any other load spinning makes a training step three
    # times longer; without, sleeping costs a few per cent.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Print each line once, and no progress bars beside ours.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DEDUP_LOGS": "1",
    # transformers shows a bar for each file that it loads, and a table of the weights of unused towers.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    # MLflow looks for a git executable and warns at length where there is none.
    "GIT_PYTHON_REFRESH": "quiet",
    # MediaPipe's C++ start-up notices.
    "GLOG_minloglevel": "2",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Variable that, at 0, makes Ray use 127.0.0.1 as its machine's address, so Ray listens to no other machine."""


PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
"""Variables that name a proxy; libraries also read them in upper case."""


THREADS = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT")
"""Variables that are removed where they hold no number of threads: OpenMP would print an error and ignore them."""


def prepare_environment() -> None:
    """Set every variable that is not set yet, and let no proxy come between this machine and itself."""
    for name in THREADS:
        if not re.fullmatch(r"\s*0*[1-9]\d{0,8}\s*(,\s*0*[1-9]\d{0,8}\s*)*", os.environ.get(name, "1")):
            del os.environ[name]
    for name, value in SETTINGS.items():
        # A caller who has imported Ray has fixed its mode: a Ray that he starts now enables the token by itself.
        if name != "RAY_AUTH_MODE" or "ray" not in sys.modules:
            os.environ.setdefault(name, value)
    with contextlib.suppress(UserError, OSError):  # the code that needs a folder raises the error again
        _prepare_folders()
    if any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        _bypass_proxy()
    if not on_a_cluster():
        os.environ.setdefault(LOOPBACK, "0")


def on_a_cluster() -> bool:
    """Return True in a job of a Ray cluster, and where RAY_ADDRESS names a cluster; False: Ray will be our own."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or names_a_cluster(os.environ.get("RAY_ADDRESS", ""))


def _prepare_folders() -> None:
    """Name writable folders for libraries that would fail, or warn at length, in a home that cannot be written."""
    if "TMPDIR" in os.environ:
        os.environ["TMPDIR"] = tempfile.gettempdir()  # Python tries the folder; other libraries would not
    compiled = Path(tempfile.gettempdir()) / f"torchinductor_{_user_name()}"
    if is_foreign(compiled) or not allows_execution(compiled.parent):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled_folder()))
    home = home_folder()
    if home is None or (home == Path("/") and not can_write(home)):
        home = private_folder() / "home"
        home.mkdir(mode=0o700, exist_ok=True)
        os.environ["HOME"] = str(home)
    if not (can_write(home / ".config" / "matplotlib") and can_write(home / ".cache" / "matplotlib")):
        os.environ.setdefault("MPLCONFIGDIR", str(private_folder() / "matplotlib"))
    if not can_write(home / ".triton"):
        os.environ.setdefault("TRITON_HOME", str(private_folder()))
    models = home / ".cache" / "huggingface"
    if not (os.path.exists(models) or can_write(models)):
        os.environ.setdefault("HF_HOME", str(private_folder() / "huggingface"))


def _user_name() -> str:
    """Return the user's name; a user id without an entry in /etc/passwd receives one for libraries that need it."""
    with contextlib.suppress(KeyError, OSError):
        return getpass.getuser()
    return os.environ.setdefault("LOGNAME", f"uid{os.getuid()}")


def _bypass_proxy() -> None:
    """Add this machine's addresses to ``no_proxy`` and ``NO_PROXY``; the user's entries stay.

    Most libraries read the lower-case variable first and the other only without it, so both are set.
    """
    own = own_addresses()
    before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    for name, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        value = before[name] if before[name] is not None else before[other]
        entries = [entry.strip() for entry in (value or "").split(",") if entry.strip()]
        if "*" not in entries:
            os.environ[name] = ",".join(dict.fromkeys([*entries, *own]))


def own_addresses() -> list[str]:
    """Return this machine's names and addresses as entries of ``no_proxy``, without a query to a name server."""
    addresses = ["localhost", "127.0.0.0/8", "127.0.0.1", "::1", socket.gethostname()]
    with contextlib.suppress(OSError):
        routes = Path("/proc/net/fib_trie").read_text()
        addresses += re.findall(r"\|-- ([0-9.]+)\n +/32 host LOCAL", routes)
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            addresses.append(str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))))
    return list(dict.fromkeys(addresses))
