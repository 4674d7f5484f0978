"""Test of the time between a request to stop and the kill: the three seconds of Ray are too short for a checkpoint."""

from __future__ import annotations

from xdub.submit.jobs import STOP_SECONDS

NAME = "RAY_JOB_STOP_WAIT_TIME_S"


def test_every_head_waits_as_long_for_a_job_as_submit_does(aws, pods) -> None:
    assert f"-e {NAME}={STOP_SECONDS}" in aws["docker"]["run_options"]
    heads = [pod for path, pod in pods.items() if "headGroupSpec" in path]
    assert len(heads) == 2
    for pod in heads:
        variables = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
        assert variables[NAME] == str(STOP_SECONDS)
