"""The differences between phases are in one file, and a recipe names the phases that it trains."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from xdub.bootstrap import stage_names
from xdub.config import PHASES, load_recipe, phase_facts, phases, recipe_from_dict
from xdub.errors import UserError
from xdub.plan.network import count_parameters
from xdub.plan.storage import data
from xdub.train.phases import phase_loss

PACKAGE = Path(phases.__file__).parents[1]
CHOOSE_A_MODEL = {"bundle.py", "page.py", "targets.py", "dub.py"}
"""Files that choose between the two models of a bundle, which have the names of the phases that train them."""


def test_no_other_code_compares_a_phase_with_a_name():
    comparisons = []
    for path in PACKAGE.rglob("*.py"):
        if path.name in CHOOSE_A_MODEL:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Compare):
                values = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                comparisons += [f"{path.name}:{node.lineno}"] if values & set(PHASES) else []
    assert comparisons == []


@pytest.mark.parametrize("name", PHASES)
def test_a_phase_starts_from_an_earlier_one_and_has_a_loss(name):
    facts = phase_facts(name)
    assert callable(phase_loss(name))
    assert facts.starts_from is None or PHASES.index(facts.starts_from) < PHASES.index(name)
    assert facts.expert is None or facts.starts_from is not None
    assert not facts.networks or facts.decodes


def test_an_unknown_phase_is_refused_with_one_line_that_lists_the_phases():
    recipe = load_recipe("tiny")
    for function in (
        phase_facts,
        recipe.phase,
        recipe.for_phase,
        phase_loss,
        lambda name: count_parameters(recipe, name),
    ):
        with pytest.raises(UserError, match="unknown phase 'polish'; choose one of: generator, editor, lip"):
            function("polish")


def test_a_recipe_trains_an_editor_and_may_omit_every_other_phase():
    raw = load_recipe("tiny").to_dict()
    raw["phases"] = {"editor": raw["phases"]["editor"]}
    assert stage_names(recipe_from_dict(raw)) == ("pairs", "editor", "bundle")
    del raw["phases"]["editor"]
    with pytest.raises(UserError, match=r"^phases\.editor is missing from the recipe$"):
        recipe_from_dict(raw)


def test_null_on_the_command_line_removes_a_phase_as_it_does_in_a_recipe_file():
    settings = ["phases.lip=null", "phases.texture.steps=3", "phases.generator="]
    assert load_recipe("tiny", settings).phase_names == ("editor", "texture")
    with pytest.raises(UserError, match=r"^phases\.editor is missing from the recipe$"):
        load_recipe("tiny", ["phases.editor=null"])
    with pytest.raises(UserError, match=r"no phase generator; .* --set phases\.generator\.alpha="):
        load_recipe("tbdub-lora", ["phases.generator.steps=5"])
    with pytest.raises(UserError, match=r"^video=null is not a section"):
        load_recipe("tiny", ["video=null"])


def test_an_optional_phase_is_trained_only_by_recipes_that_have_its_section(monkeypatch):
    polish = dataclasses.replace(phase_facts("editor"), name="polish", optional=True, epochs=None)
    monkeypatch.setattr(phases, "_ALL", (*phases._ALL, polish))
    for module in ("phases", "loader", "recipe"):
        monkeypatch.setattr(f"xdub.config.{module}.PHASES", (*PHASES, "polish"))
    without = load_recipe("tiny")
    assert without.phase_names == PHASES
    assert stage_names(without) == ("generator", "pairs", "editor", "lip", "texture", "bundle")
    with pytest.raises(UserError, match="tiny does not train the phase polish: it has no section"):
        without.for_phase("polish")
    # A phase never uses another phase's numbers.
    with pytest.raises(UserError, match=r"no phase polish; .*add the phase by --set phases\.polish\.window="):
        load_recipe("tiny", ["phases.polish.alpha=1"])
    recipe = load_recipe(
        "tiny", ["phases.polish.alpha=1", "phases.polish.window=25", "phases.polish.steps=7"]
    )
    assert recipe.for_phase("polish").steps == 7
    assert stage_names(recipe)[-2:] == ("polish", "bundle")
    assert recipe_from_dict(recipe.to_dict()) == recipe
    # The planner compares its data with the paper's pairs, and reports no epochs of the paper.
    planned = data(recipe, "polish", count_parameters(recipe, "polish"))
    assert (planned.paper_hours, planned.paper_epochs) == (400, None) and planned.epochs > 0
