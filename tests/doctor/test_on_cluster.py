"""The examination on a cluster that has no room for a worker."""

from __future__ import annotations

from typing import Any

import pytest

from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.doctor import on_cluster
from xdub.errors import UserError


def test_a_cluster_without_room_for_a_worker_is_one_wrong_row_and_nothing_else_is_examined(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check_resources(train: Any) -> None:
        raise UserError(f"no machine offers {train.resource!r}; add machines")

    def fail(*args: Any) -> None:
        pytest.fail("a worker was requested")

    monkeypatch.setattr(on_cluster, "on_a_cluster", lambda: True)
    monkeypatch.setattr(on_cluster, "check_resources", check_resources)
    monkeypatch.setattr(on_cluster, "capacity", lambda train: 0)
    monkeypatch.setattr(on_cluster, "run_on_worker", fail)
    code = run_app(app, ["doctor", "--recipe", "tiny", "--quick", "--set", "train.resource=train"])
    printed = capsys.readouterr()
    assert code == 2 and "the cluster has no room for a worker" in printed.out
    assert "no machine offers 'train'" in printed.out and "codec" not in printed.out
    assert "ray" in printed.err
