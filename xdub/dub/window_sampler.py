"""Sampling of windows of frames, many at a time, for pairs and for dubs (paper B.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from xdub.config import EXPERTS, Recipe
from xdub.data.latents import to_video, window_features
from xdub.data.recording import Recording
from xdub.diffusion import Border, sample
from xdub.dub.colour import match_colours
from xdub.dub.deblock import deblock
from xdub.dub.editing import Editing
from xdub.dub.fields import Field, FieldInputs, GuidedField, PlainField
from xdub.dub.window import Window
from xdub.model.audio_encoder import AudioEncoder
from xdub.model.backbone import Backbone
from xdub.model.codec import Codec, LinearCodec
from xdub.model.lora import set_expert
from xdub.seeding import torch_rng
from xdub.speech_windows import speech_windows

Bands = Sequence[tuple[str, tuple[float, float]]]
"""Pairs (expert, (low, high)): the expert is active for low < t < high."""


class WindowSampler:
    """Sampler that dubs windows with an editor (and experts), or with a generator if the network needs masks.

    Args:
        backbone: network in eval mode, used on its own device and in its own dtype.
        codec: codec on the same device.
        audio_encoder: encoder of the speech. Every window costs one pass: for Whisper, one input of 30 s.
        num_steps: steps of the solver.
        shift: shift of the solver's times, Eq. 2.
        solver: name of a solver in `xdub.diffusion.sampler`.
        bands: intervals of t in which an expert is active; the base model is active elsewhere.
        editing: an editor's guidance, border and colours.
        compile_for: number of windows of a compiled step. Fewer windows are padded, more raise ValueError. None: eager
            mode.
    """

    def __init__(
        self,
        backbone: Backbone,
        codec: Codec,
        audio_encoder: AudioEncoder,
        *,
        num_steps: int,
        shift: float = 1.0,
        solver: str = "euler",
        bands: Bands = (),
        editing: Editing | None = None,
        compile_for: int | None = None,
    ) -> None:
        self.backbone, self.codec, self.audio_encoder = backbone, codec, audio_encoder
        self.num_steps, self.shift, self.solver = num_steps, shift, solver
        self.bands, self.compile_for = tuple(bands), compile_for
        compiled = compile_for is not None
        velocity = backbone.velocity
        self._velocity = torch.compile(velocity, dynamic=False, fullgraph=True) if compiled else velocity
        self.editing = editing or Editing()
        self.masked = backbone.masked_input
        self.speech = speech_windows(backbone.speech, codec.geometry)
        self.device = next(backbone.parameters()).device

    @torch.inference_mode()
    def __call__(
        self, windows: Sequence[Window], on_step: Callable[[float], None] | None = None
    ) -> list[np.ndarray]:
        """Return frames [F,S,S,3] float32 in 0..255 of each window; they begin with the window's motion frames.

        All windows have one F and either all or none have motion frames (segments of equal index do).
        """
        audio = torch.stack([self._audio(window) for window in windows]).to(self.device)
        count, windows = len(windows), self._filled(windows)
        # Copies of the last window are not encoded again.
        audio = audio[[min(n, count - 1) for n in range(len(windows))]]
        frames = torch.cat([to_video(window.frames) for window in windows]).to(self.device)
        z_source, z_mask = self._conditions(windows, frames)
        z_motion = self._motion(windows)
        geometry = self.codec.geometry
        num_latents = geometry.latent_frames(frames.shape[2])
        sides = (side // geometry.space for side in frames.shape[3:])
        shape = (geometry.channels, num_latents, *sides)
        noise = torch.stack([torch.randn(shape, generator=torch_rng(*w.noise)) for w in windows])
        starts = torch.from_numpy(self.speech.starts(num_latents)).to(self.device)
        inputs = FieldInputs(
            z_ref=z_source,
            audio=audio,
            starts=starts,
            z_mask=z_mask,
            motion_frames=0 if z_motion is None else z_motion.shape[2],
        )
        field = self._field()
        # The field holds the conditions of the active expert only, because every expert has keys and values of its own.
        ready: set[str | None] = set()

        def step(t: float) -> None:
            expert = expert_at(t, self.bands)
            if expert not in ready:
                if self.bands:
                    set_expert(self.backbone, expert)
                field.prepare(inputs)
                ready.clear()
                ready.add(expert)
            field.at(t)
            if on_step is not None:
                on_step(t)

        noise = noise.to(self.device)
        z0 = sample(
            field,
            noise,
            num_steps=self.num_steps,
            shift=self.shift,
            solver=self.solver,
            z_motion=z_motion,
            border=self._border(inputs, noise),
            on_step=step,
            field_at=lambda t: expert_at(t, self.bands),
        )
        if self.bands:
            set_expert(self.backbone, None)
        return self._finished(windows[:count], z0[:count])

    def _finished(self, windows: Sequence[Window], z0: Tensor) -> list[np.ndarray]:
        """Decode the windows, match their colours, and repeat their motion frames."""
        continuation = windows[0].continuation
        if continuation is None:
            video = list(self._pixels(z0))
        elif not continuation.joining.by_latents:
            return [self._joined(window, z) for window, z in zip(windows, z0, strict=True)]
        else:
            video = [self._continued(window, z) for window, z in zip(windows, z0, strict=True)]
        for n, (window, pixels) in enumerate(zip(windows, video, strict=True)):
            video[n] = match_colours(pixels, window.frames, self.editing.colour)
            if window.motion is not None:
                video[n][: len(window.motion)] = window.motion
        return video

    def _continued(self, window: Window, z0: Tensor) -> np.ndarray:
        """Decode latents z0 [C, f, h, w] behind those of the track's earlier windows; return the window's frames."""
        before = window.continuation
        assert before is not None
        kept = 0
        if before.latents is not None and window.motion is not None:
            kept = self.codec.geometry.latent_frames(len(window.motion))
        video, before.decoder = self.codec.decode_next(z0[None, :, kept:], before.decoder)
        before.latents = z0
        pixels = self._deblocked(to_pixels(video))[0]
        if not kept:
            return pixels
        assert window.motion is not None
        return np.concatenate([window.motion, pixels])

    def _joined(self, window: Window, z0: Tensor) -> np.ndarray:
        """Decode the new latents of z0 [C, f, h, w] behind the track's earlier ones; return the window's frames.

        The first window's latents are all new, also those of a lead-in. The window's own decoding has the motion frames
        of the next window. Both decodings get the source's colours.
        """
        state, geometry = window.continuation, self.codec.geometry
        assert state is not None
        first, latents = 0, z0
        if window.motion is not None and state.decoder is not None:
            first = len(window.motion)
            kept = geometry.latent_frames(first)
            latents = z0[:, kept:]
            if state.held is not None:
                first -= geometry.time
                latents = torch.cat([(state.held + z0[:, kept - 1 : kept]) / 2, latents], 1)
        frames = np.zeros(window.frames.shape, np.float32)
        if window.motion is not None:
            frames[: len(window.motion)] = window.motion
        state.held = state.tail = None
        if not window.last:
            frames = match_colours(self._pixels(z0[None])[0], window.frames, self.editing.colour)
            state.tail = frames[len(frames) - state.motion :].copy()
            if state.joining.blend:
                latents, state.held = latents[:, :-1], latents[:, -1:]
        video, state.decoder = self.codec.decode_next(latents[None], state.decoder)
        pixels = self._deblocked(to_pixels(video))[0]
        part = slice(first, first + len(pixels))
        frames[part] = match_colours(pixels, window.frames[part], self.editing.colour)
        return frames

    def _field(self) -> Field:
        """Return the velocity field that the solver follows."""
        guidance = self.editing.guidance
        if guidance is None:
            return PlainField(self.backbone, self._velocity)
        return GuidedField(self.backbone, self._velocity, guidance, rounded=self.editing.rounded)

    def _border(self, inputs: FieldInputs, noise: Tensor) -> Border | None:
        if self.editing.border == "none":
            return None
        return Border(
            reference=inputs.z_ref,
            noise=noise,
            motion_frames=inputs.motion_frames,
            every_step=self.editing.border == "every_step",
            rounded=self.editing.rounded,
        )

    def recording(self, sound: np.ndarray) -> Recording | None:
        """Open the features of a whole speech, if the network's form cuts its windows from them; else return None.

        ``sound`` has the margins of `xdub.data.sound.surrounded`.
        """
        return Recording(self.audio_encoder, sound, self.speech) if self.speech.repeats_ends else None

    def _audio(self, window: Window) -> Tensor:
        """Return the rows [T, d] of a window's features."""
        if window.audio is not None:
            return window.audio
        return window_features(self.audio_encoder, window.sound, self.speech)

    def _filled(self, windows: Sequence[Window]) -> Sequence[Window]:
        """Pad the windows with copies of the last window to the number that the compiled step needs."""
        if self.compile_for is None:
            return windows
        if len(windows) > self.compile_for:
            raise ValueError(f"{len(windows)} windows for a step compiled for {self.compile_for}")
        return [*windows, *[windows[-1]] * (self.compile_for - len(windows))]

    def _conditions(self, windows: Sequence[Window], frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode (z_ref, z_mask): all frames for an editor; one frame and the masked frames for a generator."""
        if not self.masked:
            return self.codec.encode(frames), None
        hidden = np.stack([mask for window in windows if (mask := window.hidden) is not None])
        chosen = [reference_frame(mask) for mask in hidden]
        reference = torch.stack([video[:, n : n + 1] for video, n in zip(frames, chosen, strict=True)])
        # Hidden pixels become mid grey.
        masked = frames.masked_fill(torch.from_numpy(hidden)[:, None].to(self.device), 0.0)
        return self.codec.encode(reference), self.codec.encode(masked)

    def _motion(self, windows: Sequence[Window]) -> Tensor | None:
        if windows[0].motion is None:
            return None
        latents = [z for window in windows if (z := latents_before(window)) is not None]
        if latents:
            return torch.stack(latents)[:, :, -self.codec.geometry.latent_frames(len(windows[0].motion)) :]
        motion = [frames for window in windows if (frames := window.motion) is not None]
        pixels = torch.from_numpy(np.stack(motion))
        return self.codec.encode(rearrange(pixels, "b f h w c -> b c f h w").to(self.device) / 127.5 - 1)

    @torch.inference_mode()
    def roundtrip(self, frames: np.ndarray) -> np.ndarray:
        """Encode and decode frames uint8 [F,S,S,3]; return float32 in 0..255."""
        return self._pixels(self.codec.encode(to_video(frames).to(self.device)))[0]

    def _pixels(self, z: Tensor) -> np.ndarray:
        """Decode latents, and smooth the grid of a codec that decodes each block by itself."""
        return self._deblocked(to_pixels(self.codec.decode(z)))

    def _deblocked(self, video: np.ndarray) -> np.ndarray:
        if isinstance(self.codec, LinearCodec):
            return np.stack([deblock(frames, self.codec.geometry.space) for frames in video])
        return video


def latents_before(window: Window) -> Tensor | None:
    """Return the latents [C, f, h, w] of the window before this one, if the track continues latents and has any."""
    return None if window.continuation is None else window.continuation.latents


def to_pixels(video: Tensor) -> np.ndarray:
    """Convert a video [B,3,F,H,W] in [-1,1] to float32 [B,F,H,W,3] in 0..255, clamped."""
    pixels = (video.float().clamp(-1, 1) + 1) * 127.5
    return rearrange(pixels, "b c f h w -> b f h w c").cpu().contiguous().numpy()


def reference_frame(hidden: np.ndarray) -> int:
    """Return the number of the frame that shows most of the face, the most central among equals (B.3)."""
    visible = hidden.sum(axis=(1, 2))
    best = np.flatnonzero(visible >= 0.95 * visible.max())
    return int(best[np.argmin(np.abs(best - (len(hidden) - 1) / 2))])


def expert_at(t: float, bands: Bands) -> str | None:
    """Return the expert that is active at time t, bounds excluded (paper 3.3)."""
    return next((name for name, (low, high) in bands if low < t < high), None)


def bands_of(recipe: Recipe, experts: Sequence[str]) -> Bands:
    """Return the recipe's bands of the experts that exist."""
    return [(name, tuple(getattr(recipe.dub, f"{name}_band"))) for name in EXPERTS if name in experts]
