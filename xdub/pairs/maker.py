"""The network that makes V': the trained generator, or a published editor, which needs no mask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xdub.config import Recipe, load_recipe
from xdub.dub.editing import editing_of
from xdub.dub.segments import PAPER, Joining, joining_of
from xdub.dub.tracks import Track, generate
from xdub.dub.window_sampler import WindowSampler
from xdub.files.content import cached_sha256, file_sha256
from xdub.model.audio_encoder import load_audio_encoder
from xdub.model.bundle import load_published_editor
from xdub.model.codec import load_codec
from xdub.model.editor_sampling import is_related, with_network_of
from xdub.model.published import PublishedFolder, moved_files, published_folder, published_recipe
from xdub.pairs.generator_model import generator_file, load_generator
from xdub.pairs.seams import seams
from xdub.precision import dtype_of


@dataclass(frozen=True, kw_only=True)
class Maker:
    """A sampler, and how it divides a clip."""

    sampler: WindowSampler
    window: int
    """Frames of a window."""
    motion: int
    """Frames of a window that its predecessor generated."""
    joining: Joining = PAPER
    """The way in which the windows of a clip continue one another."""

    def make(self, tracks: Sequence[Track]) -> list[np.ndarray]:
        """Return float32 [N,S,S,3] in 0..255 for each track; all tracks are sampled as one batch."""
        return generate(
            tracks,
            self.sampler,
            window=self.window,
            motion=self.motion,
            batch=max(1, len(tracks)),
            joining=self.joining,
        )

    def seams(self, num_frames: int) -> list[int]:
        """Return the first frame of every segment but the first."""
        return seams(num_frames, self.window, self.motion, self.joining)


def load_maker(recipe: Recipe, generator: str | Path, device: torch.device) -> Maker:
    """Load the network that ``generator`` names, with the codec and the audio encoder of the recipe."""
    codec, pairs, dub = load_codec(recipe.codec), recipe.pairs, recipe.dub
    edits = published_folder(generator) is not None
    backbone = (
        load_published_editor(recipe, codec, device, offload=pairs.offload == "blocks")
        if edits
        else load_generator(recipe, generator, codec, device)
    )
    settings = dub if edits else pairs
    sampler = WindowSampler(
        backbone,
        codec.computing_in(dtype_of(recipe.train.precision)).to(device),
        load_audio_encoder(recipe.audio).to(device),
        num_steps=settings.sampler_steps,
        shift=settings.sampler_shift,
        solver=settings.solver,
        editing=editing_of(recipe) if edits else None,
        compile_for=pairs.batch if pairs.compile or (edits and dub.compile) else None,
    )
    return Maker(
        sampler=sampler,
        window=dub.window if edits else pairs.segment_frames,
        motion=settings.motion_frames,
        joining=joining_of(settings, codec.geometry),
    )


def recipe_with_editor(recipe: Recipe, published: PublishedFolder) -> Recipe:
    """Return the recipe of pairs by a published editor, see `xdub.model.editor_sampling.with_network_of`.

    The files that a recipe of this kind of editor names itself replace those in the editor's folder.
    """
    related = is_related(recipe, load_recipe(published.editor.name))
    return with_network_of(recipe, published_recipe(published, moved_files(recipe) if related else ()))


def maker_digest(recipe: Recipe, generator: str | Path) -> tuple[str, str]:
    """Return the location of the network for all workers, and a digest of the choices that `pairs.units` does not know.

    For a generator the digest is that of its weights. The section `dub` decides how an editor makes V', so it counts,
    too.
    """
    published = published_folder(generator)
    if published is None:
        weights = generator_file(generator)
        return str(weights.resolve()), file_sha256(weights)
    facts = [published.editor.name, cached_sha256(published.weights), recipe.identity()["dub"]]
    located = PublishedFolder(editor=published.editor, path=published.path.resolve())
    return str(located), hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
