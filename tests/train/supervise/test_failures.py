"""Failures of a worker group: only lost machinery leads to another attempt."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from xdub.errors import UserError
from xdub.files.run_folder import PhaseFolder
from xdub.train.supervise.failures import Failures, judge, rank_failure


class AsText(Exception):
    """Failure in the form that Ray reports: the text is the traceback in the worker."""


def test_a_rank_error_may_also_arrive_as_an_object() -> None:
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


def test_a_stalled_data_stream_leads_to_a_retry() -> None:
    class ExecutionTimeoutError(Exception):
        """Stand-in for the exception of Ray Data, which exists since Ray 2.58."""

    failure = raised_in_a_rank(ExecutionTimeoutError("no progress for 302s"))
    assert "no batch was computed" in judge(group_error(failure))


def test_the_message_names_the_worker_that_died_and_not_its_peer() -> None:
    from ray.exceptions import RayActorError

    of_peer = raised_in_a_rank(RuntimeError("[../gloo/transport/tcp/pair.cc] Connection closed by peer"))
    assert judge(group_error(of_peer, RayActorError())) == "lost worker 1"
    assert judge(group_error(of_peer, of_peer)) == "lost worker 0, 1"


def test_a_lost_machine_that_a_rank_reports_leads_to_a_retry() -> None:
    from ray.exceptions import ObjectLostError

    failures = (ConnectionResetError("by peer"), ObjectLostError("00", None, ""))
    assert judge(group_error(*map(raised_in_a_rank, failures))) == "lost worker 0, 1"


def test_a_defect_leads_to_no_retry_and_keeps_its_traceback() -> None:
    with pytest.raises(
        RuntimeError, match=r"worker 1 failed:\nTraceback(.|\n)*ValueError: shapes\ndiffer"
    ) as error:
        judge(group_error(AsText("died"), raised_in_a_rank(ValueError("shapes\ndiffer"))))
    assert "RankError" not in str(error.value)


def test_a_gpu_without_free_memory_is_no_lost_peer() -> None:
    failure = RuntimeError("NCCL error: ncclUnhandledCudaError: Failed to CUDA calloc: out of memory")
    with pytest.raises(RuntimeError, match="worker 0 failed"):
        judge(group_error(raised_in_a_rank(failure)))


def test_a_users_mistake_leads_to_no_retry_and_keeps_its_message() -> None:
    failure = raised_in_a_rank(UserError("lower train.lr:\nit is 10 €"))
    with pytest.raises(UserError, match="^lower train.lr:\nit is 10 €$"):
        judge(group_error(RuntimeError("died"), failure))


def test_a_group_that_could_not_start_leads_to_a_retry() -> None:
    from ray.train import ControllerError

    failure = judge(ControllerError(TimeoutError("waited 40 s\nfor 2 workers")))
    assert failure == "the worker group could not be run (TimeoutError: waited 40 s)"


def test_failures_count_since_the_newest_checkpoint_and_the_start_of_the_driver(tmp_path: Path) -> None:
    folder = PhaseFolder(tmp_path, "lip")
    folder.path.mkdir()
    Failures(folder).record("of an earlier driver")
    failures = Failures(folder)
    assert failures.in_a_row() == 0
    failures.record("lost worker 0")
    failures.record("lost worker 1")
    assert failures.in_a_row() == 2
