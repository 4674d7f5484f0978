"""The clip: one row of a shard. This module is the only definition of its fields, shapes and dtypes.

A clip stores pixels. The codec computes latents for each training window, so a shard does not depend on a codec. Point
coordinates are continuous: the top left corner of a picture is (0, 0), the centre of its first pixel (0.5, 0.5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xdub.data.sound import MARGIN_SAMPLES, surrounded
from xdub.errors import UserError
from xdub.geometry import FPS, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
"""Version of the row format; every row and manifest carries it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A face crop with its speech: F frames of H x W, N = 640 F audio samples. Wrong shapes raise ValueError."""

    clip_id: str
    """Hash of the content, see `clip_id_of`."""
    source: str
    """Provenance: "render:seed/idx", or file name and frame range."""
    speaker: str
    fps: float = float(FPS)
    frames: np.ndarray
    """[F,H,W,3] uint8 RGB; V of a pair"""
    audio: np.ndarray
    """[N] float32, 16 kHz mono in [-1,1]"""
    sound_before: np.ndarray | None = None
    """[up to 16,000] float32, the source's sound that ends where the clip begins; None: silence"""
    sound_after: np.ndarray | None = None
    """[up to 16,000] float32, the source's sound that begins where the clip ends; None: silence"""
    landmarks: np.ndarray
    """[F,68,2] float32, crop px; rows without a face are nan"""
    face_mask: np.ndarray
    """[F,H,W] bool, face (or lower face, see `masks.face`) with the jaw fixed open, independent of lip motion"""
    lip_mask: np.ndarray
    """[F,H,W] bool, weights the loss and never hides pixels"""
    occluder_mask: np.ndarray
    """[F,H,W] bool, objects in front of the face"""
    opening: np.ndarray | None = None
    """[F] float32, inner-lip gap over eye distance, if known exactly"""
    reference: np.ndarray | None = None
    """[F,H,W,3] uint8, V' of a pair; all other fields belong to V"""
    references: np.ndarray | None = None
    """[K,H,W,3] uint8, frames of another segment of the source, from which the generator's reference is drawn"""
    scores: dict[str, float] = field(default_factory=dict)
    """Scores of a pair by name: identity, mouth_distance, ..."""
    twin_of: str | None = None
    """Clip id of the rendered twin with the same motion and identity and other speech."""

    def __post_init__(self) -> None:
        if self.fps != FPS:
            raise ValueError(f"clip {self.clip_id}: fps is {self.fps}, must be {float(FPS)}")
        _check(self, "frames", np.uint8, (None, None, None, 3))
        f, h, w, _ = self.frames.shape
        _check(self, "audio", np.float32, (f * SAMPLES_PER_FRAME,))
        for name in ("sound_before", "sound_after"):
            if (part := getattr(self, name)) is not None:
                _check(self, name, np.float32, (min(len(part), MARGIN_SAMPLES),))
        _check(self, "landmarks", np.float32, (f, 68, 2))
        for name in ("face_mask", "lip_mask", "occluder_mask"):
            _check(self, name, np.bool_, (f, h, w))
        if self.opening is not None:
            _check(self, "opening", np.float32, (f,))
        if self.reference is not None:
            _check(self, "reference", np.uint8, (f, h, w, 3))
        if self.references is not None:
            _check(self, "references", np.uint8, (None, h, w, 3))

    @property
    def num_frames(self) -> int:
        """Number of frames F."""
        return len(self.frames)

    @property
    def num_references(self) -> int:
        """Number of frames of another segment."""
        return 0 if self.references is None else len(self.references)

    @property
    def sound(self) -> np.ndarray:
        """Sound with one second on either side, float32 [N + 32,000]; windows are cut from it (`xdub.data.sound`)."""
        return surrounded(self.audio, self.sound_before, self.sound_after)

    @property
    def visible_mask(self) -> np.ndarray:
        """M_vis [F,H,W], the visible part of the face, which the generator inpaints (paper B.2)."""
        return self.face_mask & ~self.occluder_mask


def clip_id_of(source: str, frames: np.ndarray, *more: np.ndarray | None) -> str:
    """Hash the provenance, the pixels and `more` arrays, e.g. the reference, to 16 hex digits."""
    digest = hashlib.sha256(source.encode())
    for array in (frames, *more):
        if array is not None:
            digest.update(f"|{array.dtype.str}{array.shape}|".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def schema() -> pa.Schema:
    """Return the columns of a clip shard: pictures as mp4 bytes, masks as packed bits, arrays as bytes and shape."""
    import pyarrow as pa

    array = pa.struct([("data", pa.binary()), ("shape", pa.list_(pa.int32()))])
    return pa.schema(
        [
            ("schema_version", pa.int32()),
            ("clip_id", pa.string()),
            ("source", pa.string()),
            ("speaker", pa.string()),
            ("fps", pa.float64()),
            ("num_frames", pa.int32()),
            ("frames", pa.binary()),
            ("audio", array),
            ("sound_before", array),
            ("sound_after", array),
            ("landmarks", array),
            ("face_mask", array),
            ("lip_mask", array),
            ("occluder_mask", array),
            ("opening", array),
            ("reference", pa.binary()),
            ("scores", pa.map_(pa.string(), pa.float64())),
            ("twin_of", pa.string()),
            ("references", pa.binary()),
        ]
    )


def to_row(clip: Clip) -> dict[str, Any]:
    """Encode a clip as a row of `schema()`. Videos and references are nearly lossless; all other fields are exact."""
    from xdub.media import encode_clip_bytes

    return {
        "schema_version": SCHEMA_VERSION,
        "clip_id": clip.clip_id,
        "source": clip.source,
        "speaker": clip.speaker,
        "fps": clip.fps,
        "num_frames": clip.num_frames,
        "frames": encode_clip_bytes(clip.frames),
        "audio": _pack(clip.audio),
        "sound_before": None if clip.sound_before is None else _pack(clip.sound_before),
        "sound_after": None if clip.sound_after is None else _pack(clip.sound_after),
        "landmarks": _pack(clip.landmarks),
        "face_mask": _pack(clip.face_mask),
        "lip_mask": _pack(clip.lip_mask),
        "occluder_mask": _pack(clip.occluder_mask),
        "opening": None if clip.opening is None else _pack(clip.opening),
        "reference": None if clip.reference is None else encode_clip_bytes(clip.reference),
        "scores": [(name, float(clip.scores[name])) for name in sorted(clip.scores)],
        "twin_of": clip.twin_of,
        "references": None if clip.references is None else encode_clip_bytes(clip.references),
    }


def from_row(row: Mapping[str, Any]) -> Clip:
    """Decode a row of `to_row`. Raise UserError if it has another version or is damaged."""
    from xdub.media import decode_clip_bytes

    clip_id, version = row.get("clip_id"), row.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"clip {clip_id}: schema_version {version}, this xdub reads {SCHEMA_VERSION}: create it again"
        )
    try:
        return Clip(
            clip_id=row["clip_id"],
            source=row["source"],
            speaker=row["speaker"],
            fps=row["fps"],
            frames=decode_clip_bytes(row["frames"]),
            audio=_unpack(row["audio"], np.float32),
            # Shards of earlier versions lack the surroundings.
            sound_before=_optional(row.get("sound_before")),
            sound_after=_optional(row.get("sound_after")),
            landmarks=_unpack(row["landmarks"], np.float32),
            face_mask=_unpack(row["face_mask"], np.bool_),
            lip_mask=_unpack(row["lip_mask"], np.bool_),
            occluder_mask=_unpack(row["occluder_mask"], np.bool_),
            opening=_optional(row["opening"]),
            reference=None if row["reference"] is None else decode_clip_bytes(row["reference"]),
            scores=dict(row["scores"] or ()),
            twin_of=row["twin_of"],
            # Shards of earlier versions lack the references.
            references=decode_clip_bytes(row["references"]) if row.get("references") else None,
        )
    except Exception as error:
        raise UserError(f"clip {clip_id}: damaged row ({type(error).__name__}: {error})") from error


def _pack(array: np.ndarray) -> dict[str, Any]:
    """Return an array's shape and its bytes, little-endian, or as bits if it is bool."""
    little_endian = array.dtype.newbyteorder("<")
    data = np.packbits(array) if array.dtype == np.bool_ else array.astype(little_endian, copy=False)
    return {"data": data.tobytes(), "shape": list(array.shape)}


def _unpack(value: Mapping[str, Any], dtype: type) -> np.ndarray:
    shape = tuple(value["shape"])
    if dtype is np.bool_:
        bits = np.unpackbits(np.frombuffer(value["data"], np.uint8), count=int(np.prod(shape)))
        return bits.view(np.bool_).reshape(shape)
    return np.frombuffer(value["data"], np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)


def _optional(value: Mapping[str, Any] | None) -> np.ndarray | None:
    return None if value is None else _unpack(value, np.float32)


def _check(clip: Clip, name: str, dtype: type, shape: tuple[int | None, ...]) -> None:
    """Raise ValueError unless a field has the dtype and the shape, where None is any size."""
    array = getattr(clip, name)
    fits = len(array.shape) == len(shape) and all(
        expected in (None, size) for expected, size in zip(shape, array.shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        raise ValueError(
            f"clip {clip.clip_id}: {name} is {array.dtype}{list(array.shape)}, "
            f"must be {np.dtype(dtype)}{list(shape)}"
        )
