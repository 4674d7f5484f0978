"""Colours of decoded frames: matrix, range, and the conversion of HDR and wide gamuts to BT.709 SDR.

HDR is converted by the light of the reference display: HLG through its system gamma of 1.2, PQ directly. The reference
white of BT.2408 (203 cd/m2, which is 75 % in HLG and 58 % in PQ) becomes SDR white; brighter light is clipped.
"""

from __future__ import annotations

import tempfile
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from xdub.errors import UserError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

PQ, HLG = 16, 18
"""FFmpeg's numbers (AVCOL_TRC_*) of the two HDR transfer functions of BT.2100."""
BT709, UNSPECIFIED, BT2020, P3 = 1, 2, 9, 12
"""FFmpeg's numbers (AVCOL_PRI_*) of primaries."""
CHROMATICITIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""CIE xy of red, green and blue; the white of all is D65."""
D65 = (0.3127, 0.3290)
"""CIE xy of white."""
WHITE = 203.0
"""Light of SDR white in cd/m2."""
PEAK = 1000.0
"""Light of the HLG reference display at full signal in cd/m2."""
GAMMA = 2.4
"""Exponent of an SDR display (BT.1886)."""
GRID = 65
"""Nodes of the table along each axis."""
RANGE = 2.0
"""Largest SDR signal in the table; its values reach beyond white, because clipping between two nodes is inexact."""
MATRICES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020", 10: "BT2020"}
"""FFmpeg's numbers of colour matrices (AVCOL_SPC_*) and their names; 0, 2 and 3 stand for no statement."""
JPEG = 2
"""FFmpeg's number of the full range (AVCOL_RANGE_JPEG)."""
DOLBY_TAGS = ("dvh1", "dvhe", "dva1", "dvav", "dav1")
"""Codec tags of Dolby Vision."""

FULL, LIMITED = 65535, 65280
"""16-bit values of white that FFmpeg writes for frames of full and of limited range."""

Conversion = tuple[int, int, int]
"""Primaries and transfer function that need a conversion, and the 16-bit value of white; a transfer of 0 is SDR."""


def matrix(frame: VideoFrame) -> str:
    """Return the colour matrix of a frame; for an untagged frame, the matrix that players assume for its size."""
    guess = "ITU709" if frame.width >= 1280 or frame.height > 576 else "ITU601"
    return MATRICES.get(int(frame.colorspace), guess)


def conversion(frame: VideoFrame) -> Conversion | None:
    """Return the conversion to BT.709 SDR that a frame needs, or None."""
    transfer, primaries = int(frame.color_trc), int(frame.color_primaries)
    white = FULL if frame.color_range == JPEG or frame.format.is_rgb else LIMITED
    if transfer in (PQ, HLG):
        return (primaries if primaries in CHROMATICITIES else BT2020), transfer, white
    return (primaries, 0, white) if primaries in (BT2020, P3) else None


def check_colours(frame: VideoFrame, stream: VideoStream, path: object) -> None:
    """Raise UserError for colours that would come out wrong: an unknown matrix, Dolby Vision without an HDR base."""
    number = int(frame.colorspace)
    if number not in (0, 2, 3, *MATRICES):
        problem = f"its colour matrix (number {number} of H.273) is not supported"
        raise UserError(f"{path}: {problem}; re-encode it as BT.709")
    dolby = stream.codec_context.codec_tag in DOLBY_TAGS or "DOVI_METADATA" in frame.side_data
    if dolby and int(frame.color_trc) == UNSPECIFIED:
        problem = "Dolby Vision without an HDR10 or HLG picture in it (profile 5)"
        raise UserError(f"{path}: {problem} is not supported; export it as SDR or HLG")


class SdrConverter:
    """Conversion of 16-bit planar RGB frames to BT.709 SDR with a table, by FFmpeg."""

    def __init__(self) -> None:
        self._setup: tuple[Conversion, int, int] | None = None

    def __call__(self, frame: VideoFrame, needed: Conversion) -> np.ndarray:
        """Convert a frame of the format gbrp16le; return uint8 RGB [H, W, 3]."""
        setup = (needed, frame.width, frame.height)
        if setup != self._setup:
            self._build(needed, frame)
            self._setup = setup
        self._graph.vpush(frame)
        wide = self._graph.vpull().to_ndarray()
        return np.rint(np.minimum(wide * np.float32(255 * RANGE / 65535), 255)).astype(np.uint8)

    def _build(self, needed: Conversion, frame: VideoFrame) -> None:
        from av.filter import Graph

        self._graph = Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        sink = self._graph.add("buffersink")
        # FFmpeg reads the table once, here.
        with tempfile.NamedTemporaryFile("w", suffix=".cube") as file:
            file.write(table(needed))
            file.flush()
            lut = self._graph.add("lut3d", file=file.name, interp="tetrahedral")
            source.link_to(lut)
            lut.link_to(sink)
            self._graph.configure()


@cache
def table(needed: Conversion) -> str:
    """Return the SDR signals, divided by RANGE, of all nodes in the format .cube; red changes fastest."""
    primaries, transfer, white = needed
    axis = np.minimum(np.linspace(0, FULL / white, GRID), 1)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    signals = to_sdr(np.stack([red, green, blue], axis=-1).reshape(-1, 3), primaries, transfer)
    values = tuple((np.minimum(signals / RANGE, 1)).ravel())
    return f"LUT_3D_SIZE {GRID}\n" + "%.6f %.6f %.6f\n" * len(signals) % values


def to_sdr(signal: np.ndarray, primaries: int, transfer: int) -> np.ndarray:
    """Convert RGB signals [N, 3] in [0, 1] to the BT.709 SDR signals of the same light; 1 is white."""
    to_xyz = _xyz(primaries)
    if transfer == HLG:
        scene = np.where(
            signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
        )
        luminance = scene @ to_xyz[1]
        light = scene * luminance[:, None] ** 0.2 * (PEAK / WHITE)
    elif transfer == PQ:
        power = signal ** (32 / 2523)
        ratio = np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
        light = ratio ** (16384 / 2610) * (10000 / WHITE)
    else:
        light = signal**GAMMA
    light = light @ (np.linalg.inv(_xyz(BT709)) @ to_xyz).T
    return np.maximum(light, 0) ** (1 / GAMMA)


def _xyz(primaries: int) -> np.ndarray:
    """Return the matrix [3, 3] from linear RGB to CIE XYZ; the luminance of white is 1."""
    columns = np.array([[x, y, 1 - x - y] for x, y in CHROMATICITIES[primaries]]).T
    white = np.array([D65[0] / D65[1], 1, (1 - D65[0] - D65[1]) / D65[1]])
    return columns * np.linalg.solve(columns, white)
