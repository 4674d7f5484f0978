"""Film strips: one window of the data, generated from noise every few hundred steps.

Window and noise are the same at every step and in every run on the same data, so that strips can be compared. Strips
use random generators of their own, so a run with strips trains exactly like one without.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from xdub.config import Recipe, expert_of, inpaints
from xdub.data.batch import Batch
from xdub.data.clip import Clip
from xdub.data.latents import encode_batch
from xdub.data.sample_order import SampleOrder, sample_order
from xdub.data.samples import collate
from xdub.data.shards import ShardReader
from xdub.data.windows import cut_window
from xdub.diffusion.sampler import sample
from xdub.errors import UserError
from xdub.geometry import FPS
from xdub.model.audio_encoder import load_audio_encoder
from xdub.model.codec import Codec
from xdub.model.lora import set_expert
from xdub.report.contact_sheet import Column, contact_sheet
from xdub.seeding import rng, torch_rng
from xdub.train.phases.common import PhaseContext

STEPS = 8
"""Steps of the Euler sampler: enough to judge by, and few enough to cost little."""
FRAMES = 6
"""Frames in a row of a strip."""
TRIES = 8
"""Largest number of rows that are tried until one can be read."""


class StripSampler:
    """Draws strips for one phase. All ranks call it, because ZeRO-3 gathers weights for all of them at once."""

    def __init__(self, recipe: Recipe, phase: str, data: Sequence[str]) -> None:
        self._recipe, self._phase, self._data = recipe, phase, tuple(data)
        self._batch: Batch | None = None

    @torch.no_grad()
    def __call__(self, model: nn.Module, context: PhaseContext) -> np.ndarray:
        """Draw a strip, uint8 [H, W, 3], of ``model`` in eval mode."""
        codec, device = context.codec, next(model.parameters()).device
        batch = self._window(codec, device)
        noise = torch.randn(batch["z0"].shape, generator=torch_rng("strip", batch["sample_id"][0]))

        def velocity(z_t: Tensor, t: Tensor) -> Tensor:
            return model(
                z_t,
                t,
                batch["z_ref"],
                batch["audio"],
                batch["starts"],
                z_mask=batch.get("z_mask"),
                motion_frames=0,
            )

        expert = expert_of(self._phase)
        low, high = getattr(self._recipe.dub, f"{expert}_band") if expert else (0.0, 1.0)

        def switch(t: float) -> None:
            # An expert was not trained outside its band.
            if expert is not None:
                set_expert(model, expert if low < t < high else None)

        shift = self._recipe.dub.sampler_shift
        try:
            z = sample(velocity, noise.to(device), num_steps=STEPS, shift=shift, on_step=switch)
        finally:
            if expert is not None:
                set_expert(model, expert)
        title = f"{self._phase}  ·  clip {batch['sample_id'][0]}  ·  {STEPS} Euler steps from noise"
        return contact_sheet(self._columns(codec, z, batch), self._rows(), title)

    def _rows(self) -> tuple[str, str, str]:
        return ("masked input" if inpaints(self._phase) else "source", "generated", "truth")

    def _columns(self, codec: Codec, z: Tensor, batch: Batch) -> list[Column]:
        """Return one column of input, result and truth for each moment.

        In a phase that inpaints, the reference frame is the first column.
        """
        source = batch["z_mask"] if "z_mask" in batch else batch["z_ref"]
        films = [_pixels(codec.decode(latents)) for latents in (source, z, batch["z0"])]
        count = len(films[0])
        moments = np.linspace(0, count - 1, min(FRAMES, count)).round().astype(int)
        columns = [Column(title=f"{n / FPS:.2f} s", cells=[film[n] for film in films]) for n in moments]
        if inpaints(self._phase):
            reference = _pixels(codec.decode(batch["z_ref"]))[0]
            columns.insert(0, Column(title="reference", cells=[reference, None, None]))
        return columns

    def _window(self, codec: Codec, device: torch.device) -> Batch:
        """Return a batch of one sample: a window of the first clip that is long enough and can be read."""
        if self._batch is None:
            window = self._recipe.phase(self._phase).window
            order = sample_order(self._data, phase=self._phase, window=window, seed=0)
            clip = _first_clip(order)
            cut = cut_window(
                clip,
                phase=self._phase,
                window=window,
                geometry=codec.geometry,
                rng=rng("strip", clip.clip_id),
                speech=self._recipe.model.speech,
            )
            audio_encoder = load_audio_encoder(self._recipe.audio).to(device)
            raw = collate([cut | {"epoch": 0, "position": 0, "bad": {}}])
            self._batch = encode_batch(raw, codec, audio_encoder, device, speech=self._recipe.model.speech)
        return self._batch


def _first_clip(order: SampleOrder) -> Clip:
    """Return the first readable clip of the order. Raise UserError if the first `TRIES` cannot be read."""
    error: Exception | None = None
    for row in order.rows[:TRIES]:
        try:
            return ShardReader(order.manifests[row.dataset]).clip(row.row)
        # A damaged row may raise any exception; the data stream reports it.
        except Exception as caught:
            error = caught
    raise UserError(
        f"none of the first {TRIES} clips can be read for a sample strip; last: {error}"
    ) from error


def _pixels(video: Tensor) -> np.ndarray:
    """Convert a video [1, 3, F, H, W] in [-1, 1] to pictures, uint8 [F, H, W, 3]."""
    pixels = (video[0].float().clamp(-1, 1) + 1) * 127.5
    return rearrange(pixels.round(), "c f h w -> f h w c").byte().cpu().numpy()
