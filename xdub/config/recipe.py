"""The recipe: all sections together, the train settings of a phase, and the checks that span sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import yaml

from xdub.config.phases import PHASES, phase_facts
from xdub.config.sections import (
    AudioConfig,
    CodecConfig,
    DubConfig,
    LoraConfig,
    ModelConfig,
    PairsConfig,
    PerceptionConfig,
    PhaseConfig,
    TrainConfig,
    VideoConfig,
)
from xdub.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run, apart from the data and the machine."""

    name: str
    seed: int = 0
    video: VideoConfig
    codec: CodecConfig
    audio: AudioConfig
    model: ModelConfig
    lora: LoraConfig
    train: TrainConfig
    phases: Mapping[str, PhaseConfig]
    """One section for each phase that is trained."""
    pairs: PairsConfig
    dub: DubConfig
    perception: PerceptionConfig = PerceptionConfig()

    def __post_init__(self) -> None:
        for failed in _failed_checks(self):
            raise UserError(f"recipe {self.name}: {failed}")

    @property
    def phase_names(self) -> tuple[str, ...]:
        """Of the phases that it has a section for, in the order in which they are trained."""
        return tuple(name for name in PHASES if name in self.phases)

    def phase(self, name: str) -> PhaseConfig:
        """The phase's own section."""
        if phase_facts(name).name not in self.phases:
            raise UserError(
                f"recipe {self.name} does not train the phase {name}: it has no section phases.{name}"
            )
        return self.phases[name]

    def for_phase(self, name: str) -> TrainConfig:
        """The train section as the phase uses it; its seed is always an integer."""
        train = replace(self.train, **self.phase(name).train)
        return train if train.seed is not None else replace(train, seed=self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values in the recipe file's own layout; `recipe_from_dict` reads them back to an equal recipe."""
        raw = _plain(asdict(self))
        for phase in raw["phases"].values():
            phase.update(phase.pop("train"))
        return raw

    def to_yaml(self) -> str:
        """`to_dict` as the text of a recipe file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


MAX_SIZE = 2048
MAX_SEED = 2**53
"""What JSON, Parquet and torch all keep exactly."""

POSITIVE = {
    "video": ("size", "crop_scale"),
    "codec": ("channels",),
    "audio": ("dim",),
    "model": ("hidden_size", "num_heads", "num_layers", "ffn_ratio", "text_tokens", "text_dim"),
    "lora": ("rank",),
    "pairs": ("sampler_steps", "sampler_shift", "batch"),
    "dub": ("sampler_steps", "sampler_shift"),
}
NOT_NEGATIVE = {"pairs": ("feather_px", "mouth_threshold", "render_twins", "relight")}
POSITIVE_IN_TRAIN = (
    "steps",
    "workers",
    "global_batch",
    "micro_batch",
    "lr",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "min_workers",
    "hang_seconds",
    "max_skips",
)
NOT_NEGATIVE_IN_TRAIN = (
    "warmup",
    "weight_decay",
    "grad_clip",
    "sample_every",
    "seed",
    "num_threads",
    "spike_factor",
    "max_rollbacks",
)


def _failed_checks(recipe: Recipe) -> Iterator[str]:
    """Messages `path=value ...` for whatever would break later, far from its cause."""
    video, model = recipe.video, recipe.model
    for section, keys in POSITIVE.items():
        yield from _failed_signs(getattr(recipe, section), section, keys, "positive")
    for section, keys in NOT_NEGATIVE.items():
        yield from _failed_signs(getattr(recipe, section), section, keys, "zero or more")
    seeds = {"seed": recipe.seed} | {
        f"train.seed (phase {name})": recipe.for_phase(name).seed for name in recipe.phase_names
    }
    for path, seed in seeds.items():
        if not 0 <= seed < MAX_SEED:
            yield f"{path}={seed} must be zero or more and below 2^53"
    if min(model.patch) <= 0:
        yield f"model.patch={list(model.patch)} must be three positive numbers"
    pixels = 8 * max(model.patch[1], model.patch[2])
    if video.size <= 0 or video.size % pixels:
        yield f"video.size={video.size} is not a multiple of {pixels} (codec 8 px x model.patch)"
    if video.size > MAX_SIZE:
        yield f"video.size={video.size} px is more than {MAX_SIZE}: the size of a face crop, not of the videos"
    if video.fps != 25:
        yield f"video.fps={video.fps}: audio and codec are aligned at 25 fps only"
    if model.hidden_size % (2 * model.num_heads):
        yield f"model.hidden_size={model.hidden_size} is not a multiple of 2 x num_heads ({2 * model.num_heads})"
    frames = {"video.clip_frames": video.clip_frames, "dub.window": recipe.dub.window}
    frames |= {
        "dub.motion_frames": recipe.dub.motion_frames,
        "pairs.motion_frames": recipe.pairs.motion_frames,
    }
    frames |= {"pairs.segment_frames": recipe.pairs.segment_frames}
    for name in recipe.phase_names:
        frames |= {
            f"phases.{name}.{key}": getattr(recipe.phase(name), key) for key in ("window", "motion_frames")
        }
    for path, count in frames.items():
        if count < 1 or count % 4 != 1:
            lower = max(1, (count - 1) // 4 * 4 + 1)
            yield f"{path}={count} does not fit the causal codec (4k + 1 frames); use {lower} or {lower + 4}"
    for section, key in (("pairs", "segment_frames"), ("dub", "window")):
        given, whole = (getattr(getattr(recipe, section), name) for name in ("motion_frames", key))
        if given >= whole:
            yield f"{section}.motion_frames={given} leaves nothing of {section}.{key}={whole}"
    for name in recipe.phase_names:
        yield from _failed_phase_checks(recipe, name)
    for path, band in (("dub.lip_band", recipe.dub.lip_band), ("dub.texture_band", recipe.dub.texture_band)):
        if not 0 <= band[0] <= band[1] <= 1:
            yield f"{path}={list(band)} is not an ordered pair in [0, 1]"


def _failed_signs(
    section: Any, path: str, keys: tuple[str, ...], wanted: str, where: str = ""
) -> Iterator[str]:
    for key in keys:
        value = getattr(section, key)
        if value is not None and (value < 0 or (value == 0 and wanted == "positive")):
            yield f"{path}.{key}={value}{where} must be {wanted}"


def _failed_phase_checks(recipe: Recipe, name: str) -> Iterator[str]:
    phase, train, path = recipe.phase(name), recipe.for_phase(name), f"phases.{name}"
    if phase.window > recipe.video.clip_frames:
        yield f"{path}.window={phase.window} is longer than video.clip_frames={recipe.video.clip_frames}"
    if phase.motion_frames >= phase.window:
        yield f"{path}.motion_frames={phase.motion_frames} leaves nothing of window={phase.window}"
    yield from _failed_signs(phase, path, ("alpha", "decode_latents"), "positive")
    weights = ("face_weight", "lip_weight", "sync_weight", "identity_weight", "clip_weight")
    yield from _failed_signs(phase, path, weights, "zero or more")
    for key in ("motion_prob", "silent_prob", "t_thres"):
        if not 0 <= getattr(phase, key) <= 1:
            yield f"{path}.{key}={getattr(phase, key)} is not in [0, 1]"
    where = f" (phase {name})"
    yield from _failed_signs(train, "train", POSITIVE_IN_TRAIN, "positive", where)
    yield from _failed_signs(train, "train", NOT_NEGATIVE_IN_TRAIN, "zero or more", where)
    if not 0 <= train.ema < 1:
        yield f"train.ema={train.ema} (phase {name}) is not in [0, 1)"
    if train.min_workers is not None and train.min_workers > train.workers:
        yield f"train.min_workers={train.min_workers} (phase {name}) is more than train.workers={train.workers}"
    if train.workers > 0 and train.global_batch % train.workers:
        yield (
            f"train.global_batch={train.global_batch} (phase {name}) is not divisible by train.workers={train.workers}"
        )
