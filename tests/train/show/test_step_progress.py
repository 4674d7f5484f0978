"""The display of a running phase."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from xdub.train.show.step_progress import PhaseProgress, watch


def test_the_speed_does_not_include_the_time_to_start(tmp_path: Path) -> None:
    record, shown = tmp_path / "record.jsonl", []
    changed = threading.Condition()

    def show(state: PhaseProgress) -> None:
        with changed:
            shown.append(state)
            changed.notify_all()

    def shows(step: int) -> bool:
        return bool(shown) and shown[-1].step == step

    with watch("generator", record, 9, show, poll_seconds=0.001), record.open("a") as file:
        for step in range(4):
            if step:
                print(json.dumps({"step": step, "loss": (1.0).hex()}), file=file, flush=True)
            with changed:
                assert changed.wait_for(lambda step=step: shows(step), timeout=30)
    rates = {state.step: state.steps_per_second for state in shown}
    assert rates[0] is None and rates[1] is None, "the speed is unknown after the first step"
    assert rates[2] > 0 and rates[3] > 0


def test_without_a_terminal_the_last_step_and_its_loss_are_printed(tmp_path: Path, capsys) -> None:
    record = tmp_path / "record.jsonl"
    record.write_text(json.dumps({"step": 3, "loss": (0.5).hex()}) + "\n")
    with watch("generator", record, 9, None, poll_seconds=0.001):
        pass
    assert capsys.readouterr().err == "generator: 3 of 9 loss 0.5000\n"
