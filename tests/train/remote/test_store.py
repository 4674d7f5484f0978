"""Checks of a remote before a run uses it."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from remote_side import PHASE, content, upload_all

from xdub.errors import UserError
from xdub.files.uris import shown
from xdub.train.remote.store import check


def test_a_writable_remote_passes_the_check_and_stays_empty(tmp_path: Path) -> None:
    check(str(tmp_path / "r"), PHASE, fresh=True)
    check((tmp_path / "r").as_uri(), PHASE, fresh=True)
    assert not content(tmp_path / "r")


def test_a_new_run_cannot_replace_the_copies_of_another(tmp_path: Path) -> None:
    uri = str(tmp_path / "r")
    upload_all(uri, tmp_path / "run", 1)
    check(uri, PHASE)
    check(uri, "editor", fresh=True)
    with pytest.raises(UserError, match="already holds checkpoints of generator: add --resume"):
        check(uri, PHASE, fresh=True)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s4://bucket/run", "s4://bucket/run: .*Protocol not known: s4"),
        ("sftp://x/y", "sftp://x/y: .*(paramiko|unknown)"),
        ("/proc/nothing/here", "/proc/nothing/here: cannot be written"),
        ("hdfs://127.0.0.1:9/x", "hdfs://127.0.0.1:9/x: cannot be written"),
    ],
)
def test_an_unusable_remote_is_reported_in_one_line(uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        check(uri)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("address", ["s3://key:secret@bucket/run?region=x&", "gs://anonymous@bucket/run?"])
def test_a_server_that_never_answers_is_reported_within_the_deadline(address: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        begin = time.monotonic()
        with pytest.raises(UserError, match=r"//\.\.\.@bucket/run.*no answer within 2 s$") as error:
            check(f"{address}endpoint_override=127.0.0.1:{silent.getsockname()[1]}&scheme=http", seconds=2)
    assert time.monotonic() - begin < 10 and "secret" not in str(error.value)


def test_credentials_in_a_uri_are_hidden() -> None:
    assert shown("s3://key:secret@bucket/x") == "s3://...@bucket/x"
