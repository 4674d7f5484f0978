"""`python -m perf syncnet`: the clips' own sound is recognised, and another clip's is not."""

from __future__ import annotations

import numpy as np
import pytest

from perf.sampler import syncnet
from xdub.config import PerceptionConfig, load_recipe
from xdub.data.windows import cut_window
from xdub.model.codec import load_codec
from xdub.perception.syncnet.load import load_sync
from xdub.render.clips import make_clips


def test_another_clips_sound_is_not_recognised_and_no_clip_keeps_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = load_recipe("tiny")
    codec, network = load_codec(recipe.codec), load_sync(PerceptionConfig(sync="tiny"))
    pairs = [next(make_clips(5, [index], size=64, frames=33, full_size=96)) for index in (0, 12)]
    rng = np.random.default_rng(0)
    samples = [
        cut_window(clip, phase="syncnet", window=33, geometry=recipe.codec.geometry, rng=rng)
        for pair in pairs
        for clip in (pair.clip, pair.twin)
    ]
    own = syncnet.measure(network, samples, codec)
    short = syncnet.measure(network, samples, codec, frames=13)
    foreign = syncnet.measure(network, samples, codec, foreign=True)
    assert own.windows > short.windows > 0 and foreign.windows == own.windows
    assert own.accuracy[0] > 0.7 > 0.4 > foreign.accuracy[0]
    syncnet.print_table([syncnet.row("own", own), syncnet.row("foreign", foreign)])
    header, _, first, second = capsys.readouterr().out.splitlines()
    assert header.count("|") == first.count("|") == second.count("|") == len(syncnet.PRINTED) + 3
