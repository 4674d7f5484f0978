"""From a request to stop to the kill: Ray's own three seconds are not enough for a checkpoint."""

from __future__ import annotations

from xdub.submit.jobs import STOP_SECONDS

NAME = "RAY_JOB_STOP_WAIT_TIME_S"


def test_every_head_gives_jobs_the_time_that_submit_gives_them(aws, pods) -> None:
    assert f"-e {NAME}={STOP_SECONDS}" in aws["docker"]["run_options"]
    heads = [pod for where, pod in pods.items() if "headGroupSpec" in where]
    assert len(heads) == 2
    for pod in heads:
        told = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
        assert told[NAME] == str(STOP_SECONDS)
