"""Preparation of real videos: track a face, crop it steadily, cut the crops into clips with speech (paper B.6).

A video is read twice, frame by frame: once to find the face, once to cut the crops, so memory does not grow with its
length. The ledger has the result of every video.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xdub.data.clip import Clip, clip_id_of
from xdub.data.clip_checks import Rejected, check_face_size, check_loudness, check_motion, check_sound
from xdub.data.clip_masks import ClipMasks, mask_settings, occluded_share
from xdub.data.decisions import DECISIONS, REVIEW, rejected_clips
from xdub.data.ingest import FOLDER, Ingested, ingest
from xdub.data.ledger import LedgerRow
from xdub.data.losses import loss_rows, time_limit, within_limit
from xdub.data.references import with_references
from xdub.data.screening import ClipScreen, check_speaker, speaker_spans, track_source
from xdub.data.sound import cut_sound
from xdub.data.spans import Span, frames_id, shortest_clip, unused_rows
from xdub.data.stage_clock import StageClock
from xdub.data.transforms import crop, crop_points
from xdub.data.video_files import find_videos
from xdub.files.folders import why_unreadable
from xdub.files.storage import Location, locate
from xdub.geometry import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from xdub.media.damage import Damage
from xdub.media.deadline import Deadline
from xdub.media.isolated import probe, read_video, store_audio
from xdub.media.stored_sound import StoredSound
from xdub.perception.face_mesh import lip_masks, lower_face_masks
from xdub.perception.faces import FaceTracker
from xdub.pool import Workers
from xdub.progress import Report

if TYPE_CHECKING:
    from xdub.config import Recipe


def prepare_videos(
    sources: Sequence[str | Path],
    out: str | Path | Location,
    recipe: Recipe,
    *,
    workers: int | Workers | None = None,
    limit: float | None = None,
    decisions: str | Path | None = None,
    on_progress: Report | None = None,
) -> Ingested:
    """Add videos, and all videos below folders, to the data set OUT. A killed call can be repeated at any time.

    Sources and OUT may be URIs such as ``s3://bucket/folder``. A worker copies such a source to its disk. A video may
    take ``limit`` seconds; see `xdub.data.losses.time_limit`. Clips that the file ``decisions`` rejects, by default the
    one in OUT, are left out of the videos that this call prepares; see `xdub.data.decisions`.

    Raises:
        UserError: a source or ``decisions`` does not exist, a folder holds no video, or no clip could be created.
    """
    unfit = rejected_clips(decisions or locate(out) / DECISIONS, required=decisions is not None)
    videos = find_videos(sources)
    if len(videos) == 1 and isinstance(videos[0], Path):
        # A single unreadable video is an error before OUT is created.
        probe(videos[0], Damage())
    video = recipe.video
    settings: dict[str, Any] = {"prepare": 1, "size": video.size, "clip_frames": video.clip_frames}
    settings["crop_scale"] = video.crop_scale
    settings |= ({"crop": video.crop} if video.crop != "template" else {}) | mask_settings(recipe)
    return ingest(
        videos,
        out,
        partial(Preparer, recipe, limit=limit, unfit=unfit),
        manifest_recipe=settings,
        workers=workers,
        # The trackers run on processors, and the large networks of masks on GPUs.
        gpus=None if recipe.masks.networks else 0,
        on_progress=on_progress,
    )


class Preparer:
    """Face tracker in memory, and the steps that turn a video into clips; one object serves many videos."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        screened: bool = True,
        limit: float | None = None,
        unfit: Collection[str] = (),
    ) -> None:
        """Load the networks. Raise UserError if weights are missing.

        Args:
            screened: run the checks of the recipe's section ``screen``, which rendered scenes do not need.
            limit: seconds that a video may take; see `xdub.data.losses.time_limit`.
            unfit: ids of clips whose masks a person rejected.
        """
        self.recipe, self._limit, self._unfit = recipe, limit, unfit
        self.clock, self._losses = StageClock(), (0, Damage(), Damage())
        self._tracker = FaceTracker()
        self._masks = ClipMasks(recipe.masks, self._tracker.search)
        self._screen = ClipScreen(recipe) if screened else None

    def __call__(self, source: str) -> Iterator[Clip | LedgerRow]:
        """Yield the clips of one video, then ledger rows for unused frames, or the row of a rejected video."""
        path = Path(source)
        if (reason := why_unreadable(path)) is not None:
            check = FOLDER if path.is_dir() else "file"
            yield LedgerRow(input=source, status="failed", check=check, message=reason)
            return
        yield from self.clock.record(within_limit(source, self._clips(source, path)))

    def _clips(self, source: str, path: Path) -> Iterator[Clip | LedgerRow]:
        try:
            spans, has_face, audio = self.find_clips(path)
        except Rejected as rejection:
            yield rejection.row(source)
            yield from self.losses(source)
            return
        used = np.zeros(len(has_face), bool)
        pieces = self.cut_crops(path, spans)
        for (start, span, crops), references in with_references(pieces, self.recipe.masks.references):
            used[start : start + len(crops)] = True
            try:
                yield from self._screened(
                    source,
                    partial(self.clip_of, path, crops, start, span, audio),
                    partial(self.with_masks, start=start, span=span, references=references),
                )
            except Rejected as rejection:
                yield rejection.row(source, frames_id(start, start + len(crops)))
        yield from unused_rows(source, used, has_face, shortest_clip(self.recipe))
        yield from self.losses(source)

    def losses(self, source: str) -> Iterator[LedgerRow]:
        """Yield rows for the parts of the video of the last `find_clips` that could not be read."""
        yield from loss_rows(source, *self._losses)

    def _screened(
        self, source: str, build: Callable[..., Clip], finish: Callable[[Clip], Clip]
    ) -> Iterator[Clip | LedgerRow]:
        """Yield a clip that passes all checks, and its row with every value. Raise `Rejected` if it fails one.

        ``finish`` computes what no check reads.
        """
        scores: dict[str, float] = {}
        try:
            with self.clock("screen"):
                clip, message = self._screen(build, scores) if self._screen else (build(scores=scores), "")
            with self.clock("masks"):
                if clip.clip_id in self._unfit:
                    raise Rejected(REVIEW, 0.0, 1.0, f"clip {clip.clip_id}: its masks were rejected")
                clip = finish(clip)
        except Rejected as rejection:
            rejection.scores = scores | rejection.scores
            raise
        scores["occluded"] = occluded_share(clip)
        yield clip
        yield LedgerRow(input=source, clip_id=clip.clip_id, status="kept", message=message, scores=scores)

    def find_clips(
        self, path: Path, *, sound: Path | None = None
    ) -> tuple[list[Span], np.ndarray, StoredSound]:
        """Run the first pass: return the spans for clips, bool [F] of frames with a face, the sound [N] at 16 kHz.

        The file is decoded in another process, within the time limit, which begins here and includes `cut_crops`.

        Args:
            sound: file to read instead of the video's own track.

        Raises:
            Rejected: no clip can be cut.
            TimeLimit: the time limit has passed.
            DecoderCrash: the file's decoder crashed.
        """
        self.clock.deadline = deadline = Deadline()
        _, picture, heard = self._losses = 0, Damage(), Damage()
        info = probe(path, picture, deadline)
        deadline.limit = time_limit(info, self._limit)
        if sound is None and not info.has_audio:
            raise Rejected("audio", 0.0, 1.0, "no audio stream")
        with self.clock("decode"):
            audio = store_audio(sound or path, SAMPLE_RATE, damage=heard, deadline=deadline)
        check_loudness(audio.blocks(SAMPLES_PER_FRAME))
        config = self.recipe.screen if self._screen is not None else None
        frames = read_video(path, fps=FPS, exact=False, damage=picture, deadline=deadline)
        with self.clock("track"):
            frames = self.clock.timed("decode", frames)
            piece, record = self.recipe.video.clip_frames, self._masks.new_record()
            source = track_source(self._tracker, frames, audio, config, record, piece=piece)
        self.clock.footage = len(source.track) / FPS
        self._losses = len(source.track), picture, heard
        spans = speaker_spans(source, self.recipe)
        return spans, source.track.has_face, audio

    def cut_crops(self, path: Path, spans: Sequence[Span]) -> Iterator[tuple[int, Span, np.ndarray]]:
        """Run the second pass: yield (first frame, span, crops [F,S,S,3]), up to ``video.clip_frames`` frames each."""
        video, needed = self.recipe.video, shortest_clip(self.recipe)
        pieces = [
            (span, start, min(start + video.clip_frames, span.end))
            for span in spans
            for start in range(span.start, span.end, video.clip_frames)
        ]
        waiting = iter(piece for piece in pieces if piece[2] - piece[1] >= needed)
        current = next(waiting, None)
        crops: list[np.ndarray] = []
        frames = read_video(path, fps=FPS, deadline=self.clock.deadline)
        for n, frame in enumerate(self.clock.timed("decode", frames)):
            if current is None:
                return
            span, start, end = current
            if n < start:
                continue
            with self.clock("crop"):
                frame = frame if span.area is None else span.area.cut(frame)
                crops.append(crop(frame[None], span.boxes[n - span.start][None], video.size)[0])
            if n == end - 1:
                yield start, span, np.stack(crops)
                crops, current = [], next(waiting, None)

    def clip_of(
        self,
        path: Path,
        frames: np.ndarray,
        start: int,
        span: Span,
        audio: StoredSound,
        *,
        shift: int = 0,
        scores: dict[str, float] | None = None,
    ) -> Clip:
        """Build the clip of crops [F,S,S,3] that begin at frame ``start`` of a video with the sound ``audio`` [N].

        Its face mask is a mean lower face until `with_masks`.

        Args:
            shift: frames by which the sound is cut later than the picture.
            scores: mapping that receives the values of all checks.

        Raises:
            Rejected: the clip fails a check of its sound, its face's size or its face's motion.
        """
        count, size = frames.shape[:2]
        rows = slice(start - span.start, start - span.start + count)
        scores = {} if scores is None else scores
        sound, before, after, covered = cut_sound(audio, start + shift, count)
        scores |= check_sound(sound, covered=covered)
        scores |= check_face_size(span.boxes[rows], size)
        if span.area is not None:
            scores["letterbox"] = span.area.share
        if span.faces is not None and span.lead is not None:
            scores |= check_speaker(span.faces[rows], span.lead[rows], self.recipe.screen.speaker_lead)
        points = crop_points(span.landmarks[rows], span.boxes[rows], size)
        face_mask = lower_face_masks(points, size, size)
        scores |= check_motion(frames, points, face_mask)
        # The folder often names the speaker or the recording.
        name = f"{path.resolve().parent.name}/{path.name}"
        source = f"{name}:{start}-{start + count}"
        return Clip(
            clip_id=clip_id_of(source, frames, sound),
            source=source,
            speaker=name,
            frames=frames,
            audio=sound,
            sound_before=before if len(before) else None,
            sound_after=after if len(after) else None,
            landmarks=points,
            face_mask=face_mask,
            lip_mask=lip_masks(points, size, size),
            occluder_mask=np.zeros((count, size, size), bool),
        )

    def with_masks(self, clip: Clip, *, start: int, span: Span, references: np.ndarray | None = None) -> Clip:
        """Return the clip with the masks of the recipe.

        Args:
            start: first frame of the clip in the video.
            span: the clip's span.
            references: uint8 [K,S,S,3], crops of another segment of the video.

        Raises:
            Rejected: a frame has no face mask.
        """
        views = self._masks.views(clip.frames, start, span, clip.landmarks)
        face = self._masks.face(views)
        occluders = self._masks.occluders(views, face)
        return replace(clip, face_mask=face, occluder_mask=occluders, references=references)
