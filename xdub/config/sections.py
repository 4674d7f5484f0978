"""Recipe sections of data, network and training. Fields without a default are required; defaults are the paper's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from xdub.config.checks import (
    ADDED,
    DECAY,
    FRAMES,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    THREE_POSITIVE,
)
from xdub.errors import UserError
from xdub.geometry import FPS
from xdub.speech_windows import SpeechForm

MAX_SIZE = 2048
"""Largest side of a face crop, px."""

SPEECH_WIDTH = 1536
"""Width of the projection of speech in the published editors."""

TokenOrder = Literal["target_first", "reference_first"]
"""Segment of the token sequence that comes first."""
CropKind = Literal["template", "landmark_box"]
"""Box of a face crop: by eyes and nose, or around all landmarks."""
Offload = Literal["none", "optimizer", "blocks", "optimizer+blocks"]
"""Tensors of training that are kept in CPU memory."""
Policy = Literal["none", "full", "attention"]
"""Checkpoint policy: backward recomputes nothing, whole blocks, or blocks without their self-attention."""


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Face crops as they are stored in shards (paper B.6)."""

    size: Annotated[int, POSITIVE]
    """Side of the square face crop, px."""
    fps: int = 25
    clip_frames: Annotated[int, FRAMES]
    """Longest clip row, frames, 4k + 1 so that the causal codec divides it."""
    crop_scale: Annotated[float, POSITIVE] = 1.0
    """Factor on the crop side; 1.0 is about 1.25 face widths of a ``template``."""
    crop: CropKind = field(default="template", metadata=ADDED)
    """Box of a face crop: ``template`` is placed by eyes and nose, ``landmark_box`` is the one of X-Dub's and TBDub's
    releases around all landmarks (`xdub.data.landmark_boxes`), about half as wide again."""

    def failed_checks(self, path: str) -> Iterator[str]:
        """Yield a message for every rule that spans more than one field or constant."""
        if self.size > MAX_SIZE:
            yield f"{path}.size={self.size} px is more than {MAX_SIZE}: the size of a face crop, not of the videos"
        if self.fps != FPS:
            yield f"{path}.fps={self.fps}: audio and codec are aligned at {FPS} fps only"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The diffusion transformer (paper B.1, B.2)."""

    kind: Literal["xdub", "wan"] = field(default="xdub", metadata=ADDED)
    """``xdub`` is the paper's network; ``wan`` is the network of Wan 2.1, Wan 2.2 and the published dubbing editors."""
    hidden_size: Annotated[int, POSITIVE]
    num_heads: Annotated[int, POSITIVE]
    num_layers: Annotated[int, POSITIVE]
    ffn_ratio: Annotated[float, POSITIVE] = 4.0
    ffn_dim: Annotated[int | None, POSITIVE] = field(default=None, metadata=ADDED)
    """Inner width of the FFN of a `wan`. None: ffn_ratio x hidden_size."""
    patch: Annotated[tuple[int, int, int], THREE_POSITIVE] = (1, 2, 2)
    """Latent frames, rows and columns of one token."""
    text_tokens: Annotated[int, POSITIVE] = 1
    """Length of the learned null prompt."""
    text_dim: Annotated[int | None, POSITIVE] = None
    """Width of text embeddings, e.g. UMT5's 4096. None: the network has the null prompt only."""
    order: TokenOrder = "target_first"
    """Token order of the sequence; the public release has the reference first."""
    prompt: str | None = field(default=None, metadata=ADDED)
    """File of the embedded prompt of a `wan`, see `xdub weights prompt`. None: the one in the recipe's `weights`."""
    base: str | None = field(default=None, metadata=ADDED)
    """Open weights that every phase of a `wan` starts from: a folder or file that `xdub.model.load_backbone` reads.
    None: the ones in the recipe's `weights`, else random weights; ``random``: random weights."""
    speech: SpeechForm = field(default="frames", metadata=ADDED)
    """Audio rows of each latent frame (`xdub.speech_windows`): ``frames`` are 16 rows around its frames (paper B.2);
    ``published`` are the 8 rows and the projection of the published editors, which only a `wan` has."""
    speech_width: Annotated[int, POSITIVE] = field(default=SPEECH_WIDTH, metadata=ADDED)
    """Width of the projection of speech ``published``."""
    round_timesteps: bool = field(default=False, metadata=ADDED)
    """Round 1000 t to bfloat16 before its sinusoid, as the published editors do."""
    linear_skip: bool = False
    """Add the best linear guess of v from z_t and the codec's channel statistics; the network learns the rest. A small
    model needs it to keep the picture sharp."""

    def failed_checks(self, path: str) -> Iterator[str]:
        """Yield a message for every rule that spans more than one field."""
        if self.num_heads > 0 and self.hidden_size % (2 * self.num_heads):
            pairs = 2 * self.num_heads
            yield f"{path}.hidden_size={self.hidden_size} is not a multiple of 2 x num_heads ({pairs})"
        if self.speech == "published" and self.kind != "wan":
            yield f"{path}.speech=published needs {path}.kind=wan: the network of the paper reads frames"
        if self.kind == "wan" and self.text_dim is None:
            yield f"{path}.text_dim must be the width of the prompt's embedding for {path}.kind=wan, 4096 for UMT5"
        if self.kind == "wan" and self.linear_skip:
            yield f"{path}.linear_skip is an option of {path}.kind=xdub"
        if self.kind == "wan" and self.text_tokens != 1:
            yield (
                f"{path}.text_tokens={self.text_tokens} is an option of {path}.kind=xdub, because a wan reads a prompt "
                f"from a file; omit it, or --set {path}.kind=xdub"
            )
        if self.kind == "wan" and self.speech == "frames" and self.speech_width != SPEECH_WIDTH:
            yield (
                f"{path}.speech_width={self.speech_width} is an option of {path}.speech=published; omit it, or --set "
                f"{path}.speech=published"
            )
        own: dict[str, object] = {"base": self.base, "prompt": self.prompt, "ffn_dim": self.ffn_dim}
        own["speech_width"] = None if self.speech_width == SPEECH_WIDTH else self.speech_width
        own["round_timesteps"] = "true" if self.round_timesteps else None
        for key, value in own.items():
            if self.kind == "xdub" and value is not None:
                yield f"{path}.{key}={value} is an option of {path}.kind=wan; omit it, or --set {path}.kind=wan"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimisation of a phase. A phase's own section overrides these fields, `--set train.x` overrides both."""

    steps: Annotated[int, POSITIVE]
    workers: Annotated[int, POSITIVE] = 1
    """Ray Train workers (GPUs, or CPU processes)."""
    sequence_parallel: Annotated[int, POSITIVE] = field(default=1, metadata=ADDED)
    """Workers that share the tokens of each sample (Ulysses, `xdub.model.sequence`): a divisor of `workers` and of the
    model's attention heads. 1: every worker has samples of its own."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """State that DeepSpeed shards over the workers: 0 none, 1 optimizer, 2 also gradients, 3 also weights."""
    global_batch: Annotated[int, POSITIVE]
    micro_batch: Annotated[int, POSITIVE]
    """Largest number of samples of one forward pass on one worker; see `micro_batch_of`."""
    lr: Annotated[float, POSITIVE]
    warmup: Annotated[int, NOT_NEGATIVE] = 0
    """Steps of linear warm-up."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    grad_clip: Annotated[float, NOT_NEGATIVE] = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    base_dtype: Literal["fp32", "bf16", "int8", "fp8"] | None = field(default=None, metadata=ADDED)
    """Storage of the frozen linear layers in the blocks under an adapter; products are computed in `precision`. None:
    `precision`."""
    ema: Annotated[float, DECAY] = 0.0
    """Decay of the averaged weights; 0: no average is kept."""
    checkpoint_every: Annotated[int, POSITIVE]
    keep_checkpoints: Annotated[int, POSITIVE] = 2
    log_every: Annotated[int, POSITIVE] = 10
    sample_every: Annotated[int, NOT_NEGATIVE] = 0
    """Steps between sample strips in the tracker; 0: no strips."""
    activation_checkpointing: Policy = "none"
    compile: bool = False
    offload: Offload = field(default="none", metadata=ADDED)
    """Tensors in CPU memory: the optimizer's states and fp32 weights (ZeRO offload, which needs a `zero_stage`), the
    frozen blocks under an adapter, or both. A GPU then holds two blocks at a time."""
    seed: Annotated[int | None, NOT_NEGATIVE] = None
    """Seed of noise, windows and order. None: the recipe's seed."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """AdamW with moments in fp32, or in blocks of 8-bit numbers (`xdub.train.adamw8bit`)."""
    lr_schedule: Literal["cosine", "constant"] = "constant"
    num_threads: Annotated[int | None, NOT_NEGATIVE] = None
    """Torch threads of one worker. None: cores / workers."""
    upload_to: str | None = None
    """Target of background copies of checkpoints and exports: s3://, gs://, hdfs://, file://, or a folder. With
    --resume, a machine without a checkpoint fetches the newest one from this target."""
    min_workers: Annotated[int | None, POSITIVE] = None
    """Fewest workers with which a run continues after machines are lost; it grows again up to `workers`. None: always
    `workers`."""
    resource: str | None = None
    """Custom Ray resource, such as `train`; each worker occupies one, so workers run only on machines that offer it."""
    hang_seconds: Annotated[float, POSITIVE] = 900.0
    """Seconds without progress after which a worker is ended and the run restarted; three times as long before the
    first step."""
    spike_factor: Annotated[float, NOT_NEGATIVE] = 8.0
    """Multiple of the median of the last 64 losses above which a batch is skipped; 0: never."""
    max_skips: Annotated[int, POSITIVE] = 3
    """Batches skipped in a row after which the run rolls back to its last checkpoint and continues after these."""
    max_rollbacks: Annotated[int, NOT_NEGATIVE] = 2
    """Rollbacks after which the run stops with an error."""
    tune: Literal["all", "adapter"] = field(default="all", metadata=ADDED)
    """Parameters that generator and editor train: all, or an adapter of section `lora` on the frozen weights of
    `model.base`, together with the parts that those weights lack. The experts are adapters anyway."""
    init_from: str | None = None
    """Weights that the phase starts from: a file or an export folder."""
    latents: Literal["live", "cached"] = field(default="live", metadata=ADDED)
    """Encode the videos and the speech of every sample in each step, or read the results of `xdub encode`."""
    latent_cache: str | None = field(default=None, metadata=ADDED)
    """Folder of the caches of all data sets. None: the folder `latents` of each data set."""
    window_stride: Annotated[int, POSITIVE] = field(default=1, metadata=ADDED)
    """Windows begin at multiples of this number of frames, and so do the generator's reference frames. A cache of
    latents has an entry for each of them, so a wide grid makes it small."""

    def failed_checks(self, path: str, where: str) -> Iterator[str]:
        """Yield a message for every rule that spans more than one field; ``where`` names the phase."""
        if self.min_workers is not None and self.min_workers > self.workers:
            yield f"{path}.min_workers={self.min_workers}{where} is more than {path}.workers={self.workers}"
        if self.offloads("optimizer") and self.zero_stage == 0:
            yield f"{path}.offload={self.offload}{where} needs {path}.zero_stage of at least 1"
        if self.offloads("blocks"):
            if self.zero_stage == 3:
                yield f"{path}.offload={self.offload}{where} excludes {path}.zero_stage=3, which shards these blocks"
            if self.activation_checkpointing == "none":
                yield (
                    f"{path}.offload={self.offload}{where} needs {path}.activation_checkpointing=full or attention, "
                    "because the backward pass fetches each block again"
                )
            if self.compile:
                yield f"{path}.offload={self.offload}{where} needs {path}.compile=false: a compiled block fetches none"
        if (self.base_dtype, self.precision) == ("fp32", "bf16"):
            yield f"{path}.base_dtype=fp32{where} is wider than {path}.precision=bf16, in which products are computed"
        if self.workers > 0 and self.sequence_parallel > 0:
            groups, rest = divmod(self.workers, self.sequence_parallel)
            if rest:
                yield (
                    f"{path}.workers={self.workers}{where} is not divisible by "
                    f"{path}.sequence_parallel={self.sequence_parallel}"
                )
            elif self.global_batch % groups:
                shared = f" / {path}.sequence_parallel={self.sequence_parallel}"
                yield (
                    f"{path}.global_batch={self.global_batch}{where} is not divisible by "
                    f"{path}.workers={self.workers}{shared if self.sequence_parallel > 1 else ''}"
                )

    def groups_of(self, workers: int) -> int:
        """Return the number of samples that ``workers`` compute side by side, each on `sequence_parallel` of them.

        Raise UserError if the workers do not form whole groups, or the groups have unequal parts of the global batch.
        """
        groups, rest = divmod(workers, self.sequence_parallel)
        if rest:
            raise UserError(
                f"train.sequence_parallel={self.sequence_parallel} does not divide {workers} "
                f"worker{'s' if workers > 1 else ''}; change one of the two"
            )
        if self.global_batch % groups:
            unit = "workers" if self.sequence_parallel == 1 else f"groups of {self.sequence_parallel} workers"
            raise UserError(
                f"train.global_batch={self.global_batch} is not divisible by {groups} {unit}; change one of the two"
            )
        return groups

    def offloads(self, tensors: Literal["optimizer", "blocks"]) -> bool:
        """Return whether `offload` names these tensors."""
        return tensors in self.offload.split("+")

    def micro_batch_of(self, workers: int) -> int:
        """Return the samples of one forward pass when ``workers`` share the global batch equally.

        The result is the largest divisor of a group's part up to `micro_batch`; gradients are summed over the part.
        Raise UserError if the parts are not equal, see `groups_of`.
        """
        part = self.global_batch // self.groups_of(workers)
        return max(size for size in range(1, min(self.micro_batch, part) + 1) if part % size == 0)


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One training phase: its noise band, its losses (paper 3.3, B.5, B.6), and its overrides of `train`."""

    alpha: Annotated[float, POSITIVE]
    """Shift of the timestep distribution, Eq. 2."""
    window: Annotated[int, FRAMES]
    """Frames of one training sample, 4k + 1."""
    face_weight: Annotated[float, NOT_NEGATIVE] = 0.3
    lip_weight: Annotated[float, NOT_NEGATIVE] = 0.3
    motion_frames: Annotated[int, FRAMES] = 5
    """Clean frames at the start of the window, 4k + 1."""
    motion_prob: Annotated[float, SHARE] = 0.5
    """Share of samples with motion frames."""
    sync_weight: Annotated[float, NOT_NEGATIVE] = 0.0
    identity_weight: Annotated[float, NOT_NEGATIVE] = 0.0
    clip_weight: Annotated[float, NOT_NEGATIVE] = 0.0
    silent_prob: Annotated[float, SHARE] = 0.0
    """Share of samples with audio attention off; the identity and feature losses act on those samples alone."""
    t_thres: Annotated[float, SHARE] = 0.6
    """Clamp of the single-step estimate, Eq. 11."""
    decode_latents: Annotated[int, POSITIVE] = 4
    """Latent frames decoded for pixel losses (13 frames)."""
    sync_accuracy: Annotated[float, SHARE] = 0.6
    """Least share of right choices of the sync loss's network on the phase's data; chance is 0.5. 0: no check."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `train` that this phase overrides; a recipe file has them among the phase's own keys."""

    def failed_checks(self, path: str, clip_frames: int) -> Iterator[str]:
        """Yield a message for every rule that spans more than one field, or the clips' length."""
        if self.window > clip_frames:
            yield f"{path}.window={self.window} is longer than video.clip_frames={clip_frames}"
        if self.motion_frames >= self.window:
            yield f"{path}.motion_frames={self.motion_frames} leaves nothing of window={self.window}"
