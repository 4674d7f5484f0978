"""Environment of a run: no package reports usage, Ray and MLflow are quick and quiet on one machine.

Called by the CLI and by jobs before Ray, MLflow or the hub libraries are imported, never at import. What the user has
set stays.
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
    # Nothing starts a Ray by accident: what Ray Data's threads still call after a shutdown would otherwise start one,
    # which dies with its thread and takes the process along a minute later.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # A worker group's end and a reported checkpoint are noticed at the next poll (default 2 s).
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Machines that will be taken are watched for by our own supervisor, and metrics go to MLflow: two actors less to
    # start with every attempt.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # A group that asked for a machine which has just died tries again with those that are left.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "40",
    # Ray's workers would step back behind everything else on the machine; training is what the machine is for.
    "RAY_worker_niceness": "0",
    # OpenMP's threads spin while they wait for one another. With any other load that costs a training step a factor of
    # three, and only a few per cent less without.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Each line once, and no bars beside our own.
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
"""At 0 Ray takes 127.0.0.1 for its machine's address, so that nothing of it listens to other machines."""


def prepare_environment() -> None:
    """Set what is not set yet."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if not on_a_cluster():
        os.environ.setdefault(LOOPBACK, "0")


def on_a_cluster() -> bool:
    """Whether the Ray to be used is not one of our own: we are a job, or RAY_ADDRESS names one."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or bool(os.environ.get("RAY_ADDRESS"))
