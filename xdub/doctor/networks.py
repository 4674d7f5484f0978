"""Each network on its device and in its precision, alone and with the decoded pictures that losses give to it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from xdub.config import phase_facts
from xdub.data.latents import to_video, window_features
from xdub.data.sound import window_samples, window_sound
from xdub.doctor.clips import drawn_clip
from xdub.doctor.rehearsal import Rehearsal
from xdub.doctor.rows import Examiner, NotRun
from xdub.errors import UserError
from xdub.precision import dtype_of, frozen


class NetworkChecks:
    """The checks of networks; ``failed`` collects the roles that cannot be used."""

    def __init__(self, rehearsal: Rehearsal, examiner: Examiner, failed: set[str]) -> None:
        self.rehearsal, self.examiner, self.failed = rehearsal, examiner, failed
        self.recipe, self.device = rehearsal.small, rehearsal.device
        self.clip = drawn_clip(self.recipe.video.size, rehearsal.frames, 0)
        self.decoded: Tensor | None = None
        """Decoded frames [1, 3, F, S, S] of the slice that pixel losses read."""

    def run(self) -> None:
        """Run all checks."""
        self.examiner.part = "networks"
        networks = {name for phase in self.recipe.phase_names for name in phase_facts(phase).networks}
        self._check("codec", self.codec)
        self._check("audio", self.audio)
        for role, check in (("sync", self.sync), ("identity", self.identity), ("features", self.features)):
            if role in networks:
                self._check(role, check)
        self._check("judges", self.judges)

    def _check(self, role: str, check: Callable[[], str]) -> None:
        def run() -> str:
            if role in self.failed:
                raise NotRun(f"the files of {role} are wrong, see above")
            return check()

        if not self.examiner.check(f"{role} {'load' if role.endswith('s') else 'loads'}", run):
            self.failed.add(role)

    def codec(self) -> str:
        """Encode a window and decode a slice of it; gradients must reach the latents."""
        from xdub.model.codec import load_codec

        recipe, frames = self.recipe, self.clip.frames
        codec = load_codec(recipe.codec).computing_in(dtype_of(recipe.train.precision)).to(self.device)
        video = to_video(frames).to(self.device)
        with torch.no_grad():
            z = codec.encode(video)
        geometry, side = codec.geometry, recipe.video.size
        expected = (
            1,
            geometry.channels,
            geometry.latent_frames(len(frames)),
            *(geometry.latent_side(side),) * 2,
        )
        if tuple(z.shape) != expected:
            raise UserError(
                f"the codec's latents are {list(z.shape)}, and {list(expected)} fit the recipe; use another codec"
            )
        count = min(max(recipe.phase(name).decode_latents for name in recipe.phase_names), z.shape[2])
        start = z.shape[2] - count
        z.requires_grad_()
        self.decoded = codec.decode_slice(z, start, count)
        self.decoded.square().mean().backward()
        self.decoded = self.decoded.detach()[:, :, -geometry.frames(count) :]
        _check_finite("the codec's latents", z)
        _check_finite("the codec's pictures", self.decoded)
        _check_gradient("the codec", z)
        shape = " x ".join(map(str, z.shape[1:]))
        decoded = f"{self.decoded.shape[2]} frames decoded with gradients"
        return f"{len(frames)} frames of {side} px are latents of {shape}; {decoded}"

    def audio(self) -> str:
        """Compute the features of a window; they must differ from those of silence."""
        from xdub.model.audio_encoder import load_audio_encoder

        encoder = load_audio_encoder(self.recipe.audio).to(self.device)
        frames = len(self.clip.frames)
        speech = self.recipe.speech
        rows = window_features(encoder, window_sound(self.clip.sound, 0, frames), speech)
        expected = (speech.count(frames), self.recipe.audio.dim)
        if tuple(rows.shape) != expected:
            raise UserError(
                f"audio features of {frames} frames are {list(rows.shape)}, and the recipe needs {list(expected)}"
            )
        _check_finite("audio features", rows)
        silence = window_features(encoder, 0 * window_sound(self.clip.sound, 0, frames), speech)
        if torch.equal(rows, silence):
            raise UserError(
                "the audio encoder has the same features for speech and silence; use another file"
            )
        return f"{frames} frames have {rows.shape[0]} rows of {rows.shape[1]} features"

    def sync(self) -> str:
        """Compute the sync loss of decoded frames; its gradient must reach their pixels."""
        from xdub.perception.syncnet.load import load_sync

        network = frozen(load_sync(self.recipe.perception), self.device)
        frames = self._frames()
        first = len(self.clip.frames) - frames.shape[2]
        sound = window_sound(self.clip.sound, first, frames.shape[2])
        assert len(sound) == window_samples(frames.shape[2])
        landmarks = torch.from_numpy(self.clip.landmarks[first:])[None].to(self.device)
        loss = network.sync_loss(frames, torch.from_numpy(sound)[None].to(self.device), landmarks)
        _check_finite("the sync loss", loss)
        loss.mean().backward()
        _check_gradient("the sync loss", frames)
        return f"{network.name}: {loss.shape[1]} windows in {frames.shape[2]} decoded frames, loss {loss.mean():.3f}"

    def identity(self) -> str:
        """Embed decoded frames; the gradient must reach their pixels."""
        from xdub.perception.identity.load import load_identity

        network = frozen(load_identity(self.recipe.perception, self.recipe.video), self.device)
        return f"{network.name}: {self._embed(network, 'the identity loss')}"

    def features(self) -> str:
        """Compute image features of decoded frames; the gradient must reach their pixels."""
        from xdub.perception.features import load_features

        network = frozen(load_features(self.recipe.perception), self.device)
        return f"{network.name}: {self._embed(network, 'the feature loss')}"

    def judges(self) -> str:
        """Judge a drawn pair as the pair filters do."""
        from xdub.pairs.judges import load_judges

        judges, clip = load_judges(self.recipe.perception, self.device), self.clip
        vectors = judges.embed(clip.frames[:4], clip.landmarks[:4])
        reading = judges.read_mouth(clip.frames[:4], clip.frames[-4:], clip.landmarks[:4])
        _check_finite("the embeddings of the pair filter", torch.from_numpy(vectors))
        return f"{vectors.shape[1]} numbers a face; mouths read in {reading.readable:.0%} of drawn frames"

    def _frames(self) -> Tensor:
        """Return the decoded frames [1, 3, F, S, S] as a leaf that collects gradients."""
        if self.decoded is None:
            raise NotRun("needs frames of the codec, which failed")
        return self.decoded.detach().clone().requires_grad_()

    def _embed(self, network: torch.nn.Module, name: str) -> str:
        video = self._frames()
        vectors = network(rearrange(video, "b c f h w -> (b f) c h w"))
        _check_finite(name, vectors)
        torch.nn.functional.normalize(vectors, dim=1)[:, 0].sum().backward()
        _check_gradient(name, video)
        return f"{vectors.shape[0]} decoded frames, {vectors.shape[1]} numbers each"


def _check_finite(name: str, values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise UserError(
            f"{name} are not finite; the file is damaged, or its numbers need another train.precision"
        )


def _check_gradient(name: str, leaf: Tensor) -> None:
    """Raise UserError unless a finite gradient other than zero has reached a leaf."""
    if leaf.grad is None or not torch.isfinite(leaf.grad).all():
        raise UserError(
            f"the gradient of {name} is not finite; the file is damaged, or needs another train.precision"
        )
    if not leaf.grad.any():
        raise UserError(f"no gradient passes through {name}; the file is of another network")
