"""SyncNet v2: its MFCC against an independent reference, and its layout at the published sizes."""

from __future__ import annotations

import math

import numpy as np
import torch

from xdub.perception.syncnet.sound import mfcc
from xdub.perception.syncnet.v2 import SyncNetV2, SyncNetV2Widths


def reference_mfcc(samples: np.ndarray) -> np.ndarray:
    """Return the MFCC [T, 13] of int16 samples at 16 kHz, row by row from their definition, in double precision."""
    emphasised = np.append(samples[0], samples[1:] - 0.97 * samples[:-1])
    mel = [2595 * math.log10(1 + 8000 / 700) * i / 27 for i in range(28)]
    edges = [math.floor(513 * 700 * (10 ** (m / 2595) - 1) / 16000) for m in mel]
    rows = []
    for begin in range(0, 160 * (math.ceil((len(samples) - 400) / 160) + 1), 160):
        frame = np.zeros(512)
        part = emphasised[begin : begin + 400]
        frame[: len(part)] = part
        power = np.abs(np.fft.fft(frame)[:257]) ** 2 / 512
        logs = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            band = sum(power[k] * (k - low) / (middle - low) for k in range(low, middle))
            band += sum(power[k] * (high - k) / (high - middle) for k in range(middle, high))
            logs.append(math.log(band or np.finfo(float).eps))
        row = [math.log(power.sum() or np.finfo(float).eps)]
        for n in range(1, 13):
            total = sum(value * math.cos(math.pi * n * (2 * k + 1) / 52) for k, value in enumerate(logs))
            row.append(total * math.sqrt(2 / 26) * (1 + 11 * math.sin(math.pi * n / 22)))
        rows.append(row)
    return np.array(rows)


def test_the_mfcc_equal_an_independent_reference():
    random = np.random.default_rng(0)
    time = np.arange(6_000) / 16_000
    speech = 9_000 * np.sin(2 * np.pi * 180 * time) * np.sin(2 * np.pi * 3 * time) ** 2
    samples = np.rint(speech + 500 * random.standard_normal(6_000)).astype(np.int16)
    samples[:1_000] = 0
    rows = mfcc(torch.from_numpy(samples.astype(np.float32) / 32768)[None])[0].numpy()
    expected = reference_mfcc(samples.astype(np.float64))
    assert rows.shape == expected.shape == (36, 13)
    np.testing.assert_allclose(rows, expected, rtol=1e-3, atol=0.02)


def test_the_layout_is_that_of_the_published_file():
    with torch.device("meta"):
        state = SyncNetV2().state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items() if name.endswith("weight")}
    assert shapes["netcnnaud.0.weight"] == (64, 1, 3, 3) and shapes["netcnnaud.18.weight"] == (512, 256, 5, 4)
    assert shapes["netcnnlip.0.weight"] == (96, 3, 5, 7, 7)
    assert shapes["netcnnlip.18.weight"] == (512, 256, 1, 6, 6)
    for tower in ("netfcaud", "netfclip"):
        assert shapes[f"{tower}.0.weight"] == (512, 512) and shapes[f"{tower}.3.weight"] == (1024, 512)
    assert {name.split(".")[1] for name in shapes if name.startswith("netcnn")} == {
        str(index) for index in (0, 1, 4, 5, 8, 9, 11, 12, 14, 15, 18, 19)
    }
    assert sum(value.numel() for name, value in state.items() if "running" not in name) // 1000 == 13_631


def test_a_window_hears_the_twenty_rows_from_its_first_frame_and_sees_blue_first():
    torch.manual_seed(0)
    widths = SyncNetV2Widths(audio=(4, 4, 4, 4, 4, 8), lip=(4, 4, 4, 4, 4, 8), hidden=8, embed=12)
    net = SyncNetV2(widths).eval()
    sound = 0.1 * torch.randn(1, 640 * (7 + 50))
    before = net.sound_features(sound)
    assert before.shape == (1, 3, 12)
    # Window 1 begins 26 frames into the slice and ends with the samples of its last row.
    changed = sound.clone()
    changed[:, : 640 * 26 - 1] = 0
    changed[:, 640 * 26 + 19 * 160 + 400 :] = 0
    after = net.sound_features(changed)
    torch.testing.assert_close(after[:, 1], before[:, 1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(after[:, 2], before[:, 2], rtol=1e-2)
    received = []
    net.netcnnlip.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    red = torch.full((1, 3, 5, 32, 32), -1.0)
    red[:, 0] = 1
    net.lip_features(red, torch.full((1, 5, 68, 2), torch.nan))
    assert received[0].shape == (1, 3, 5, 224, 224)
    torch.testing.assert_close(received[0].mean((0, 2, 3, 4)), torch.tensor([0.0, 0.0, 255.0]))
