"""The demo's output on a terminal and in a file, and its plan."""

from __future__ import annotations

import contextlib
import io

from rich.console import Console

from xdub.demo.show import Show
from xdub.demo.sizes import DemoPlan, default_plan


def shown(terminal: bool = False) -> tuple[Show, io.StringIO]:
    text = io.StringIO()
    return Show(Console(file=text, force_terminal=terminal, width=100)), text


def test_a_stage_prints_its_title_its_expected_time_and_the_next_stage() -> None:
    show, text = shown()
    show.finished(1, 3, "Render", 61)
    with show.stage(2, 3, "Train the generator", 90, "Make pairs") as report:
        report(1, 2, "step 1")
    lines = text.getvalue()
    assert "Render: done before, in 1 min 01 s" in lines
    assert "2/3  Train the generator about 1 min 30 s, then: Make pairs" in lines and "done in" in lines


def test_a_line_of_a_log_is_one_line_however_long() -> None:
    show, text = shown()
    show.line("word " * 60)
    assert len(text.getvalue().splitlines()) == 1


def test_the_live_bar_of_a_terminal_is_gone_when_its_stage_fails(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    show, text = shown(terminal=True)
    with contextlib.suppress(KeyboardInterrupt), show.stage(1, 1, "Render", None, "") as report:
        report(1, None, "clip")
        raise KeyboardInterrupt
    cursor_shown, line_erased = "\x1b[?25h", "\x1b[2K"
    assert cursor_shown in text.getvalue() and text.getvalue().rstrip().endswith(line_erased)


def test_the_figures_name_each_goal_that_was_missed() -> None:
    model = dict.fromkeys(("opening_corr", "leak_corr"), 0.1) | dict.fromkeys(
        ("lip_psnr", "outside_psnr", "raw_outside_psnr", "silence_opening"), 31.0
    )
    show, text = shown()
    show.figures(
        {"seed": 3, "warm_start": False, "truth": 0.96, "codec": 0.5, "generator": model, "editor": model,
         "seconds": {"render": 60.0}, "peak_gb": 3.2}
    )  # fmt: skip
    lines = text.getvalue()
    assert "seed 3, from random weights" in lines and "codec: 0.500 < 0.9" in lines
    assert "editor opening_corr: 0.100" in lines and "truth 0.960" in lines and "3.2 GB" in lines


def test_a_plan_survives_its_record_and_more_minutes_mean_more_steps() -> None:
    plan = default_plan(from_scratch=True, minutes=20)
    assert DemoPlan.from_dict(plan.to_dict()).to_dict() == plan.to_dict()

    def steps(plan: DemoPlan) -> int:
        return sum(int(text.partition("=")[2]) for text in plan.overrides if ".steps=" in text)

    assert steps(default_plan(from_scratch=True, minutes=40)) > 1.5 * steps(plan)
    assert steps(default_plan(from_scratch=False)) < steps(plan)


def test_every_setting_of_a_plan_exists_in_the_recipe() -> None:
    from xdub.config import load_recipe

    for from_scratch in (True, False):
        plan = default_plan(from_scratch=from_scratch)
        recipe = load_recipe(plan.recipe, plan.overrides)
        assert recipe.for_phase("lip").steps < recipe.for_phase("generator").steps
