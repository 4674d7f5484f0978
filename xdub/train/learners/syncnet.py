"""The SyncNet of `xdub train syncnet`, and its accuracy on the clips that were held out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xdub.config import SyncNetConfig, check_phase
from xdub.data.samples import SampleMaker, StreamSpec
from xdub.errors import UserError
from xdub.model.codec import Codec
from xdub.perception.syncnet.accuracy import AccuracyMeter, SyncAccuracy
from xdub.perception.syncnet.load import load_sync_file, sync_metadata
from xdub.perception.syncnet.own import OwnSyncNet, OwnSyncNetConfig
from xdub.train.learners.base import Encode, Learner, no_tokens
from xdub.train.phases.syncnet import SyncNetContext
from xdub.train.syncnet_batch import encode_sync_batch, through_codec, video_batches

HELD_OUT = 256
"""Largest number of held-out clips in the accuracy."""
BATCH = 4
"""Clips that are measured together."""


class SyncNetLearner(Learner):
    """A SyncNet of the sizes in the recipe's section `syncnet`."""

    @property
    def tokens_per_step(self) -> int:
        """0, because a SyncNet has no tokens."""
        return 0

    @property
    def config(self) -> SyncNetConfig:
        """The recipe's section."""
        return self.recipe.syncnet

    def checkpoint_bytes(self) -> float:
        """Estimate the bytes of one checkpoint: weights, two moments and an average, in fp32."""
        with torch.device("meta"):
            return 16.0 * sum(p.numel() for p in self._network().parameters())

    def step_flops(self) -> float | None:
        """Return None: the planner counts backbones only."""
        return None

    def build(self, codec: Codec, *, base: str | None, init_from: str | None) -> nn.Module:
        """Build the network from the seed, or load ``init_from``.

        Raise UserError for batches that cannot be divided into groups of clips, and for weights of other sizes.
        """
        seed = self.recipe.seed_of(self.phase)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self._network()
        if init_from is not None:
            loaded = load_sync_file(init_from)
            if not isinstance(loaded, OwnSyncNet) or loaded.cfg != network.cfg:
                raise UserError(f"{init_from}: not a SyncNet of the sizes in the recipe's section syncnet")
            network.load_state_dict(loaded.state_dict())
        return network.train()

    def check(self, world_size: int) -> None:
        """Raise UserError for micro batches that are not whole groups of `clips`, and settings of other networks."""
        train, clips = self.recipe.for_phase(self.phase), self.config.clips
        check_phase(self.recipe, self.phase)
        if train.sequence_parallel > 1:
            raise UserError(no_tokens(self.phase, train.sequence_parallel))
        size = train.micro_batch_of(world_size)
        if size % clips:
            raise UserError(
                f"syncnet.clips={clips} does not divide the micro batch of {size} samples "
                f"(syncnet.global_batch={train.global_batch}, {world_size} workers): change one of them"
            )

    def encoder(self, codec: Codec, device: torch.device) -> Encode:
        """Return the function that cuts lower faces."""
        seed = self.recipe.seed_of(self.phase)
        return functools.partial(encode_sync_batch, codec=codec, config=self.config, seed=seed, device=device)

    def loss_context(self, codec: Codec, device: torch.device) -> SyncNetContext:
        """Return the section, which has the numbers of the loss."""
        return SyncNetContext(config=self.config)

    def metadata(self) -> dict[str, str] | None:
        """Return the header by which `perception.sync_path` recognises the file."""
        with torch.device("meta"):
            return sync_metadata(self._network())

    def assess(
        self, weights: Path, data: Sequence[str], codec: Codec, device: torch.device, beat: Callable[[], None]
    ) -> tuple[dict[str, Any], dict[str, float]]:
        """Measure the accuracy at offsets of 0 ... 15 frames on held-out clips, as filmed and through the codec."""
        maker = SampleMaker(StreamSpec.from_recipe(self.recipe, self.phase, list(data)))
        samples = maker.held_out(HELD_OUT)
        if not samples:
            return {"held_out": None}, {}
        network = load_sync_file(weights).to(device)
        meters = {"filmed": AccuracyMeter(network), "codec": AccuracyMeter(network)}
        for videos, sound, landmarks in video_batches(samples, BATCH, device):
            meters["filmed"].add(videos, sound, landmarks)
            meters["codec"].add(through_codec(codec, videos), sound, landmarks)
            beat()
        results = {name: meter.result() for name, meter in meters.items()}
        tables = {name: _table(result) for name, result in results.items()}
        figures = {"clips": len(samples), "by": maker.order.held_out_by, **tables}
        return {"held_out": figures}, _metrics(results)

    def _network(self) -> OwnSyncNet:
        config = self.config
        return OwnSyncNet(
            OwnSyncNetConfig(
                size=config.size, frames=config.frames, width=config.width, embed_dim=config.embed_dim
            )
        )


def _table(result: SyncAccuracy) -> dict[str, Any]:
    """Return an accuracy as JSON values, with a list entry for each offset; None where no clip is long enough."""

    def finite(values: list[float]) -> list[float | None]:
        return [value if math.isfinite(value) else None for value in values]

    choice, best_offset = finite([result.choice, result.best_offset])
    return {
        "windows": result.windows,
        "choice": choice,
        "best_offset": best_offset,
        "accuracy": finite(result.accuracy),
        "preferred": finite(result.preferred),
    }


def _metrics(results: dict[str, SyncAccuracy]) -> dict[str, float]:
    values = {}
    for name, result in results.items():
        values |= {
            f"held_out/{name}/choice": result.choice,
            f"held_out/{name}/best_offset": result.best_offset,
        }
        for offset, accuracy in enumerate(result.accuracy):
            values[f"held_out/{name}/accuracy_offset_{offset:02d}"] = accuracy
    return {name: value for name, value in values.items() if math.isfinite(value)}
