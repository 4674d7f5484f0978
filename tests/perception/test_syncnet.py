"""The small SyncNet: its windows, gradients to the pixels, training on talking cartoons, and files."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xdub.config import PerceptionConfig
from xdub.errors import UserError
from xdub.fit.syncnet import score_syncnet, train_syncnet
from xdub.model.audio_encoder import LogMelEncoder
from xdub.perception.syncnet import SyncNet, SyncNetConfig, load_sync


def cartoon(seed: int, num_frames: int = 45, size: int = 40) -> SimpleNamespace:
    """Return a clip of a flat face whose mouth opens with the loudness of its noise-like speech."""
    random = np.random.default_rng(seed)
    noise = np.convolve(random.standard_normal(num_frames + 8), np.hanning(5), mode="same")[4:-4]
    opening = np.clip(0.5 + 0.4 * noise / noise.std(), 0, 1)
    gain = np.interp(np.arange(num_frames * 640) / 640 - 0.5, np.arange(num_frames), opening)
    y, x = np.mgrid[:size, :size] / size
    skin, lip = random.integers(120, 220, 3), random.integers(0, 60, 3)
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    for frame, height in zip(frames, 0.02 + 0.15 * opening, strict=True):
        frame[:] = skin
        frame[((x - 0.5) / 0.13) ** 2 + ((y - 0.66) / height) ** 2 < 1] = lip
    return SimpleNamespace(
        frames=frames,
        audio=(0.2 * gain * random.standard_normal(len(gain))).astype(np.float32),
        opening=opening,
    )


@pytest.fixture(scope="module")
def trained() -> SyncNet:
    clips = [cartoon(seed) for seed in range(16)]
    return train_syncnet(
        clips, LogMelEncoder(20), steps=60, batch=8, cfg=SyncNetConfig(audio_dim=20, patch=16, width=8)
    )


def test_a_short_training_separates_unseen_clips_in_sync_from_others(trained):
    scores = score_syncnet(trained, [cartoon(seed) for seed in range(100, 108)], LogMelEncoder(20))
    assert scores.accuracy > 0.75
    assert scores.lag_accuracy >= 0.75
    assert scores.aligned_cosine > scores.misaligned_cosine + 0.3


def test_the_loss_falls_when_pixels_follow_its_gradient_and_is_lower_for_the_right_sound(trained):
    clip, other = cartoon(200), cartoon(201)
    video = torch.from_numpy(clip.frames[:13]).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    encoder = LogMelEncoder(20)
    own, foreign = (
        torch.nn.functional.pad(encoder.encode(c.audio)[None, :30], (0, 0, 4, 0)) for c in (clip, other)
    )
    right = trained.sync_loss(video, own).mean()
    wrong = trained.sync_loss(video.requires_grad_(), foreign).mean()
    assert right < wrong
    (gradient,) = torch.autograd.grad(wrong, video)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    moved = video - 0.05 * gradient / gradient.abs().max()
    assert trained.sync_loss(moved, foreign).mean() < wrong


def test_the_seed_decides_the_training():
    clips, cfg = [cartoon(seed) for seed in range(3)], SyncNetConfig(audio_dim=8, patch=16, width=4)
    first, second, third = (
        train_syncnet(clips, LogMelEncoder(8), steps=2, seed=seed, cfg=cfg).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize("num_frames", [5, 13, 25])
def test_an_audio_embedding_depends_on_the_rows_of_its_frames_and_two_on_each_side(num_frames):
    torch.manual_seed(0)
    net = SyncNet(SyncNetConfig(audio_dim=6, patch=16, width=4))
    audio = torch.randn(1, 2 * num_frames + 8, 6, requires_grad=True)
    embedded = net.embed_audio(audio, num_frames)
    assert embedded.shape == (1, num_frames - 4, net.cfg.embed_dim)
    for n in (0, num_frames - 5):
        (gradient,) = torch.autograd.grad(
            embedded[0, n].square().sum() + embedded[0, n].sum(), audio, retain_graph=True
        )
        rows = gradient[0].abs().sum(-1).nonzero()[:, 0]
        assert (rows.min().item(), rows.max().item()) == (2 * n + 4 - 2, 2 * n + 4 + 11)


def test_audio_rows_beyond_the_slice_count_as_zeros():
    net = SyncNet(SyncNetConfig(audio_dim=6, patch=16, width=4))
    audio = torch.randn(1, 26, 6)
    padded = torch.nn.functional.pad(audio, (0, 0, 4, 4))
    torch.testing.assert_close(net.embed_audio(audio, 13, start=0), net.embed_audio(padded, 13))


def test_a_visual_embedding_depends_on_the_mouth_only():
    net = SyncNet(SyncNetConfig(audio_dim=6, patch=16, width=4))
    video = torch.randn(1, 3, 9, 40, 40)
    before = net.embed_video(video)
    assert before.shape == (1, 5, net.cfg.embed_dim)
    forehead = video.clone()
    forehead[..., :16, :] = 0
    torch.testing.assert_close(net.embed_video(forehead), before)


def test_a_saved_network_is_loaded_frozen_and_unchanged(trained, tmp_path):
    trained.save(tmp_path / "sync.safetensors")
    loaded = SyncNet.load(tmp_path / "sync.safetensors")
    assert loaded.cfg == trained.cfg
    assert not any(p.requires_grad for p in loaded.parameters()) and not loaded.training
    video, audio = torch.randn(2, 3, 7, 40, 40), torch.randn(2, 22, 20)
    assert torch.equal(loaded.sync_loss(video, audio), trained.sync_loss(video, audio))
    trained.save(tmp_path / "half.safetensors", torch.float16)
    half = SyncNet.load(tmp_path / "half.safetensors")
    torch.testing.assert_close(
        half.sync_loss(video, audio), trained.sync_loss(video, audio), rtol=0.02, atol=0.02
    )


def test_missing_or_foreign_files_and_too_few_clips_are_user_errors(tmp_path):
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(UserError, match="text.safetensors: not a readable safetensors file"):
        SyncNet.load(tmp_path / "text.safetensors")
    with pytest.raises(UserError, match="no such SyncNet file"):
        SyncNet.load(tmp_path / "none.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not tiny-syncnet"):
        SyncNet.load(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="1 clips of at least 13 frames"):
        train_syncnet([cartoon(0), cartoon(1, num_frames=9)], LogMelEncoder(8), steps=1)


def test_the_recipe_can_name_a_users_network(trained, tmp_path):
    trained.save(tmp_path / "own.safetensors")
    cfg = PerceptionConfig(sync="syncnet", sync_path=str(tmp_path / "own.safetensors"))
    assert load_sync(cfg).cfg == trained.cfg
    with pytest.raises(UserError, match="sync_path"):
        load_sync(PerceptionConfig(sync="syncnet"))


def test_wrong_shapes_are_named():
    net = SyncNet(SyncNetConfig(audio_dim=6, patch=16, width=4))
    with pytest.raises(ValueError, match="^frames must be"):
        net.sync_loss(torch.zeros(1, 3, 4, 40, 40), torch.zeros(1, 16, 6))
    with pytest.raises(ValueError, match="^audio must be"):
        net.sync_loss(torch.zeros(1, 3, 5, 40, 40), torch.zeros(1, 16, 7))
