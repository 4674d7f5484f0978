"""The recipe: all sections together, the train settings of a phase, and the checks that span sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from dataclasses import field as added_section
from typing import Any

import yaml

from xdub.config.checks import ADDED, failed_frames, failed_values
from xdub.config.embedders import EMBEDDERS
from xdub.config.lora_section import LoraConfig
from xdub.config.mask_section import MasksConfig
from xdub.config.network_sections import AudioConfig, CodecConfig, PerceptionConfig
from xdub.config.phases import PHASES, in_model, phase_facts
from xdub.config.sampling_sections import DubConfig, PairsConfig
from xdub.config.screen_section import ScreenConfig
from xdub.config.sections import (
    ModelConfig,
    PhaseConfig,
    TrainConfig,
    VideoConfig,
)
from xdub.config.syncnet_section import SyncNetConfig
from xdub.errors import UserError
from xdub.speech_windows import SpeechWindows, speech_windows


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run, apart from the data and the machine."""

    name: str
    seed: int = 0
    weights: str | None = None
    """Folder of all third-party networks, under the names of `xdub.config.weight_files.NETWORKS`. A section's own path
    overrides it."""
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
    syncnet: SyncNetConfig = SyncNetConfig()
    screen: ScreenConfig = added_section(default=ScreenConfig(), metadata=ADDED)
    """A section of which every field is `ADDED`, so a recipe without it keeps its identity."""
    masks: MasksConfig = added_section(default=MasksConfig(), metadata=ADDED)

    def __post_init__(self) -> None:
        if self.pairs.identity_threshold is None:
            # The number is recorded with a run, so that a later calibration does not change it.
            own = EMBEDDERS[self.perception.identity].threshold
            object.__setattr__(self, "pairs", replace(self.pairs, identity_threshold=own))
        for name in ("codec", "audio", "perception", "masks"):
            # A frozen dataclass sets its derived fields this way.
            object.__setattr__(self, name, replace(getattr(self, name), weights=self.weights))
        for failed in _failed_checks(self):
            raise UserError(f"recipe {self.name}: {failed}")

    @property
    def identity_threshold(self) -> float:
        """Lowest cosine between V and V' in the pair filter."""
        assert self.pairs.identity_threshold is not None
        return self.pairs.identity_threshold

    @property
    def speech(self) -> SpeechWindows:
        """Rows of audio features of a window and its latents."""
        return speech_windows(self.model.speech, self.codec.geometry)

    @property
    def phase_names(self) -> tuple[str, ...]:
        """Names of the phases that the recipe has a section for, in the order in which they are trained."""
        return tuple(name for name in PHASES if name in self.phases)

    def phase(self, name: str) -> PhaseConfig:
        """Return the phase's own section. Raise UserError if the recipe has none."""
        if phase_facts(name).name not in self.phases:
            raise UserError(
                f"recipe {self.name} does not train the phase {name}: it has no section phases.{name}"
            )
        return self.phases[name]

    def for_phase(self, name: str) -> TrainConfig:
        """Return the train section with the phase's overrides; its seed is always an integer."""
        own = self.phase(name) if in_model(name) else self.syncnet
        train = replace(self.train, **own.train)
        return train if train.seed is not None else replace(train, seed=self.seed)

    def seed_of(self, name: str) -> int:
        """Return the seed of a phase: its own, else that of the train section, else the recipe's."""
        seed = self.for_phase(name).seed
        return self.seed if seed is None else seed

    def window(self, name: str) -> int:
        """Return the frames of one training sample of a phase."""
        if in_model(name):
            return self.phase(name).window
        return self.syncnet.window_of(self.codec.geometry, self.video.clip_frames)

    def held_out(self, name: str) -> float:
        """Return the share of the clips that a phase does not train on."""
        return 0.0 if in_model(name) else self.syncnet.held_out

    def to_dict(self) -> dict[str, Any]:
        """Return plain values in the layout of a recipe file; `recipe_from_dict` reads them back to an equal recipe."""
        raw = _lists(asdict(self))
        for section in fields(self):
            value = getattr(self, section.name)
            for field in fields(value) if is_dataclass(value) else ():
                if field.metadata.get("derived"):
                    del raw[section.name][field.name]
        for phase in raw["phases"].values():
            phase.update(phase.pop("train"))
        raw["syncnet"].update(raw["syncnet"].pop("train"))
        return raw

    def identity(self) -> dict[str, Any]:
        """Return `to_dict` without fields marked `NEUTRAL`, and those marked `ADDED` that have their default value.

        Digests and comparisons with recorded values are computed from this form, so that a new field with its default
        changes neither the ids of pairs nor the facts of a data set.
        """
        raw = self.to_dict()
        for section in fields(self):
            value = getattr(self, section.name)
            for field in fields(value) if is_dataclass(value) else ():
                added = field.metadata.get("added") and getattr(value, field.name) == field.default
                if added or field.metadata.get("neutral"):
                    del raw[section.name][field.name]
            if section.metadata.get("added") and not raw[section.name]:
                del raw[section.name]
        return raw

    def lasting(self) -> dict[str, Any]:
        """Return `to_dict` without what a run may change when it continues: `RUNNING`, and fields marked `NEUTRAL`."""
        raw = self.to_dict()
        # A bootstrap trains no SyncNet and prepares no videos.
        del raw["syncnet"], raw["screen"]
        for section in (raw["train"], *raw["phases"].values()):
            for name in RUNNING & section.keys():
                del section[name]
        for name in ("pairs", "dub"):
            for field in fields(getattr(self, name)):
                if field.metadata.get("neutral"):
                    del raw[name][field.name]
        return raw

    def to_yaml(self) -> str:
        """Return `to_dict` as the text of a recipe file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def _lists(value: Any) -> Any:
    """Convert tuples to lists, because YAML and JSON have no tuples."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


RUNNING = frozenset(
    {
        "workers",
        "min_workers",
        "resource",
        "sequence_parallel",
        "micro_batch",
        "zero_stage",
        "num_threads",
        "activation_checkpointing",
        "compile",
        "offload",
        "hang_seconds",
        "max_rollbacks",
        "upload_to",
        "latents",
        "latent_cache",
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
        "sample_every",
    }
)
"""Fields of `train` that decide how a run is computed and recorded, but not its result, apart from rounding."""
MAX_SEED = 2**53
"""Bound of a seed: JSON, Parquet and torch keep smaller integers exactly."""


def _failed_checks(recipe: Recipe) -> Iterator[str]:
    """Yield a message ``path=value ...`` for every value that would fail later, far from its cause."""
    video, model, geometry = recipe.video, recipe.model, recipe.codec.geometry
    sections = {
        "video": video,
        "codec": recipe.codec,
        "audio": recipe.audio,
        "model": model,
        "lora": recipe.lora,
        "pairs": recipe.pairs,
        "dub": recipe.dub,
        "syncnet": recipe.syncnet,
        "screen": recipe.screen,
        "masks": recipe.masks,
    }
    if recipe.dub.guidance is not None:
        yield from failed_values(recipe.dub.guidance, "dub.guidance")
    for path, section in sections.items():
        yield from failed_values(section, path)
    yield from _failed_seeds(recipe)
    pixels = geometry.space * max(model.patch[1], model.patch[2])
    if video.size % pixels:
        yield f"video.size={video.size} is not a multiple of {pixels} (codec {geometry.space} px x model.patch)"
    yield from video.failed_checks("video")
    yield from recipe.audio.failed_checks("audio")
    yield from model.failed_checks("model")
    phases = {f"phases.{name}": recipe.phase(name) for name in recipe.phase_names}
    for path, section in (sections | phases).items():
        yield from failed_frames(section, path, geometry)
    yield from recipe.pairs.failed_checks("pairs")
    yield from recipe.dub.failed_checks("dub", geometry)
    yield from recipe.syncnet.failed_checks("syncnet")
    yield from recipe.screen.failed_checks("screen")
    for name, (path, phase) in zip(recipe.phase_names, phases.items(), strict=True):
        train, where = recipe.for_phase(name), f" (phase {name})"
        yield from phase.failed_checks(path, video.clip_frames)
        yield from failed_values(phase, path)
        yield from failed_values(train, "train", where)
        yield from train.failed_checks("train", where)
        if model.num_heads % train.sequence_parallel:
            divisors = [n for n in range(1, model.num_heads + 1) if model.num_heads % n == 0]
            yield (
                f"train.sequence_parallel={train.sequence_parallel}{where} does not divide the "
                f"model.num_heads={model.num_heads} attention heads: use one of {', '.join(map(str, divisors))}"
            )


def _failed_seeds(recipe: Recipe) -> Iterator[str]:
    seeds = {"seed": recipe.seed} | {
        f"train.seed (phase {name})": recipe.for_phase(name).seed for name in recipe.phase_names
    }
    for path, seed in seeds.items():
        if seed is not None and not 0 <= seed < MAX_SEED:
            yield f"{path}={seed} must be zero or more and below 2^53"
