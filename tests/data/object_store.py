"""A server of S3 on this machine, for tests."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SECRET = "hidden-key-of-the-test"
"""Secret key of the server's user; no text of the product may hold it."""


@contextmanager
def s3_server(bucket: str) -> Iterator[str]:
    """Start a server with an empty bucket, set the environment of its clients, and yield the bucket's URI."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_ENDPOINT_URL", address),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        request = urllib.request.Request(f"{address}/{bucket}", method="PUT")
        with urllib.request.urlopen(request, timeout=30):
            pass
        try:
            yield f"s3://{bucket}"
        finally:
            server.stop()
