"""Published editors by name: their recipes, and a dub, a pair and a start of training with random networks."""

from __future__ import annotations

import shlex
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.config import load_recipe, published_recipes
from xdub.data.shards import ShardWriter, iter_clips
from xdub.data.testing import make_clip
from xdub.dub import dub
from xdub.dub.dub import build_dubber, dub_video
from xdub.errors import UserError
from xdub.media import probe, read_frames, write_video
from xdub.model.bundle import load_bundle
from xdub.model.editor_start import start_from_editor
from xdub.model.published import EDITORS, published_folder, published_recipe
from xdub.model.release_testing import write_null_prompt
from xdub.pairs.factory import build_pairs
from xdub.pairs.maker import load_maker, recipe_with_editor
from xdub.pairs.testing import plain_judges
from xdub.pairs.units import deciding_sections
from xdub.perception.faces import FaceTrack

SMALL = ("video.size=64", "dub.window=13", "train.precision=fp32")


def test_the_recipes_have_the_facts_of_the_releases():
    assert published_recipes() == sorted(editor.name for editor in EDITORS)
    public, teacher, student = (load_recipe(editor.name) for editor in EDITORS)
    for recipe in (public, teacher, student):
        model = recipe.model
        assert (model.kind, model.hidden_size, model.num_heads, model.num_layers) == ("wan", 3072, 24, 30)
        assert (model.ffn_dim, model.order, model.speech) == (14336, "reference_first", "published")
        assert model.round_timesteps and recipe.codec.kind == "wan2.2" and recipe.video.crop == "landmark_box"
        assert (recipe.dub.window, recipe.dub.motion_frames) == (77, 5)
    assert (public.audio.dim, teacher.audio.dim) == (2048, 4096)
    guidance = public.dub.guidance
    assert (guidance.reference, guidance.audio, guidance.audio_floor, public.dub.sampler_shift) == (
        2.5,
        10,
        0,
        5,
    )
    guidance = teacher.dub.guidance
    assert (guidance.reference, guidance.audio, guidance.audio_floor) == (2, 6, 0.5)
    assert (public.dub.border, teacher.dub.border, student.dub.border) == (
        "every_step",
        "every_step",
        "last_step",
    )
    assert (public.dub.colour, teacher.dub.colour, student.dub.colour) == ("masked_rgb", "lab", "lab")
    with pytest.raises(UserError, match="dub.join=mean needs dub.motion=frames"):
        load_recipe("tbdub-student", ["dub.join=mean"])
    with pytest.raises(UserError, match="dub.join=mean needs dub.motion_frames=5 or more"):
        load_recipe("xdub-public", ["dub.motion_frames=1"])
    # The student removes its base's guidance.
    assert student.dub.guidance is None and (student.dub.sampler_steps, student.dub.sampler_shift) == (2, 1)
    assert student.dub.lead_in and student.dub.motion == "latents"
    assert (public.dub.motion, teacher.dub.lead_in) == ("frames", False)
    assert [recipe.dub.join for recipe in (public, teacher, student)] == ["mean", "latents", "frames"]
    assert [load_recipe(f"{name}-lora-24gb").dub.join for name in ("xdub-public", "tbdub")] == [
        "mean",
        "latents",
    ]


def test_the_sizes_of_a_network_come_from_its_file(releases):
    for name, text in releases.items():
        recipe = published_recipe(published_folder(text), SMALL)
        assert (recipe.name, recipe.model.hidden_size, recipe.model.num_heads) == (name, 128, 1)
        assert recipe.audio.dim == 32 and recipe.model.text_dim == 16
        assert recipe.model.base.endswith(".safetensors") and Path(recipe.codec.path).is_file()
    folder = published_folder(releases["xdub-public"])
    with pytest.raises(UserError, match="--set model.num_layers=3: the files in .* decide model.num_layers"):
        published_recipe(folder, ["model.num_layers=3"])


def test_missing_files_are_named_with_the_command_that_fetches_them(releases, tmp_path):
    assert published_folder("tiny") is None and published_folder("run/bundle") is None
    with pytest.raises(UserError, match="xdub-public:DIR; `xdub weights fetch xdub-public`"):
        published_folder("xdub-public")
    with pytest.raises(UserError, match="no such folder; `xdub weights fetch tbdub-student`"):
        published_recipe(published_folder(f"tbdub-student:{tmp_path}/none"))
    with pytest.raises(
        UserError, match="has no tbdub_student.safetensors; `xdub weights fetch tbdub-student`"
    ):
        published_recipe(published_folder(f"tbdub-student:{tmp_path}"))
    source = published_folder(releases["xdub-public"]).path
    for path in source.iterdir():
        if path.suffix != ".pt":
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(
        UserError, match="has no prompt.safetensors or null_prompt_emb.pt; write it with `xdub weights"
    ):
        published_recipe(published_folder(f"xdub-public:{tmp_path}"))


def test_a_file_that_a_setting_moves_need_not_be_in_the_folder(releases, tmp_path):
    source = published_folder(releases["tbdub-student"]).path
    folder = published_folder(f"tbdub-student:{tmp_path}")
    (tmp_path / "tbdub_student.safetensors").symlink_to(source / "tbdub_student.safetensors")
    moves = [
        f"codec.path={source / 'Wan2.2_VAE.safetensors'}",
        f"audio.path={source / 'hubert-large-ll60k'}",
        f"model.prompt={source / 'null_prompt_emb.pt'}",
    ]
    recipe = published_recipe(folder, moves)
    assert recipe.codec.path == str(source / "Wan2.2_VAE.safetensors")
    assert recipe.model.prompt == str(source / "null_prompt_emb.pt")
    for missing, move in zip(("Wan2.2_VAE", "hubert-large-ll60k", "null_prompt_emb"), moves, strict=True):
        with pytest.raises(UserError, match=f"has no .*{missing}"):
            published_recipe(folder, [text for text in moves if text != move])


@pytest.fixture()
def one_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace face tracking: a face is in the middle of every frame."""

    def track(video: Path, max_frames: int, on_frame=None) -> FaceTrack:
        count, height, width, _ = read_frames(video, max_frames=max_frames).shape
        points = np.random.default_rng(0).uniform(-0.4, 0.4, (68, 2))
        points[36:42], points[42:48], points[27:36] = (-0.5, -0.5), (0.5, -0.5), (0, 0.1)
        landmarks = np.tile(points * 24 + (width / 2, height / 2), (count, 1, 1)).astype(np.float32)
        return FaceTrack(
            landmarks68=landmarks,
            landmarks478=None,
            detected=np.ones(count, bool),
            faces=np.ones(count, int),
            cuts=np.zeros(count, bool),
            height=height,
            width=width,
            bounds=np.concatenate([landmarks.min(1), landmarks.max(1)], 1),
        )

    monkeypatch.setattr(dub, "track_face", track)


def media(folder: Path, seconds: float) -> tuple[Path, Path]:
    video, audio = folder / "v.mp4", folder / "a.wav"
    y, x = np.mgrid[:80, :96]
    pictures = (
        np.stack([x + 2 * n, y + n, 100 + 0 * x], -1).clip(0, 255).astype(np.uint8) for n in range(40)
    )
    write_video(video, pictures, fps=25, crf=5)
    with wave.open(str(audio), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        noise = np.random.default_rng(0).normal(0, 3000, round(16000 * seconds))
        file.writeframes(noise.astype("<i2").tobytes())
    return video, audio


def test_the_command_dubs_with_the_students_files_once_its_licence_is_accepted(
    releases, settings_folder, one_face, tmp_path, capsys
):
    """Two windows: the second one continues the latents of the first."""
    video, audio = media(tmp_path, 0.8)
    words = ["dub", "--video", str(video), "--audio", str(audio), "--out", str(tmp_path / "o.mp4")]
    words += ["--model", releases["tbdub-student"], *(f"--set={text}" for text in SMALL)]
    assert run_app(app, words) == 2
    assert "--accept-licence tbdub-student" in capsys.readouterr().err
    assert run_app(app, [*words, "--accept-licence", "tbdub-student"]) == 0
    info = probe(tmp_path / "o.mp4")
    assert (info.frames, info.width, info.height) == (20, 96, 80)
    assert run_app(app, words) == 0


@pytest.mark.parametrize("name", ["xdub-public", "tbdub-teacher"])
def test_guided_editors_dub_with_three_branches(releases, accepted, one_face, tmp_path, monkeypatch, name):
    """Two windows, whose latents are decoded as one video: 13 frames, and 8 frames behind 5 frames of motion."""
    video, audio = media(tmp_path, 0.8)
    bundle = load_bundle(releases[name], settings=[*SMALL, "dub.sampler_steps=2"])
    sizes, velocity = [], bundle.editor.velocity
    monkeypatch.setattr(
        bundle.editor, "velocity", lambda z, t, conditions: sizes.append(len(z)) or velocity(z, t, conditions)
    )
    crops = []
    report = dub_video(
        video, audio, tmp_path / "o.mp4", model=bundle, on_crops=lambda new, *_: crops.append(len(new))
    )
    assert report.frames == report.dubbed == 20 and sizes == [3, 3, 3, 3]
    # X-Dub averages the latent of frames 9 to 12, so the second window contributes them.
    assert crops == ([9, 11] if name == "xdub-public" else [13, 7])
    sampler = build_dubber(bundle, "editor", np.ones(16000, np.float32), 0).sampler
    assert sampler.editing.rounded and sampler.editing.border == "every_step"


def test_the_silent_branch_reads_features_of_zeros(releases, accepted):
    """In X-Dub's release "no audio" is not a closed gate: zeros pass the projection."""
    bundle = load_bundle(releases["xdub-public"], settings=SMALL)
    generator = torch.Generator().manual_seed(0)
    z, z_ref = torch.randn(2, 1, 48, 4, 4, 4, generator=generator)
    audio = torch.randn(1, 40, 32, generator=generator)
    starts = torch.tensor([0, 8, 16, 24])
    model, t = bundle.editor, torch.tensor([0.7])
    silent = model.velocity(z, t, model.conditions(z_ref, audio, starts, audio_enabled=torch.tensor([False])))
    zeros = model.velocity(z, t, model.conditions(z_ref, torch.zeros_like(audio), starts))
    spoken = model.velocity(z, t, model.conditions(z_ref, audio, starts))
    torch.testing.assert_close(silent, zeros)
    assert (silent - spoken).abs().max() > 1e-4


def test_an_editor_makes_pairs_without_a_mask(releases, accepted, tmp_path):
    with ShardWriter(tmp_path / "data") as writer:
        for seed in range(2):
            writer.add(
                make_clip(
                    seed, num_frames=21, size=64, speaker="anna", occluder_mask=np.zeros((21, 64, 64), bool)
                )
            )
    settings = ["pairs.identity_threshold=-1", "pairs.mouth_threshold=0", "pairs.relight=0", *SMALL]
    # A match of colours would turn the faint pictures of a random codec into noise.
    settings += ["perception.identity=mobilefacenet", "dub.colour=none"]
    recipe = load_recipe("tbdub-student", settings)
    student = releases["tbdub-student"]
    build = dict(local=True, judges=plain_judges())
    report = build_pairs(recipe, student, tmp_path / "data", tmp_path / "out", **build)
    assert report.inputs == 2 and report.counts["failed"] == 0, report.counts
    pairs = list(iter_clips(tmp_path / "out"))
    assert pairs and all(pair.reference.shape == (21, 64, 64, 3) for pair in pairs)
    for pair in pairs:
        changed = np.abs(pair.reference.astype(int) - pair.frames).max(-1)
        # Shards are compressed, so unchanged pixels differ slightly.
        assert changed[pair.face_mask].max() > 30 and np.median(changed[~pair.face_mask]) < 5
    again = build_pairs(recipe, student, tmp_path / "data", tmp_path / "out", **build)
    assert again.counts == report.counts
    with pytest.raises(UserError, match="built with another generator"):
        build_pairs(
            load_recipe("tbdub-teacher", settings),
            releases["tbdub-teacher"],
            tmp_path / "data",
            tmp_path / "out",
            **build,
        )


def test_pairs_of_another_recipe_are_made_as_the_editors_recipe_says(releases):
    teacher = published_folder(releases["tbdub-teacher"])
    recipe = recipe_with_editor(load_recipe("tiny", ["dub.sampler_steps=7"]), teacher)
    assert recipe.name == "tiny" and recipe.dub == load_recipe("tbdub-teacher").dub
    assert (recipe.model.hidden_size, recipe.codec.kind, recipe.audio.kind) == (128, "wan2.2", "hubert")
    assert not recipe.dub.compile
    compiled = recipe_with_editor(load_recipe("tiny", ["dub.compile=true", "pairs.compile=true"]), teacher)
    assert compiled.dub.compile and compiled.pairs.compile
    for name in ("tbdub-teacher", "tbdub-lora-24gb"):
        own = load_recipe(name, ["dub.sampler_steps=7", "dub.colour=none"])
        assert recipe_with_editor(own, teacher).dub == own.dub


@pytest.mark.parametrize(
    ("name", "editor", "words"),
    [
        ("tbdub-lora-24gb", "tbdub-student", "guidance and motion=frames, .* no guidance and motion=latents"),
        ("tbdub-student", "tbdub-teacher", "no guidance and motion=latents, .* guidance and motion=frames"),
    ],
)
def test_a_recipe_of_an_editor_that_is_sampled_otherwise_is_refused_with_all_settings(
    releases, name, editor, words
):
    published = published_folder(releases[editor])
    with pytest.raises(UserError, match=words) as refusal:
        recipe_with_editor(load_recipe(name), published)
    settings = [word for word in shlex.split(str(refusal.value).split("; use ")[1]) if word != "--set"]
    assert {"dub.sampler_steps", "dub.border", "dub.join", "dub.lead_in"} <= {
        text.partition("=")[0] for text in settings
    }
    own = load_recipe(name, settings)
    expected = replace(load_recipe(editor).dub, offload=own.dub.offload)
    assert recipe_with_editor(own, published).dub == own.dub == expected


def test_pairs_of_an_editor_read_the_files_that_a_recipe_of_its_kind_names(releases, tmp_path):
    folder = Path(releases["tbdub-teacher"].split(":")[1])
    for path in folder.iterdir():
        if path.name not in ("hubert-large-ll60k", "null_prompt_emb.pt"):
            (tmp_path / path.name).symlink_to(path)
    moved = {"audio.path": folder / "hubert-large-ll60k", "model.prompt": folder / "null_prompt_emb.pt"}
    recipe = load_recipe("tbdub-lora", [f"{key}={path}" for key, path in moved.items()])
    teacher = published_folder(f"tbdub-teacher:{tmp_path}")
    for each in (recipe, start_from_editor(recipe, str(teacher))):
        pairs = recipe_with_editor(each, teacher)
        assert (pairs.audio.path, pairs.model.prompt) == tuple(map(str, moved.values()))
        assert pairs.codec.path == str(tmp_path / "Wan2.2_VAE.safetensors")
    with pytest.raises(UserError, match="has no hubert-large-ll60k"):
        recipe_with_editor(load_recipe("tiny"), teacher)


@pytest.mark.parametrize("key", ["pairs.compile", "dub.compile"])
def test_an_editor_makes_pairs_with_a_compiled_step_where_the_recipe_says_so(releases, accepted, key):
    student = releases["tbdub-student"]
    for value in (True, False):
        settings = [*SMALL, f"{key}={str(value).lower()}", "pairs.batch=3"]
        recipe = recipe_with_editor(load_recipe("tiny", settings), published_folder(student))
        maker = load_maker(recipe, student, torch.device("cpu"))
        assert maker.sampler.compile_for == (3 if value else None)


def test_a_prompt_in_the_folder_of_weights_makes_the_same_pairs_as_the_same_prompt_elsewhere(
    releases, tmp_path
):
    settings = ["perception.identity=mobilefacenet"]
    recipe = published_recipe(published_folder(releases["tbdub-student"]), settings)
    (tmp_path / "null_prompt_emb.pt").write_bytes(Path(recipe.model.prompt).read_bytes())
    kept = replace(recipe, model=replace(recipe.model, prompt=None), weights=str(tmp_path))
    assert deciding_sections(kept) == deciding_sections(recipe)
    (tmp_path / "null_prompt_emb.pt").unlink()
    write_null_prompt(tmp_path / "null_prompt_emb.pt", text_dim=17)
    assert deciding_sections(kept)["networks"]["prompt"] != deciding_sections(recipe)["networks"]["prompt"]
