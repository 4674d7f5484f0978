"""Recipes are strict: a wrong key or value is one clear line, and a loaded recipe can be written and read back."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from xdub.config import (
    PHASES,
    GuidanceConfig,
    Recipe,
    TrainConfig,
    check_phase,
    load_recipe,
    parse_override,
    recipe_from_dict,
    shipped_recipes,
)
from xdub.errors import UserError


def refused(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe("tiny", overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_survives_being_written_and_read(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe_from_dict(recipe.to_dict()) == recipe
    assert recipe_from_dict(yaml.safe_load(recipe.to_yaml())) == recipe
    for phase in recipe.phase_names:
        assert recipe.for_phase(phase).seed == recipe.seed


def test_the_paper_recipe_has_the_papers_numbers():
    recipe = load_recipe("xdub-1b")
    assert (recipe.model.hidden_size, recipe.model.num_heads, recipe.model.num_layers) == (1536, 12, 18)
    assert (recipe.video.size, recipe.codec.kind, recipe.codec.channels) == (512, "wan", 16)
    assert [recipe.phase(p).alpha for p in ("editor", "lip", "texture")] == [4.0, 1.5, 0.25]
    assert [recipe.phase(p).window for p in ("generator", "editor")] == [25, 77]
    assert [recipe.for_phase(p).lr for p in PHASES] == [1e-5, 1e-5, 5e-6, 5e-6]
    assert [recipe.for_phase(p).global_batch for p in PHASES] == [256, 256, 64, 64]
    assert (recipe.phase("lip").sync_weight, recipe.phase("texture").clip_weight) == (0.05, 0.05)
    assert (recipe.identity_threshold, recipe.pairs.mouth_threshold) == (0.85, 1.0)
    assert (recipe.dub.texture_band, recipe.dub.lip_band) == ((0.0, 0.3), (0.4, 0.6))


def test_a_recipe_file_is_loaded_like_a_shipped_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(load_recipe("tiny").to_yaml().replace("name: tiny", "name: mine"))
    assert dataclasses.replace(load_recipe(path), name="tiny") == load_recipe("tiny")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lr=abc", "train.lr=abc is not a number"),
        ("train.steps=1.5", "train.steps=1.5 is not a whole number"),
        ("train.steps=-1", "train.steps=-1"),
        ("train.compile=1", "train.compile=1 is not true or false"),
        ("train.steps=true", "train.steps=true is not a number"),
        ("train.activation_checkpointing=true", "is not one of: none, full, attention"),
        ("train.activation_checkpointing=false", "is not one of: none, full, attention"),
        ("train.lr=.nan", "is not a finite number"),
        ("train.lr=null", "train.lr=null is not a number"),
        ("name=3", "name=3 is not a text"),
        ("lora.alpha=0", "lora.alpha=0.0 must be positive"),
        ("lora.targets=[]", "lora.targets=[] must be one or more names"),
        ("lora.targets=[q, q]", "names that differ from each other"),
        ("lora.targets=[q, foo]", "lora.targets=['q', 'foo']: foo names no layer"),
        ("lora.targets=[foo.ffn.0]", "foo.ffn.0 names no layer; valid: qkv"),
        ("lora.targets=[blocks.7.ffn.0]", "blocks.7.ffn.0 names no layer"),
        ("phases=5", "phases=5 is not a section"),
        ("phases=[a]", "phases=['a'] is not a section"),
        ("train.lrr=1", "did you mean train.lr?"),
        ("tarin.lr=1", "did you mean train?"),
        ("phases.lips.alpha=1", "did you mean phases.lip?"),
        ("phases.lip.alpa=1", "did you mean phases.lip.alpha?"),
        ("codec.kind=vae", "codec.kind=vae is not one of: linear, wan"),
        ("audio.kind=mfcc", "audio.kind=mfcc is not one of: logmel, whisper, whisper+wav2vec2, hubert"),
        ("model.speech=ours", "model.speech=ours is not one of: frames, published"),
        ("model.speech=published", "model.speech=published needs model.kind=wan"),
        (
            "model.round_timesteps=true",
            "model.round_timesteps=true is an option of model.kind=wan; omit it, or --set model.kind=wan",
        ),
        (
            "model.speech_width=64",
            "model.speech_width=64 is an option of model.kind=wan; omit it, or --set model.kind=wan",
        ),
        ("train.zero_stage=4", "train.zero_stage=4 is not one of: 0, 1, 2, 3"),
        ("model.patch=[1, 2]", "model.patch=[1, 2] is not a list of 3 values"),
        ("audio=3", "audio=3 is not a section"),
        ("name.first=3", "name is a value, not a section"),
        ("video.size=81", "video.size=81 is not a multiple of 16"),
        ("video.size=1600000", "video.size=1600000 px is more than 2048"),
        ("model.num_heads=5", "model.hidden_size=192 is not a multiple"),
        ("dub.window=24", "dub.window=24 does not fit the causal codec (4k + 1 frames); use 21 or 25"),
        ("phases.editor.window=49", "phases.editor.window=49 is longer than video.clip_frames=45"),
        ("phases.texture.silent_prob=2", "phases.texture.silent_prob=2.0 is not in [0, 1]"),
        (
            "train.workers=3",
            "train.global_batch=16 (phase generator) is not divisible by train.workers=3",
        ),
        (
            "phases.lip.decode_latents=1",
            "phases.lip.decode_latents=1 latents are 1 frames, and a SyncNet judges 5 or more: use 2 or more",
        ),
        ("dub.lip_band=[0.6, 0.4]", "dub.lip_band=[0.6, 0.4] is not an ordered pair"),
        ("train.lr", "write it as section.key=value"),
        ("=1", "write it as section.key=value"),
        ("train.lr=[1", "is not a YAML value"),
        ("train.lr=2020-13-45", "is not a YAML value"),
        ("train.steps=" + "1" * 400, "train.steps: a number of 400 digits is too large"),
        ("seed=-1", "seed=-1 must be zero or more"),
        ("seed=9007199254740992", "seed=9007199254740992 must be zero or more and below 2^53"),
        ("train.seed=-3", "train.seed (phase generator)=-3 must be zero or more"),
        ("model.num_heads=0", "model.num_heads=0 must be positive"),
        ("model.patch=[0, 0, 0]", "model.patch=[0, 0, 0] must be three positive numbers"),
        ("pairs.batch=0", "pairs.batch=0 must be positive"),
        ("dub.sampler_steps=0", "dub.sampler_steps=0 must be 1 to 1000"),
        ("pairs.sampler_steps=1000000000", "pairs.sampler_steps=1000000000 must be 1 to 1000"),
        ("train.num_threads=-1", "train.num_threads=-1 (phase generator) must be zero or more"),
        ("phases.lip.sync_weight=-1", "phases.lip.sync_weight=-1.0 must be zero or more"),
    ],
)
def test_a_wrong_override_is_refused_with_one_line_that_names_it(override, words):
    assert words in refused(override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.text_tokens=3", "model.text_tokens=3 is an option of model.kind=xdub, .*; omit it, or --set"),
        (
            "model.speech_width=64",
            "model.speech_width=64 is an option of model.speech=published; omit it, or",
        ),
    ],
)
def test_a_wan_refuses_keys_that_it_does_not_read(override, words):
    with pytest.raises(UserError, match=words):
        load_recipe("mini-wan", [override])


def test_the_width_of_hubert_rows_is_a_multiple_of_its_four_states():
    assert "audio.dim=30 is not a multiple of 4" in refused("audio.kind=hubert", "audio.dim=30")


def test_an_added_field_is_part_of_the_identity_only_when_it_differs_from_its_default():
    recipe = load_recipe("tiny")
    other = load_recipe(
        "tiny",
        [
            "model.kind=wan",
            "lora.targets=[ffn.0]",
            "model.text_dim=8",
            "model.linear_skip=false",
            "model.speech=published",
        ],
    )
    assert recipe.to_dict()["model"]["speech"] == "frames" and "speech" not in recipe.identity()["model"]
    changed = {"kind": "wan", "speech": "published", "text_dim": 8, "linear_skip": False}
    assert other.identity()["model"] == recipe.identity()["model"] | changed
    assert recipe_from_dict(recipe.identity()) == recipe


def test_an_error_about_an_unknown_key_lists_the_valid_keys():
    message = refused("pairs.feather=1")
    for field in dataclasses.fields(load_recipe("tiny").pairs):
        assert field.name in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"- 1\n- 2\n", "is not a recipe"),
        (b"a: [1\n", "is not valid YAML"),
        (b"\xff\xfe\x00\x81", "is not a text file"),
        (b"name: x\n", "is missing from the recipe"),
        (b"name: 2020-13-45\n", "is not valid YAML"),
        (b"", "is not a recipe"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content, words):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        load_recipe(path)


def test_a_damaged_section_is_named_even_when_a_setting_overrides_it(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nphases: [1]\n")
    with pytest.raises(UserError, match="phases=\\[1\\] is not a section"):
        load_recipe(path, ["train.steps=5"])


def test_an_error_about_a_missing_recipe_lists_the_shipped_recipes():
    with pytest.raises(UserError, match="tiny, wan-1.3b"):
        load_recipe("tinny")


@pytest.mark.parametrize("phase", PHASES)
def test_missing_numbers_are_never_guessed(phase):
    raw = load_recipe("tiny").to_dict()
    del raw["phases"][phase]["alpha"]
    with pytest.raises(UserError, match=f"phases.{phase}.alpha is missing"):
        recipe_from_dict(raw)


def test_a_phase_overrides_train_and_the_command_line_overrides_both():
    tiny = load_recipe("tiny")
    assert tiny.for_phase("lip").lr != tiny.train.lr == tiny.for_phase("generator").lr
    everywhere = load_recipe("tiny", ["train.lr=3e-3"])
    assert {everywhere.for_phase(phase).lr for phase in PHASES} == {3e-3}
    # The narrower override wins, whatever the order of the overrides.
    for order in (["phases.lip.lr=1e-4", "train.lr=3e-3"], ["train.lr=3e-3", "phases.lip.lr=1e-4"]):
        both = load_recipe("tiny", order)
        assert (both.for_phase("lip").lr, both.for_phase("texture").lr) == (1e-4, 3e-3)
        # The merged recipe contains the override, so a copy saved beside a checkpoint is the same recipe.
        assert recipe_from_dict(both.to_dict()).for_phase("lip").lr == 1e-4


def test_a_phase_without_its_own_seed_uses_the_recipes():
    assert load_recipe("tiny", ["seed=7"]).for_phase("editor").seed == 7
    assert load_recipe("tiny", ["seed=7", "train.seed=8"]).for_phase("editor").seed == 8


def test_recipes_cannot_be_changed_after_loading():
    recipe = load_recipe("tiny")
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.train.lr = 1.0  # type: ignore[misc]


@given(st.floats(min_value=1e-12, max_value=1e6))
def test_numbers_are_read_in_every_notation(value):
    for text in (repr(value), f"{value:.17e}"):
        recipe = load_recipe("tiny", [f"train.lr={text}"])
        assert recipe.train.lr == pytest.approx(value, rel=1e-12)


@given(
    st.sampled_from([field.name for field in dataclasses.fields(TrainConfig)]),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 5),
        st.floats(),
        st.text(max_size=5),
        st.lists(st.integers()),
    ),
)
def test_any_value_of_a_train_field_yields_a_recipe_or_a_user_error(field: str, value: Any):
    raw = load_recipe("tiny").to_dict()
    raw["train"][field] = value
    try:
        recipe = recipe_from_dict(raw)
    except UserError as error:
        assert f"train.{field}" in str(error) or "train.global_batch" in str(error)
    else:
        assert isinstance(recipe, Recipe)
        assert recipe_from_dict(recipe.to_dict()) == recipe


def test_an_override_value_is_read_as_yaml():
    assert parse_override("a.b=[1, 2]") == (("a", "b"), [1, 2])
    assert parse_override("a=x=y") == (("a",), "x=y")
    assert parse_override("codec.path=null") == (("codec", "path"), None)


@given(global_batch=st.integers(1, 300), workers=st.integers(1, 40), most=st.integers(1, 40))
def test_the_micro_batch_is_the_largest_that_fits_and_divides_a_workers_part(
    global_batch: int, workers: int, most: int
) -> None:
    train = dataclasses.replace(load_recipe("tiny").train, global_batch=global_batch, micro_batch=most)
    if global_batch % workers:
        with pytest.raises(UserError, match=f"={global_batch} is not divisible by {workers} workers"):
            train.micro_batch_of(workers)
        return
    part, size = global_batch // workers, train.micro_batch_of(workers)
    assert part % size == 0 and size <= most
    assert not any(part % larger == 0 for larger in range(size + 1, min(most, part) + 1))


def test_guidance_is_a_section_that_a_setting_creates_and_null_removes():
    assert load_recipe("tiny").dub.guidance is None
    recipe = load_recipe("tiny", ["dub.guidance.audio=6", "dub.guidance.audio_floor=0.5"])
    assert recipe.dub.guidance == GuidanceConfig(audio=6, audio_floor=0.5)
    assert recipe_from_dict(recipe.to_dict()) == recipe
    # A recorded recipe without guidance has the value null, which is no obstacle to a setting.
    recorded = load_recipe("tiny").to_dict()
    assert recorded["dub"]["guidance"] is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("dub.guidance.audio=-1", "dub.guidance.audio=-1.0 must be zero or more"),
        (
            "dub.guidance.reference_edges=[0.3, 0.2, 0.5, 0.6]",
            r"dub.guidance.reference_edges=\[0.3, 0.2, 0.5, 0.6\] must be ascending in \[0, 1\]",
        ),
        ("dub.guidance.reference_levels=[-1, 0, 1]", "must be numbers of zero or more"),
        ("dub.guidance.sound=1", "unknown recipe key dub.guidance.sound"),
        ("dub.border=always", "dub.border=always is not one of: none, every_step, last_step"),
        ("dub.motion=pixels", "dub.motion=pixels is not one of: frames, latents"),
        ("dub.join=sum", "dub.join=sum is not one of: frames, latents, mean"),
    ],
)
def test_a_wrong_value_of_guidance_or_of_a_published_option_is_named(setting, message):
    with pytest.raises(UserError, match=message):
        load_recipe("tiny", [setting])


def test_a_setting_of_guidance_changes_a_recorded_recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(load_recipe("tiny").to_yaml())
    changed = load_recipe(path, ["dub.guidance.reference=3"], recorded=True)
    assert changed.dub.guidance is not None and changed.dub.guidance.reference == 3


def test_a_recorded_recipe_may_break_rules_that_came_later_but_no_phase_of_it_trains(tmp_path):
    path = tmp_path / "recipe.yaml"
    recipe = load_recipe("tiny")
    for section, change, words in (
        ("lora", {"targets": ["qkv", "proj"]}, r"lora\.targets=.* proj names no layer"),
        ("phases", {"lip": {**recipe.to_dict()["phases"]["lip"], "decode_latents": 1}}, "judges 5 or more"),
    ):
        raw = recipe.to_dict()
        raw[section] |= change
        older = recipe_from_dict(raw)
        path.write_text(older.to_yaml())
        assert load_recipe(path, recorded=True) == older
        with pytest.raises(UserError, match=words):
            load_recipe(path)
        with pytest.raises(UserError, match=words):
            check_phase(older, "lip")
        check_phase(older, "editor")


def test_a_target_may_name_the_layer_of_one_block():
    for targets in (["blocks.0.ffn.0"], ["attention_2d.qkv"], ["3.audio.kv", "out"]):
        assert load_recipe("tiny", [f"lora.targets={targets}"]).lora.targets == tuple(targets)
