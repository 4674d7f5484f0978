"""Failures of a worker group: another attempt is made after lost machinery only."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from xdub.errors import UserError
from xdub.files.run_folder import PhaseFolder
from xdub.train.supervise.failures import Failures, judge, rank_failure


class AsText(Exception):
    """A failure as Ray passes it on: its text is the traceback in the worker."""


def test_a_rank_error_may_also_arrive_as_it_is() -> None:
    try:
        raise UserError("lower train.lr")
    except UserError as error:
        failure = rank_failure(error)
    with pytest.raises(UserError, match="^lower train.lr$"):
        judge(group_error(failure))


def raised_in_a_rank(error: Exception) -> AsText:
    try:
        try:
            raise error
        except Exception as caught:
            raise rank_failure(caught) from None
    except Exception:
        return AsText(traceback.format_exc())


def group_error(*failures: Exception) -> Exception:
    from ray.train import WorkerGroupError

    return WorkerGroupError("workers failed", dict(enumerate(failures)))


def test_data_that_stood_still_is_tried_again() -> None:
    class ExecutionTimeoutError(Exception):
        """Ray Data's, which Ray has from 2.58 on."""

    failure = raised_in_a_rank(ExecutionTimeoutError("no progress for 302s"))
    assert "no batch was made" in judge(group_error(failure))


def test_the_worker_that_died_is_named_and_not_the_peer_that_noticed() -> None:
    from ray.exceptions import RayActorError

    noticed = raised_in_a_rank(RuntimeError("[../gloo/transport/tcp/pair.cc] Connection closed by peer"))
    assert judge(group_error(noticed, RayActorError())) == "lost worker 1"
    assert judge(group_error(noticed, noticed)) == "lost worker 0, 1"


def test_a_lost_machine_that_a_rank_reports_is_tried_again() -> None:
    from ray.exceptions import ObjectLostError

    failures = (ConnectionResetError("by peer"), ObjectLostError("00", None, ""))
    assert judge(group_error(*map(raised_in_a_rank, failures))) == "lost worker 0, 1"


def test_a_defect_is_not_tried_again_and_keeps_its_traceback() -> None:
    with pytest.raises(
        RuntimeError, match=r"worker 1 failed:\nTraceback(.|\n)*ValueError: shapes\ndiffer"
    ) as error:
        judge(group_error(AsText("died"), raised_in_a_rank(ValueError("shapes\ndiffer"))))
    assert "RankError" not in str(error.value)


def test_a_users_mistake_is_not_tried_again_and_keeps_its_message() -> None:
    failure = raised_in_a_rank(UserError("lower train.lr:\nit is 10 €"))
    with pytest.raises(UserError, match="^lower train.lr:\nit is 10 €$"):
        judge(group_error(RuntimeError("died"), failure))


def test_a_group_that_could_not_start_is_tried_again() -> None:
    from ray.train import ControllerError

    failure = judge(ControllerError(TimeoutError("waited 40 s\nfor 2 workers")))
    assert failure == "the worker group could not be run (TimeoutError: waited 40 s)"


def test_failures_count_from_the_newest_checkpoint_and_from_this_driver_on(tmp_path: Path) -> None:
    folder = PhaseFolder(tmp_path, "lip")
    folder.path.mkdir()
    Failures(folder).record("of an earlier driver")
    failures = Failures(folder)
    assert failures.in_a_row() == 0
    failures.record("lost worker 0")
    failures.record("lost worker 1")
    assert failures.in_a_row() == 2
