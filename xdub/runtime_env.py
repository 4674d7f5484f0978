"""Environment of a run: no package reports usage, Ray and MLflow are quick and quiet on one machine.

The CLI and jobs set it before they import Ray, MLflow or the hub libraries; importing this module sets nothing.
Variables that the user has set keep their values.
"""

from __future__ import annotations

import os

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
    # MLflow looks for a git executable and warns at length where there is none.
    "GIT_PYTHON_REFRESH": "quiet",
    # MediaPipe's C++ start-up notices.
    "GLOG_minloglevel": "2",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Variable that, at 0, makes Ray use 127.0.0.1 as its machine's address, so Ray listens to no other machine."""


def prepare_environment() -> None:
    """Set every variable that is not set yet."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if not on_a_cluster():
        os.environ.setdefault(LOOPBACK, "0")


def on_a_cluster() -> bool:
    """Return True in a job of a Ray cluster, and where RAY_ADDRESS names a cluster; False: Ray will be our own."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or bool(os.environ.get("RAY_ADDRESS"))
