"""Calls to a dashboard that may be absent, slow or another web server: time limits, and errors in one line."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar
from urllib.parse import quote, urlsplit

from xdub.errors import UserError

ANSWER_SECONDS = 30.0
"""Time for an answer of the dashboard."""
SEND_SECONDS = 600.0
"""Time for sending the code and files of a job."""

Answer = TypeVar("Answer")


def check_address(address: str) -> str:
    """Return the dashboard's address without a trailing slash and the page of a browser (``/#/jobs``).

    UserError for any other address than ``http://HOST:PORT`` or ``https://...``.
    """
    try:
        parts = urlsplit(address.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        usable = False
    if not usable:
        raise UserError(
            f"--address {address}: use the dashboard's address, such as http://127.0.0.1:8265 (through a tunnel: "
            "`ray dashboard cluster.yaml`, or `kubectl port-forward`)"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def url_part(job_id: str) -> str:
    """Return a job's id as one part of a URL's path; jobs of other programs have any characters."""
    return quote(job_id, safe="", errors="surrogateescape")


def call(function: Callable[[], Answer], address: str, seconds: float = ANSWER_SECONDS) -> Answer:
    """Call a function of Ray's client, which has no time limits, in a thread that does not outlive this process.

    UserError for an error of the dashboard or the network, and when there is no answer after ``seconds``.
    """
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError as error:
        raise UserError(
            f"{address}: no answer in {seconds:.0f} s; is this the dashboard's address, and the tunnel to it open?"
        ) from error
    except Exception as error:
        raise _user_error(error, address) from error


def _user_error(error: Exception, address: str) -> UserError:
    """Convert an error of Ray's client, or of the HTTP library under it."""
    import requests  # heavy, so only after a failure

    text = " ".join(str(error).split())[:300]
    if "Traceback (most recent call last)" in text:
        text = f"{text.partition(':')[0]}: {str(error).split(chr(10))[-2]}"
    if isinstance(error, ConnectionError | requests.ConnectionError) or "Failed to connect" in text:
        return UserError(
            f"{address}: no Ray dashboard answers; is the cluster up, and the tunnel to it open?"
        )
    where = "the file that RAY_AUTH_TOKEN_PATH names (default ~/.ray/auth_token)"
    if "no authentication token was found" in text:
        return UserError(f"{address}: this machine has no token: write the cluster's token into {where}")
    if type(error).__name__ == "AuthenticationError" or re.search(
        r"status code 40[13]\b|\b40[13] Client Error", text
    ):
        return UserError(f"{address} refuses our token: write the cluster's token into {where}")
    if isinstance(error, RuntimeError) and not text.startswith("Version check returned 404"):
        return UserError(f"{address}: {text}")
    return UserError(
        f"{address}: this is not the dashboard of a Ray cluster ({type(error).__name__}: {text})"
    )
