"""An S3 server on the loopback interface, with an empty bucket for each test."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator

import pytest

from xdub.files.storage import Location, locate


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Yield the address of a server of the package moto; the environment has its credentials."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "the-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", address)
        yield address
    server.stop()


@pytest.fixture
def bucket(server: str, request: pytest.FixtureRequest) -> Location:
    """Return the root of a new bucket."""
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    urllib.request.urlopen(urllib.request.Request(f"{server}/{name}", method="PUT"))
    return locate(f"s3://{name}")
