"""HDR and wide gamuts become BT.709 SDR; the inputs are made with the formulas of BT.2100 and BT.2020."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from xdub.errors import UserError
from xdub.media import probe, read_frames, read_video

TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""BT.709 to BT.2020, from BT.2087."""
TO_P3 = np.array([[0.82246, 0.17754, 0.0], [0.03319, 0.96681, 0.0], [0.01708, 0.07240, 0.91052]])
"""BT.709 to P3 with D65."""
LUMA = np.array([0.2627, 0.6780, 0.0593])


def scene() -> np.ndarray:
    """Return a smooth picture uint8 [96, 128, 3] with dark, bright, grey and saturated parts, and white."""
    y, x = np.mgrid[0:96, 0:128] / [[[96.0]], [[128.0]]]
    picture = np.stack([x, y, 0.5 + 0.5 * np.sin(6 * x + 4 * y)], axis=-1)
    picture[64:] = x[64:, :, None]
    picture[:24, 96:] = 1.0
    return np.rint(255 * picture).astype(np.uint8)


def hlg(rgb: np.ndarray) -> np.ndarray:
    """Return the HLG signal (BT.2100) of an SDR picture whose white is shown with 203 of 1000 cd/m2."""
    light = (rgb / 255) ** 2.4 * 0.203 @ TO_2020.T
    luminance = np.maximum(light @ LUMA, 1e-9)[..., None]
    scene_light = light * luminance ** (1 / 1.2 - 1)
    root = np.sqrt(3 * scene_light)
    log = 0.17883277 * np.log(np.maximum(12 * scene_light - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene_light <= 1 / 12, root, log)


def pq(rgb: np.ndarray) -> np.ndarray:
    """Return the PQ signal (BT.2100) of an SDR picture whose white is shown with 203 cd/m2."""
    light = (rgb / 255) ** 2.4 * 0.0203 @ TO_2020.T
    power = light ** (1305 / 8192)
    return ((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def wide(matrix: np.ndarray):
    """Return the conversion of an SDR picture to SDR signals of another gamut."""
    return lambda rgb: ((rgb / 255) ** 2.4 @ matrix.T) ** (1 / 2.4)


def write(
    path: Path, signal: np.ndarray, *, transfer: int, primaries: int, matrix: int = 9, first: int = 0
) -> Path:
    """Write three equal frames of an RGB signal as 10-bit BT.2020 4:4:4, the first at ``first`` / 25 s."""
    luma = signal @ LUMA
    blue, red = (signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746
    height, width = luma.shape
    planes = [876 * luma + 64, 896 * blue + 512, 896 * red + 512]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = matrix, primaries, transfer
        context.color_range = 1
        for n in range(3):
            frame = av.VideoFrame(width, height, "yuv444p10le")
            for plane, values in zip(frame.planes, planes, strict=True):
                row = np.zeros((values.shape[0], plane.line_size // 2), np.uint16)
                row[:, : values.shape[1]] = np.rint(values)
                plane.update(row.tobytes())
            frame.pts, frame.time_base = first + n, Fraction(1, 25)
            frame.colorspace, frame.color_range = matrix, 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize(
    ("convert", "transfer", "primaries"),
    [
        *((hlg, 18, 9), (hlg, 18, 2), (pq, 16, 9)),
        *((wide(TO_2020), 14, 9), (wide(TO_2020), 1, 9), (wide(TO_P3), 1, 12), (wide(TO_P3), 13, 12)),
    ],
    ids=["hlg", "hlg-untagged-gamut", "pq", "bt2020", "bt2020-as-bt709", "p3", "p3-srgb"],
)
def test_hdr_and_wide_gamuts_become_the_sdr_picture(convert, transfer, primaries, tmp_path):
    truth = scene()
    path = write(tmp_path / "v.mp4", convert(truth), transfer=transfer, primaries=primaries)
    assert psnr(read_frames(path), truth) > 40.5
    assert psnr(np.stack(list(read_video(path, exact=False))), truth) > 40.5


def test_light_above_white_is_clipped_and_keeps_its_order(tmp_path):
    steps = np.repeat(np.linspace(0, 1, 32), 4)
    signal = np.repeat(np.repeat(steps[None, :, None], 96, axis=0), 3, axis=2)
    grey = read_frames(write(tmp_path / "v.mp4", signal, transfer=18, primaries=9))[1][48, 2::4, 1].astype(
        int
    )
    assert np.all(np.diff(grey) >= 0) and grey[0] <= 1
    # HLG's reference white is at 75 %.
    assert np.all(grey[24:] >= 254) and grey[22] < 245


@pytest.mark.parametrize("matrix", [8, 14])
def test_an_unsupported_colour_matrix_is_refused_at_once(matrix, tmp_path):
    path = write(tmp_path / "v.mp4", hlg(scene()), transfer=18, primaries=9, matrix=matrix)
    for read in (probe, read_video):
        with pytest.raises(UserError, match=f"colour matrix .number {matrix} of H.273. is not supported"):
            read(path)


def test_a_video_that_changes_from_sdr_to_hdr_is_converted_from_there(tmp_path):
    dark, grey = np.full((96, 128, 3), 60, np.uint8), np.full((96, 128, 3), 120, np.uint8)
    sdr = write(tmp_path / "0.ts", dark / 255, transfer=1, primaries=1)
    hdr = write(tmp_path / "1.ts", hlg(grey), transfer=18, primaries=9, first=3)
    path = tmp_path / "both.ts"
    path.write_bytes(sdr.read_bytes() + hdr.read_bytes())
    frames = read_frames(path).astype(int)
    assert np.abs(frames[:3] - 60).max() <= 2 and np.abs(frames[3:6] - 120).max() <= 2


def test_dolby_vision_without_an_hdr_picture_is_refused_at_once(media):
    path = media.video()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"avc1", b"dva1"))
    with pytest.raises(UserError, match="Dolby Vision without an HDR10 or HLG picture"):
        read_video(path)
