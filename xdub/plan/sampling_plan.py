"""The plan of pair making and of dubbing: memory, FLOPs, hours and cost, from recipe, GPU type and hours of video."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise

from xdub.config import EXPERTS, PHASES, DubConfig, PairsConfig, Recipe, expert_of, inpaints
from xdub.diffusion import BRANCHES, evaluation_times
from xdub.dub.segments import count_segments
from xdub.dub.window_sampler import bands_of, expert_at
from xdub.geometry import FPS, SOUND_MARGIN
from xdub.plan.codec_cost import (
    codec_bytes,
    decode_flops,
    decoder_state_bytes,
    decoding_bytes,
    encode_flops,
    encoding_bytes,
    video_bytes,
)
from xdub.plan.flops import ENCODED, FILTERS, SPEECH, compute_seconds
from xdub.plan.gpus import Gpu
from xdub.plan.loss_networks import filter_bytes, filter_flops
from xdub.plan.memory import RESERVE
from xdub.plan.network import count_parameters
from xdub.plan.offload_cost import resident_share, sampling_transfer_seconds
from xdub.plan.sampling_cost import ForwardBytes, forward_bytes, forward_flops
from xdub.plan.speech_cost import speech_bytes, speech_working_bytes, window_speech_flops
from xdub.plan.storage import PAIR_HOURS
from xdub.precision import number_bytes

CONDITIONS = "conditions"
"""Row of what is computed once for each expert and window."""
STEPS = "steps of the solver"
"""Row of all evaluations of the backbone."""
DECODED = "codec decode"
"""Row of decoding the result."""
DUB_HOURS = 1.0
"""Hours of video that the plan of dubbing assumes by default."""
VIDEOS = 4
"""Copies of a batch's video in fp32 that are alive while the result is converted to pixels."""


@dataclass(frozen=True, kw_only=True)
class SamplingMemory:
    """Bytes on one GPU."""

    weights: float
    """Backbone with all experts, in its training precision; of offloaded blocks two."""
    frozen_networks: float
    """Codec, audio encoder and pair filters."""
    conditions: float
    """Conditions of all windows of a batch and the state of a continued decoder, alive during all steps."""
    working: float
    """Largest temporary bytes: of one evaluation, of encoding or of decoding."""
    reserve: float
    """Memory outside of tensors, see `xdub.plan.memory.RESERVE`."""

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(asdict(self).values())


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """Resources of pair making or dubbing, in bytes, seconds, FLOPs and US dollars."""

    name: str
    """`pairs` or `dubbing`."""
    gpus: int
    gpu: Gpu
    precision: str
    """Precision of the backbone."""
    frames: int
    """Frames of a window."""
    batch: int
    """Windows that are sampled together."""
    evaluations: int
    """Evaluations of the backbone for a window; guidance evaluates three branches."""
    hours_of_video: float
    """Hours of video that are generated."""
    windows: float
    """Windows of these hours."""
    window_flops: dict[str, float]
    """FLOPs of one window, by part."""
    window_seconds: float
    """Seconds of one window on one GPU at the assumed efficiency."""
    memory: SamplingMemory
    fits: bool
    cost: float

    @property
    def gpu_hours(self) -> float:
        """Hours that one GPU needs."""
        return self.windows * self.window_seconds / 3600

    @property
    def hours(self) -> float:
        """Hours that all GPUs need."""
        return self.gpu_hours / self.gpus

    @property
    def gpus_for_a_day(self) -> int:
        """GPUs that finish within 24 hours."""
        return max(1, math.ceil(self.gpu_hours / 24))


def plan_sampling(
    recipe: Recipe,
    gpu: Gpu,
    *,
    gpus: int,
    efficiency: float,
    price: float | None = None,
    hours: float | None = None,
) -> list[SamplingPlan]:
    """Plan pair making, for a recipe that trains a generator, and dubbing.

    ``hours``: hours of video that each of them generates. None: the paper's hours of pairs, and `DUB_HOURS`.
    """
    editor = next(name for name in recipe.phase_names if not inpaints(name))
    pairs_hours, dub_hours = (PAIR_HOURS, DUB_HOURS) if hours is None else (hours, hours)
    plan = partial(_plan, recipe, gpu=gpu, gpus=gpus, efficiency=efficiency, price=price)
    generators = [name for name in recipe.phase_names if inpaints(name)]
    pairs = [plan("pairs", name, recipe.pairs, float(pairs_hours)) for name in generators]
    return [*pairs, plan("dubbing", editor, recipe.dub, float(dub_hours))]


def _plan(
    recipe: Recipe,
    name: str,
    phase: str,
    settings: PairsConfig | DubConfig,
    hours: float,
    *,
    gpu: Gpu,
    gpus: int,
    efficiency: float,
    price: float | None,
) -> SamplingPlan:
    pairs = isinstance(settings, PairsConfig)
    frames, batch = (settings.segment_frames, settings.batch) if pairs else (settings.window, 1)
    # Pairs are generated clip by clip; a dubbed video is one track.
    track = recipe.video.clip_frames if pairs else max(1, round(hours * 3600 * FPS))
    segments = count_segments(
        track, frames, settings.motion_frames, lead_in=isinstance(settings, DubConfig) and settings.lead_in
    )
    tracks = hours * 3600 * FPS / track
    calls = experts_of(recipe, settings, pairs=pairs)
    parts = _window_flops(recipe, phase, settings, frames, segments, calls)
    parts[SPEECH] = window_speech_flops(recipe, frames, track, segments)
    if pairs:
        parts[FILTERS] = filter_flops(recipe, track) / segments
    precision, evaluations = recipe.for_phase(phase).precision, len(calls) * branches_of(settings)
    seconds = compute_seconds(parts, precision, gpu) / efficiency
    copied = number_bytes(precision) * sampled_numbers(recipe, phase, pairs=pairs)[1]
    seconds += sampling_transfer_seconds(settings, copied / batch, evaluations, seconds)
    memory = _memory(recipe, phase, settings, frames, batch, track)
    windows = tracks * segments
    return SamplingPlan(
        name=name,
        gpus=gpus,
        gpu=gpu,
        precision=precision,
        frames=frames,
        batch=batch,
        evaluations=evaluations,
        hours_of_video=hours,
        windows=windows,
        window_flops=parts,
        window_seconds=seconds,
        memory=memory,
        fits=memory.total <= gpu.memory,
        cost=windows * seconds / 3600 * (gpu.price if price is None else price),
    )


def experts_of(recipe: Recipe, settings: PairsConfig | DubConfig, *, pairs: bool) -> list[str | None]:
    """Return the active expert of every evaluation of a window, in order; None is the base model."""
    present = [] if pairs else [expert for expert in EXPERTS if phase_of(expert) in recipe.phase_names]
    times = evaluation_times(settings.solver, settings.sampler_steps, settings.sampler_shift)
    bands = bands_of(recipe, present)
    return [expert_at(t, bands) for t in times]


def phase_of(expert: str) -> str:
    """Return the phase that trains an expert."""
    return next(phase for phase in PHASES if expert_of(phase) == expert)


def _window_flops(
    recipe: Recipe,
    phase: str,
    settings: PairsConfig | DubConfig,
    frames: int,
    segments: int,
    calls: list[str | None],
) -> dict[str, float]:
    """FLOPs of an average window by part; ``segments``: windows of a track, of which all but the first have motion."""
    networks = {
        expert: forward_flops(recipe, phase if expert is None else phase_of(expert), frames)
        for expert in set(calls)
    }
    # Conditions are computed where the expert changes.
    computed = Counter([calls[0], *(after for before, after in pairwise(calls) if after != before)])
    encoded = encode_flops(recipe, frames) + (encode_flops(recipe, 1) if inpaints(phase) else 0.0)
    if settings.motion_frames:
        encoded += encode_flops(recipe, settings.motion_frames) * encoded_motions(settings, segments)
    branches = branches_of(settings)
    return {
        CONDITIONS: branches * sum(count * networks[expert].conditions for expert, count in computed.items()),
        STEPS: branches * sum(count * networks[expert].velocity for expert, count in Counter(calls).items()),
        ENCODED: encoded,
        DECODED: window_decode_flops(recipe, settings, frames, segments),
    }


def branches_of(settings: PairsConfig | DubConfig) -> int:
    """Return the evaluations of the backbone for one velocity."""
    return BRANCHES if isinstance(settings, DubConfig) and settings.guidance is not None else 1


def encoded_motions(settings: PairsConfig | DubConfig, segments: int) -> float:
    """Return the share of a track's windows whose motion frames are encoded."""
    first, later = 0, segments - 1
    if isinstance(settings, DubConfig):
        first, later = int(settings.lead_in), 0 if settings.motion == "latents" else later
    return (first + later) / segments


def window_decode_flops(
    recipe: Recipe, settings: PairsConfig | DubConfig, frames: int, segments: int
) -> float:
    """Return the mean FLOPs to decode a window; windows that continue latents decode their own latents only."""
    geometry = recipe.codec.geometry
    latents = geometry.latent_frames(frames)
    whole = decode_flops(recipe, latents)
    if not (isinstance(settings, DubConfig) and settings.motion == "latents" and settings.motion_frames):
        return whole
    own = latents - geometry.latent_frames(settings.motion_frames)
    continued = decode_flops(recipe, own + 1) - decode_flops(recipe, 1)
    return (whole + (segments - 1) * continued) / segments


def _memory(
    recipe: Recipe, phase: str, settings: PairsConfig | DubConfig, frames: int, batch: int, track: int
) -> SamplingMemory:
    """Bytes of one GPU. A batch is encoded and decoded as a whole, and its conditions live until it is decoded."""
    pairs = isinstance(settings, PairsConfig)
    width = number_bytes(recipe.for_phase(phase).precision)
    outside, blocks = sampled_numbers(recipe, phase, pairs=pairs)
    blocks *= resident_share(settings, recipe.model.num_layers)
    forward = window_bytes(recipe, phase, settings, frames, batch)
    video = video_bytes(recipe, frames)
    decoding = decoding_bytes(recipe, recipe.codec.geometry.latent_frames(frames)) + (VIDEOS - 1) * video
    # A generator's input is a second video with hidden pixels.
    encoding = encoding_bytes(recipe, frames) + (2 if inpaints(phase) else 1) * video
    encoded_frames = track if recipe.model.speech == "published" else frames + 2 * SOUND_MARGIN
    peak = max(
        speech_working_bytes(recipe, encoded_frames),
        batch * encoding,
        forward.kept + forward.working + batch * video,
        forward.kept + batch * decoding,
    )
    return SamplingMemory(
        weights=width * (outside + blocks),
        frozen_networks=codec_bytes(recipe) + speech_bytes(recipe) + (filter_bytes(recipe) if pairs else 0.0),
        conditions=forward.kept,
        working=peak - forward.kept,
        reserve=RESERVE,
    )


def sampled_numbers(recipe: Recipe, phase: str, *, pairs: bool) -> tuple[float, float]:
    """Return the parameters of a phase's network outside and inside its blocks; a dub's network has all adapters."""
    count = count_parameters(recipe, phase)
    experts = [] if pairs else [name for name in recipe.phase_names if expert_of(name) is not None]
    adapters = sum(count_parameters(recipe, name).trained for name in experts)
    return count.total - count.in_blocks, count.in_blocks + adapters


def window_bytes(
    recipe: Recipe, phase: str, settings: PairsConfig | DubConfig, frames: int, batch: int
) -> ForwardBytes:
    """Return the bytes of all branches of a batch, which are evaluated together or one after another."""
    guidance = settings.guidance if isinstance(settings, DubConfig) else None
    batched = guidance is not None and guidance.batched
    forward = forward_bytes(recipe, phase, frames, batch * BRANCHES if batched else batch)
    kept = forward.kept * BRANCHES if guidance is not None and not batched else forward.kept
    if isinstance(settings, DubConfig) and settings.motion == "latents":
        kept += batch * decoder_state_bytes(recipe)
    return ForwardBytes(kept=kept, working=forward.working)
