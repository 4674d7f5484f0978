"""SyncNets: sound from the wave, boxes from landmarks, gradients to the pixels, files of three kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from xdub.config import PerceptionConfig, load_recipe
from xdub.errors import UserError
from xdub.files.tensors import write_tensors
from xdub.model.audio_encoder import LogMelEncoder
from xdub.perception.syncnet.accuracy import AccuracyMeter
from xdub.perception.syncnet.base import SyncExpert
from xdub.perception.syncnet.face_box import FaceBox, resample
from xdub.perception.syncnet.load import load_sync, load_sync_file, sync_metadata
from xdub.perception.syncnet.own import OwnSyncNet, OwnSyncNetConfig
from xdub.perception.syncnet.sound import log_mel
from xdub.perception.syncnet.tiny import TinySyncNet, TinySyncNetConfig
from xdub.perception.syncnet.v2 import SyncNetV2, SyncNetV2Widths

WIDTHS = SyncNetV2Widths(audio=(4, 4, 4, 4, 4, 8), lip=(4, 4, 4, 4, 4, 8), hidden=8, embed=12)
SMALL = OwnSyncNetConfig(size=16, frames=6, width=8, embed_dim=8)


def inputs(batch: int = 2, frames: int = 9, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return random pixels and sound, and a frontal face of 40 px without landmarks in frame 1."""
    noise = torch.Generator().manual_seed(seed)
    points = torch.full((batch, frames, 68, 2), 20.0)
    points[..., [36, 39], 0], points[..., [42, 45], 0] = 14.0, 28.0
    points[..., [36, 39, 42, 45], 1], points[..., 33, :] = 8.0, torch.tensor([21.0, 18.6])
    points[:, 1] = torch.nan
    pixels = torch.rand(batch, 3, frames, 40, 40, generator=noise) * 2 - 1
    return pixels, 0.1 * torch.randn(batch, (frames + 50) * 640, generator=noise), points


@pytest.fixture(scope="module", params=["tiny", "v2", "own"])
def network(request) -> SyncExpert:
    torch.manual_seed(0)
    networks = {
        "tiny": lambda: TinySyncNet(TinySyncNetConfig(width=8)),
        "v2": lambda: SyncNetV2(WIDTHS),
        "own": lambda: OwnSyncNet(SMALL),
    }
    return networks[request.param]().eval()


def test_every_network_hears_the_wave_and_passes_gradients_to_the_pixels(network):
    pixels, sound, landmarks = inputs()
    loss = network.sync_loss(pixels.requires_grad_(), sound, landmarks)
    assert loss.shape == (2, 9 - network.frames + 1) and loss.isfinite().all()
    (gradient,) = torch.autograd.grad(loss.sum(), pixels)
    assert gradient.isfinite().all() and (gradient.abs().amax((1, 3, 4)) > 0).all()
    assert not torch.equal(network.sync_loss(pixels, sound.flip(0), landmarks), loss)


def test_the_loss_of_a_sample_depends_on_itself_alone_and_on_no_loudness(network):
    pixels, sound, landmarks = inputs()
    together = network.sync_loss(pixels, sound, landmarks)
    alone = network.sync_loss(pixels[1:], sound[1:], landmarks[1:])
    torch.testing.assert_close(alone[0], together[1], rtol=1e-4, atol=1e-5)
    if not isinstance(network, SyncNetV2):
        torch.testing.assert_close(
            network.sync_loss(pixels, 0.3 * sound, landmarks), together, rtol=1e-2, atol=1e-2
        )


def test_an_offset_is_the_sound_that_is_so_many_frames_later(network):
    sound = inputs(batch=1)[1]
    windows = 9 - network.frames + 1
    around, own = network.embed_sound(sound, 3), network.embed_sound(sound)
    assert around.shape[:2] == (1, windows + 6) and own.shape[:2] == (1, windows)
    torch.testing.assert_close(around[:, 3 : 3 + windows], own)
    later = network.embed_sound(F.pad(sound, (0, 640))[:, 640:])
    torch.testing.assert_close(around[:, 4 : 4 + windows], later, rtol=1e-2, atol=1e-2)


def test_wrong_shapes_are_named(network):
    pixels, sound, landmarks = inputs()
    with pytest.raises(ValueError, match="^frames must be"):
        network.sync_loss(pixels[:, :, :4], sound, landmarks)
    with pytest.raises(ValueError, match="^sound must be"):
        network.sync_loss(pixels, sound[:, :-640], landmarks)
    with pytest.raises(ValueError, match="^landmarks must be"):
        network.sync_loss(pixels, sound, landmarks[:, 1:])


def test_a_video_shorter_than_a_window_is_one_window():
    net = OwnSyncNet(OwnSyncNetConfig(size=16, frames=16, width=8, embed_dim=8))
    assert net.sync_loss(*inputs(frames=13)).shape == (2, 1)
    assert net.embed_sound(inputs(frames=13)[1], 15).shape[:2] == (2, 31)
    assert net.sync_loss(*inputs(frames=17)).shape == (2, 2)


def test_log_mel_equals_that_of_the_audio_encoder():
    sound = inputs()[1]
    sound[1, :16_000] = 0
    rows = log_mel(sound, 80)
    expected = torch.stack([LogMelEncoder(80).encode(wave.numpy()) for wave in sound])
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-4)


def test_the_shipped_network_keeps_its_numbers_on_the_same_sound():
    """The figures are those of commit 5010877 on the log-mel rows of the slice, with the fixed box of the mouth."""
    y, x, t = np.mgrid[:64, :64, :13]
    frames = torch.from_numpy(np.stack([np.sin(x / 9 + t / 3 + c) * np.cos(y / 7 - t / 5) for c in range(3)]))
    video = frames.permute(0, 3, 1, 2)[None].float()
    wave = 0.1 * np.sin(np.arange(63 * 640) / 20) * (1 + np.sin(np.arange(63 * 640) / 2500))
    sound, missing = torch.from_numpy(wave).float()[None], torch.full((1, 13, 68, 2), torch.nan)
    loss = load_sync(load_recipe("tiny").perception).sync_loss(video, sound, missing)
    torch.testing.assert_close(loss[0], torch.tensor(SHIPPED), rtol=1e-3, atol=1e-3)


SHIPPED = [2.8938, 2.779, 2.3643, 2.0224, 2.8556, 4.3645, 3.55, 2.8323, 2.6457]


def test_a_box_follows_eyes_and_nose_and_falls_back_where_a_frame_has_no_face():
    box = FaceBox(drop=0.76, side=1.0, fallback=(0.25, 0.5, 0.75, 1.0))
    landmarks = inputs(batch=1, frames=3)[2]
    boxes = box.boxes(landmarks, 40, 40)[0]
    assert boxes[1].tolist() == [10, 20, 30, 40]
    # The eyes are 14 px apart, and the base of the nose is the box's centre.
    torch.testing.assert_close(boxes[0], torch.tensor([14.0, 11.6, 28.0, 25.6]), atol=1e-3, rtol=0)
    lips = landmarks.clone()
    lips[..., 48:68, :] += 5
    assert torch.equal(box.boxes(lips, 40, 40)[0], boxes)
    torch.testing.assert_close(box.boxes(landmarks + 3, 40, 40)[0, 0], boxes[0] + 3, atol=1e-3, rtol=0)


def test_resampling_equals_antialiased_interpolation_and_repeats_the_edge():
    picture = torch.rand(1, 3, 40, 50)
    for size in (9, 64):
        cut = resample(picture, torch.tensor([[5.0, 10.0, 45.0, 36.0]]), size)
        expected = F.interpolate(picture[:, :, 10:36, 5:45], (size, size), mode="bilinear", antialias=True)
        torch.testing.assert_close(cut, expected, rtol=1e-4, atol=1e-5)
    outside = resample(picture, torch.tensor([[-8.0, -8.0, -4.0, -4.0]]), 4)
    torch.testing.assert_close(outside[0, :, 0, 0], picture[0, :, 0, 0])


def test_files_are_recognised_by_their_content(tmp_path):
    own, v2 = OwnSyncNet(SMALL).eval(), SyncNetV2(WIDTHS).eval()
    write_tensors(own.state_dict(), tmp_path / "a", sync_metadata(own))
    torch.save(v2.state_dict(), tmp_path / "b")
    for net, name in ((own, "a"), (v2, "b")):
        loaded = load_sync(PerceptionConfig(sync="syncnet", sync_path=str(tmp_path / name)))
        assert type(loaded) is type(net)
        assert not any(p.requires_grad for p in loaded.parameters()) and not loaded.training
        assert torch.equal(loaded.sync_loss(*inputs()), net.sync_loss(*inputs()))
    halved = {key: value.half() for key, value in own.state_dict().items()}
    write_tensors(halved, tmp_path / "half", sync_metadata(own))
    half = load_sync_file(tmp_path / "half").sync_loss(*inputs())
    torch.testing.assert_close(half, own.sync_loss(*inputs()), rtol=0.02, atol=0.02)


def test_files_that_hold_no_syncnet_are_user_errors(tmp_path):
    (tmp_path / "text").write_text("not weights")
    with pytest.raises(UserError, match="text: not a SyncNet"):
        load_sync_file(tmp_path / "text")
    with pytest.raises(UserError, match="no such SyncNet file; train one with `xdub train syncnet`"):
        load_sync_file(tmp_path / "none.safetensors")
    write_tensors({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {"network": "mouth-readout"})
    with pytest.raises(UserError, match="holds mouth-readout, not a SyncNet"):
        load_sync_file(tmp_path / "other.safetensors")
    torch.save({"netcnnaud.0.weight": torch.zeros(1)}, tmp_path / "part.model")
    with pytest.raises(
        UserError, match="not a SyncNet: neither from `xdub train syncnet` nor with the parts"
    ):
        load_sync_file(tmp_path / "part.model")
    state = SyncNetV2(WIDTHS).state_dict()
    del state["netfclip.3.bias"]
    torch.save(state, tmp_path / "short.model")
    with pytest.raises(UserError, match="another layout"):
        load_sync_file(tmp_path / "short.model")
    metadata = {"network": "tiny-syncnet", "config": '{"audio_dim": 384}'}
    write_tensors({"a": torch.zeros(1)}, tmp_path / "whisper.safetensors", metadata)
    with pytest.raises(UserError, match="trained on 384 features of an audio encoder"):
        load_sync_file(tmp_path / "whisper.safetensors")


def test_a_random_network_has_the_accuracy_of_chance_and_a_perfect_one_makes_no_error():
    class Perfect(TinySyncNet):
        """A network that reads the number of a frame from its pixels and from its sound."""

        def embed_video(self, frames, landmarks):
            return F.one_hot(frames[:, 0, 2:-2, 0, 0].long(), 500).float()

        def embed_sound(self, sound, around=0):
            first, last = 27 - around, sound.shape[1] // 640 - 27 + around
            return F.one_hot(sound[:, 640 * first : 640 * last : 640].long(), 500).float()

    start = 100 * torch.arange(4)[:, None]
    video = (start + 26 + torch.arange(9))[:, None, :, None, None].float().expand(-1, 3, -1, 8, 8)
    sound = (start + 1 + torch.arange(59)).float().repeat_interleave(640, 1)
    perfect = AccuracyMeter(Perfect())
    perfect.add(video, sound, inputs(batch=4)[2])
    result = perfect.result()
    assert result.windows == 20 and result.best_offset == 1 and result.choice == 1
    assert result.accuracy == [1.0] * 16 and result.preferred == [1.0] * 16
    torch.manual_seed(0)
    chance = AccuracyMeter(OwnSyncNet(SMALL).eval())
    for seed in range(8):
        chance.add(*inputs(batch=8, seed=seed))
    assert abs(chance.result().choice - 0.5) < 0.1 and chance.result().best_offset < 0.3
