"""Records reach the tracker once, in spite of its failures, and never stop the loop."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from xdub.files.run_folder import StageFolder
from xdub.tracking.journal import Journal, Shipper, pending_bytes


class Tracker:
    """A tracker that can be down."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.down = False

    def __call__(self, records: list[dict[str, Any]]) -> None:
        if self.down:
            raise ConnectionError("refused")
        self.received += records

    def steps(self) -> list[int]:
        return [record["step"] for record in self.received]


def test_records_written_while_the_tracker_was_down_arrive_when_it_is_back(tmp_path: Path) -> None:
    tracker = Tracker()
    folder = StageFolder(tmp_path)
    journal, shipper = Journal(folder), Shipper(folder, tracker, poll_seconds=0.01).start()
    journal.metrics(1, {"train/loss": 1.0})
    _wait(lambda: tracker.steps() == [1])
    tracker.down = True
    for step in range(2, 50):
        journal.metrics(step, {"train/loss": 1.0 / step})
    _wait(lambda: shipper.last_error is not None)
    tracker.down = False
    assert shipper.close(timeout=10) == 0
    assert tracker.steps() == list(range(1, 50))


def test_no_record_is_lost_to_a_tracker_that_never_answers(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path)
    journal = Journal(folder)
    down = Tracker()
    down.down = True
    shipper = Shipper(folder, down, poll_seconds=0.01).start()
    begin = time.perf_counter()
    for step in range(1000):
        journal.metrics(step, {"train/loss": 0.1})
    assert time.perf_counter() - begin < 1.0  # the loop does not wait
    assert shipper.close(timeout=0.5) > 0
    later = Tracker()
    Shipper(folder, later).flush()
    assert later.steps() == list(range(1000))


def test_a_restarted_sender_continues_at_the_recorded_offset(tmp_path: Path) -> None:
    folder, tracker = StageFolder(tmp_path), Tracker()
    journal = Journal(folder)
    for step in (1, 2, 3):
        journal.metrics(step, {"a": 1.0})
    Shipper(folder, tracker).flush()
    journal.metrics(4, {"a": 1.0})
    Shipper(folder, tracker).flush()
    assert tracker.steps() == [1, 2, 3, 4]


def test_replayed_steps_are_not_journalled_again(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path)
    journal = Journal(folder)
    for step in (2, 4, 6):
        journal.metrics(step, {"a": float(step)})
    journal.close()
    resumed = Journal(folder)
    for step in (4, 6, 8):
        resumed.metrics(step, {"a": float(step)})
    resumed.close()
    tracker = Tracker()
    Shipper(folder, tracker).flush()
    assert tracker.steps() == [2, 4, 6, 8]


def _wait(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


def test_a_failing_upload_delays_no_number(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path)
    journal, numbers, files = Journal(folder), Tracker(), Tracker()
    files.down = True
    lanes = [Shipper(folder, numbers, "numbers"), Shipper(folder, files, "files", poll_seconds=0.01)]
    for shipper in lanes:
        shipper.start()
    journal.artifact(tmp_path / "strip.png", "samples")
    journal.metrics(1, {"a": 1.0})
    _wait(lambda: numbers.received and lanes[1].last_error is not None)
    assert [record["kind"] for record in numbers.received] == ["metrics"]
    assert lanes[0].close(timeout=5) == 0 and lanes[1].close(timeout=0.1) > 0
    assert pending_bytes(folder) > 0
    later = Tracker()
    Shipper(folder, later, "files").flush()
    assert [record["kind"] for record in later.received] == ["artifact"]
    assert pending_bytes(folder) == 0


def test_an_abandoned_sender_and_its_successor_deliver_every_record_once(tmp_path: Path) -> None:
    folder, received, waits = StageFolder(tmp_path), [], threading.Event()

    def slow(records: list[dict[str, Any]]) -> None:
        waits.wait(10)
        received.extend(record["step"] for record in records)

    journal = Journal(folder)
    for step in range(5):
        journal.metrics(step, {"a": 1.0})
    first = Shipper(folder, slow).start()
    assert first.close(timeout=0.1) > 0
    second = Shipper(folder, slow).start()
    waits.set()
    assert second.close(timeout=10) == 0
    assert received == [0, 1, 2, 3, 4]
