"""The sections of a recipe. A field without a default must stand in the recipe; defaults are the paper's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from xdub.errors import UserError
from xdub.geometry import CodecGeometry

TokenOrder = Literal["target_first", "reference_first"]
"""Segment of the token sequence that comes first."""
Policy = Literal["none", "full", "attention"]
"""What backward recomputes: nothing, whole blocks, or blocks without their self-attention."""
CODEC_FACTORS = {"linear": (4, 8), "wan": (4, 8)}
"""Kind of codec -> (frames, px) that one latent covers in time and in space."""


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Face crops as they are stored in shards (paper B.6)."""

    size: int
    """Side of the square face crop, px."""
    fps: int = 25
    clip_frames: int
    """Longest clip row, frames, 4k + 1 so that the causal codec divides it."""
    crop_scale: float = 1.0
    """Factor on the crop side; 1.0 is about 1.25 face widths."""


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Video codec: time x4 causal, space x8."""

    kind: Literal["linear", "wan"]
    channels: int
    path: str | None = None
    """Weights: a file or folder. None: the codec in the package (linear); the kind wan needs a path."""

    @property
    def geometry(self) -> CodecGeometry:
        """The codec's division of time and space, known before its weights are loaded."""
        time, space = CODEC_FACTORS[self.kind]
        return CodecGeometry(channels=self.channels, time=time, space=space)


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Audio features at 50 Hz (paper B.2)."""

    kind: Literal["logmel", "whisper"]
    dim: int
    """Width of one feature row."""
    path: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The diffusion transformer (paper B.1, B.2)."""

    hidden_size: int
    num_heads: int
    num_layers: int
    ffn_ratio: float = 4.0
    patch: tuple[int, int, int] = (1, 2, 2)
    """Latent frames, rows and columns of one token."""
    text_tokens: int = 1
    """Length of the learned null prompt."""
    text_dim: int | None = None
    """Width of text embeddings, e.g. UMT5's 4096. None: the network has the null prompt only."""
    order: TokenOrder = "target_first"
    """Token order of the sequence; the public release has the reference first."""
    linear_skip: bool = False
    """Add the best linear guess of v from z_t and the codec's channel statistics; the network learns the rest. A small
    model needs it to keep the picture sharp."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Adapters of the lip and texture experts (paper 3.3)."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    """Names of linear layers, matched against the end of the module path."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a phase is optimised. A phase's own section overrides these, `--set train.x` overrides both."""

    steps: int
    workers: int = 1
    """Ray Train workers (GPUs, or CPU processes)."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """What DeepSpeed shards over the workers: 0 nothing, 1 optimizer, 2 and gradients, 3 and weights."""
    global_batch: int
    micro_batch: int
    """Most samples of one forward pass on one worker; see `micro_batch_of`."""
    lr: float
    warmup: int = 0
    """Steps of linear warm-up."""
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    ema: float = 0.0
    """Decay of the averaged weights; 0 keeps none."""
    checkpoint_every: int
    keep_checkpoints: int = 2
    log_every: int = 10
    sample_every: int = 0
    """Steps between sample strips in the tracker; 0 makes none."""
    activation_checkpointing: Policy = "none"
    compile: bool = False
    seed: int | None = None
    """Noise, windows and order; none = the recipe's seed."""
    optimizer: Literal["adamw"] = "adamw"
    lr_schedule: Literal["cosine", "constant"] = "constant"
    num_threads: int | None = None
    """Torch threads of one worker; none = cores / workers."""
    upload_to: str | None = None
    """Where checkpoints and exports are copied to in the background: s3://, gs://, hdfs://, file://, or a folder. With
    --resume, a machine that has nothing fetches the newest from there."""
    min_workers: int | None = None
    """Fewest workers to go on with when machines are lost; it grows again up to `workers`. None = always `workers`."""
    resource: str | None = None
    """A custom Ray resource of which each worker takes one, such as `train`: on which machines it may run."""
    hang_seconds: float = 900.0
    """A worker that achieves nothing for so long is ended and the run continued; before the first step three times."""
    spike_factor: float = 8.0
    """A batch whose loss is more than so many times the median of the last 64 is skipped; 0 = never for that."""
    max_skips: int = 3
    """Batches skipped in a row after which the run goes back to its last checkpoint, and on behind them."""
    max_rollbacks: int = 2
    """How often it may go back before a person must look."""
    init_from: str | None = None

    def micro_batch_of(self, workers: int) -> int:
        """Samples of one forward pass when so many workers share the global batch equally: the most up to
        `micro_batch` that divide a worker's part. What is left is accumulated. UserError if the parts are not equal."""
        part, rest = divmod(self.global_batch, workers)
        if rest:
            raise UserError(
                f"train.global_batch={self.global_batch} is not divisible by {workers} workers; change one of the two"
            )
        return max(size for size in range(1, min(self.micro_batch, part) + 1) if part % size == 0)


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One training phase: its noise band, its losses (paper 3.3, B.5, B.6), and what it overrides of `train`."""

    alpha: float
    """Shift of the timestep distribution, Eq. 2."""
    window: int
    """Frames of one training sample, 4k + 1."""
    face_weight: float = 0.3
    lip_weight: float = 0.3
    motion_frames: int = 5
    """Clean frames at the start of the window, 4k + 1."""
    motion_prob: float = 0.5
    """Share of samples that get them."""
    sync_weight: float = 0.0
    identity_weight: float = 0.0
    clip_weight: float = 0.0
    silent_prob: float = 0.0
    """Share of samples with audio attention off; the identity and feature losses act on these alone."""
    t_thres: float = 0.6
    """Clamp of the single-step estimate, Eq. 11."""
    decode_latents: int = 4
    """Latent frames decoded for pixel losses (13 frames)."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `train` that this phase overrides; written flat in the recipe."""


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """The pair factory (paper 3.1.2, B.3)."""

    segment_frames: int = 25
    motion_frames: int = 5
    feather_px: float
    """Sigma of the Gaussian that feathers the face mask, px of the crop."""
    identity_threshold: float
    """Lowest cosine between V and V'; every embedder needs its own."""
    mouth_threshold: float = 1.0
    """Least mean distance of 20 mouth points, px of the 112 px template."""
    sampler_steps: int
    """Of `solver`: `heun` evaluates the model twice a step but the last, the others once."""
    solver: Literal["euler", "heun", "ab2"] = "euler"
    """`xdub/diffusion/sampler.py`; what they give at equal cost is in docs/sampling.md."""
    sampler_shift: float = 1.0
    """Shift of the sampler's times, Eq. 2: above 1 the steps crowd at high noise and the last one is long. A small
    model's details come out smoother, and its lips follow better."""
    render_twins: float = 0.0
    """Share of exact pairs from the renderer among the training pairs."""
    relight: float = 0.0
    """Share of uniformly lit pairs that get new light, the same on both sides (paper 3.1.2)."""
    batch: int = 8
    """Clips whose segments are sampled together; also what a worker that is lost has to do again."""
    compile: bool = False
    """Compile the sampler's step, for `batch` clips."""


@dataclass(frozen=True, kw_only=True)
class DubConfig:
    """Inference (paper 3.3)."""

    sampler_steps: int
    solver: Literal["euler", "heun", "ab2"] = "euler"
    sampler_shift: float = 1.0
    compile: bool = False
    """As in `pairs`."""
    window: int
    motion_frames: int = 5
    lip_band: tuple[float, float] = (0.4, 0.6)
    """Timesteps t at which the lip expert is on."""
    texture_band: tuple[float, float] = (0.0, 0.3)


@dataclass(frozen=True, kw_only=True)
class PerceptionConfig:
    """Which frozen network fills a role; the embedded one needs no download, the production one needs its file."""

    face: Literal["mediapipe"] = "mediapipe"
    mouth: Literal["landmarks", "readout"] = "landmarks"
    """How the pair filter compares lips: by the face tracker, or by the small network that reads the opening."""
    identity: Literal["dlib", "arcface"] = "dlib"
    identity_path: str | None = None
    sync: Literal["tiny", "syncnet"] = "tiny"
    sync_path: str | None = None
    features: Literal["tiny", "clip"] = "tiny"
    features_path: str | None = None
