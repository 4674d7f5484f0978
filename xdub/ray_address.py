"""Check of RAY_ADDRESS before Ray connects, because Ray itself retries for minutes and prints each failure."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

from xdub.errors import UserError

CONNECT_SECONDS = 5.0
"""Longest wait for the machine that RAY_ADDRESS names."""
TRIAL_SECONDS = 35.0
"""Longest wait for a trial connection; Ray needs 3 to 10 s, and 20 s to find that its token is refused."""
TRIAL = """
import logging, ray
ray.init(logging_level=logging.ERROR, log_to_driver=False)
class Trial: pass
actor = ray.remote(num_cpus=0)(Trial).remote()
ready, _ = ray.wait([actor.__ray_ready__.remote()], timeout=10)
ray.get(ready)
"""
"""Program of the trial connection: a cluster without tokens accepts the connection and ends the first actor."""
ALONE = "or unset RAY_ADDRESS to use this machine alone"
"""Advice that ends every message of this file."""
START = "start that cluster, set RAY_ADDRESS to the HOST:PORT of a running one (`ray status` on its head)"
"""Advice where no cluster answers."""
FIX = f"{START}, {ALONE}"
"""Advice for an address that cannot be used."""


def names_a_cluster(address: str) -> bool:
    """Return False for the values of RAY_ADDRESS with which Ray starts on this machine: empty, or ``local``."""
    return address.strip() not in ("", "local")


def check_address() -> None:
    """Connect to the cluster of RAY_ADDRESS in a process of its own.

    Raises:
        UserError: the address has another form, nothing answers within a minute, or the cluster refuses this machine.
    """
    address = os.environ["RAY_ADDRESS"].strip()
    os.environ["RAY_ADDRESS"] = address  # Ray would not find `auto` with a blank
    if "://" in address:
        raise UserError(
            f"RAY_ADDRESS={address}: only HOST:PORT and `auto` are supported, and neither Ray Client nor the "
            "dashboard; on a machine of the cluster use HOST:6379, from elsewhere use `xdub submit`, or unset "
            "RAY_ADDRESS to use this machine alone"
        )
    if address != "auto":
        _check_port(address)
    reason = _try_connection()
    if reason:
        raise UserError(f"RAY_ADDRESS={address}: {reason}, {ALONE}")


def _try_connection() -> str | None:
    """Return why a process with this environment cannot use the cluster, None if it can."""
    try:
        trial = subprocess.run(
            [sys.executable, "-P", "-c", TRIAL],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            timeout=TRIAL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        output = error.stderr or b""
        reason = _reason(output.decode("utf-8", "replace") if isinstance(output, bytes) else output)
        return reason or f"no Ray answers in {TRIAL_SECONDS:g} s; {START}"
    if not trial.returncode:
        return None
    lines = [line for line in trial.stderr.splitlines() if line.strip()]
    return _reason(trial.stderr) or (lines[-1][:300] if lines else f"exit code {trial.returncode}")


def _check_port(address: str) -> None:
    """Raise UserError unless the address is HOST:PORT and something listens there."""
    match = re.fullmatch(r"\[?(.+?)\]?:(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise UserError(f"RAY_ADDRESS={address}: expected HOST:PORT, such as 10.0.0.1:6379; {FIX}")
    try:
        socket.create_connection((match[1], int(match[2])), CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"RAY_ADDRESS={address}: nothing answers there ({reason}); {FIX}") from None


def _reason(output: str) -> str | None:
    """Return the reason in the output of a trial connection that a user can act on, None for any other."""
    if re.search(r"InvalidAuthToken|AuthenticationError|Unauthenticated", output):
        return (
            "it refuses this machine's token; set RAY_AUTH_TOKEN_PATH to a file with the token of that cluster "
            "(RAY_AUTH_MODE=token must be set before Ray is imported)"
        )
    if "ActorDiedError" in output:
        return (
            "it ends a first actor at once, as a cluster without tokens does; start it with RAY_AUTH_MODE=token, or "
            "set RAY_AUTH_MODE here to the mode of the cluster"
        )
    if "Version mismatch" in output:
        text = " ".join(output[output.index("Version mismatch") :].split())
        return f"it runs another version of Ray or Python ({text[:200]})"
    return None
