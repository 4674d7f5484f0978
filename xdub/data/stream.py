"""Streams of training batches without end: deterministic, and resumable at a cursor.

`LocalStream` reads batches in this process, `RayStream` in a pool of Ray Data actors. Both yield bit-identical batches.
The state of a stream is one integer, the cursor, so a resume costs nothing. Batches are NumPy arrays, and this module
does not import torch, which would cost each actor seconds and 0.2 GB.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np

from xdub.data.batch import RawBatch
from xdub.data.quarantine import BadRow
from xdub.data.sample_order import micro_batches
from xdub.data.samples import SampleMaker, StreamSpec
from xdub.errors import UserError
from xdub.ray_session import hush

log = logging.getLogger(__name__)
LOCAL_CACHE_BYTES = 2 << 30
"""Bytes of decoded clips that a `LocalStream` keeps."""
ACTOR_CACHE_BYTES = 256 << 20
"""Bytes of decoded clips that each data actor keeps."""
FIRST_STEPS = 4
"""Number of global batches that a rank reads itself while its actors start."""
NO_PROGRESS_SECONDS = 300
"""Time without a finished task after which Ray Data raises an error, e.g. when no CPU is free for its actors."""


class Stream:
    """Batches of one rank, `micro_batch` samples each, from `cursor` on. A stream is iterated once.

    `wait_seconds` is the total time that the consumer waited for data, `last_wait` the time for the last batch. `bad`
    collects {clip_id: BadRow} of unreadable rows; more than spec.max_bad of the data raise UserError.
    """

    def __init__(self, spec: StreamSpec, *, cursor: int = 0, steps: int | None = None) -> None:
        """`cursor` counts samples consumed by all ranks; the stream ends after `steps` global batches, or never."""
        self.spec, self.order = spec, spec.order()
        self.cursor, self.steps = cursor, steps
        self.wait_seconds = self.last_wait = 0.0
        self.bad: dict[str, BadRow] = {}
        if self.order.too_short:
            log.warning("%d clips are shorter than a window of %d frames", self.order.too_short, spec.window)

    @property
    def batches_per_step(self) -> int:
        """Number of batches of one global batch on this rank."""
        return self.spec.global_batch // (self.spec.world_size * self.spec.micro_batch)

    def __iter__(self) -> Iterator[RawBatch]:
        spec = self.spec
        positions = micro_batches(
            self.cursor,
            global_batch=spec.global_batch,
            micro_batch=spec.micro_batch,
            rank=spec.rank,
            world_size=spec.world_size,
        )
        count = None if self.steps is None else self.steps * self.batches_per_step
        batches = self._batches(itertools.islice(positions, count))
        try:
            for number in itertools.count(1):
                begin = time.perf_counter()
                batch = next(batches, None)
                self.last_wait = time.perf_counter() - begin
                self.wait_seconds += self.last_wait
                if batch is None:
                    return
                self._note(batch["bad"])
                if number % self.batches_per_step == 0:
                    self.cursor += spec.global_batch
                yield batch
        finally:
            batches.close()

    def _batches(self, positions: Iterator[range]) -> Generator[RawBatch]:
        raise NotImplementedError

    def _note(self, bad: dict[str, BadRow]) -> None:
        for clip_id, row in bad.items():
            if clip_id not in self.bad:
                log.warning("quarantined clip %s: %s", clip_id, row.error)
        # Keep the first error of each clip.
        self.bad = bad | self.bad
        allowed = max(1, int(self.spec.max_bad * len(self.order)))
        if len(self.bad) > allowed:
            name, row = next(iter(bad.items()))
            raise UserError(
                f"{len(self.bad)} of {len(self.order)} clips cannot be read (at most {allowed} may fail), last "
                f"{name}: {row.error}; copy or create the data set again"
            )


class LocalStream(Stream):
    """Stream that reads each batch in this process on demand and keeps up to `cache_bytes` of decoded clips.

    There is no prefetching thread, because it would compete with the model for the interpreter's lock.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        cursor: int = 0,
        steps: int | None = None,
        cache_bytes: int = LOCAL_CACHE_BYTES,
    ) -> None:
        super().__init__(spec, cursor=cursor, steps=steps)
        self._maker = SampleMaker(spec, self.order, cache_bytes)

    def _batches(self, positions: Iterator[range]) -> Generator[RawBatch]:
        for batch_positions in positions:
            yield self._maker.batch(batch_positions)


class RayStream(Stream):
    """Stream that reads batches in Ray Data actors. Ray must be running; actors need CPUs that the trainers leave free.

    Actors that die are restarted and repeat their batches; the order is preserved. Positions are submitted in chunks,
    so the start takes the same time for an epoch of any length. The first few batches are read in this process, because
    actors take seconds to start.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        cursor: int = 0,
        steps: int | None = None,
        actors: tuple[int, int] = (1, 2),
        actor_cpus: float = 0.25,
        actor_gpus: float = 0.0,
        prefetch: int = 2,
        chunk_batches: int = 4096,
        cache_bytes: int = ACTOR_CACHE_BYTES,
    ) -> None:
        super().__init__(spec, cursor=cursor, steps=steps)
        self.actors, self.actor_cpus, self.actor_gpus = actors, actor_cpus, actor_gpus
        self.prefetch, self.chunk_batches, self.cache_bytes = prefetch, chunk_batches, cache_bytes

    def _batches(self, positions: Iterator[range]) -> Generator[RawBatch]:
        import ray

        if not ray.is_initialized():
            raise RuntimeError("RayStream needs a running Ray: ray.init() first, or use LocalStream")
        first = list(itertools.islice(positions, FIRST_STEPS * self.batches_per_step))
        remote = self._remote_batches(positions)
        with contextlib.closing(remote):
            with ThreadPoolExecutor(1, "first-remote-batch") as pool:
                waiting = pool.submit(lambda: next(remote, None))
                yield from self._own_batches(first)
            if (batch := waiting.result()) is not None:
                yield batch
                yield from remote

    def _own_batches(self, positions: list[range]) -> Generator[RawBatch]:
        """Read batches in this process; its shards are closed afterwards."""
        maker = SampleMaker(self.spec, self.order)
        for batch_positions in positions:
            yield maker.batch(batch_positions)

    def _remote_batches(self, positions: Iterator[range]) -> Generator[RawBatch]:
        """Read batches in actors, which start with the first batch and end with the last."""
        import ray
        from ray.data import ActorPoolStrategy

        size = self.spec.micro_batch
        while chunk := list(itertools.islice(positions, self.chunk_batches)):
            items = [{"position": position} for batch_positions in chunk for position in batch_positions]
            # Each block is one batch.
            data = ray.data.from_items(items, override_num_blocks=len(chunk))
            data.context.execution_options.preserve_order = True
            hush(data)
            # `_Pause` has Ray's interface but does not inherit it, because a subclass would import Ray at the top.
            callbacks: list[Any] = [_Pause]
            data.context.custom_execution_callback_classes = callbacks
            data.context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS
            data = data.map_batches(
                BatchActor,
                fn_constructor_args=(self.spec, self.cache_bytes, self.order.digest),
                batch_size=size,
                compute=ActorPoolStrategy(min_size=self.actors[0], max_size=self.actors[1]),
                num_cpus=self.actor_cpus,
                num_gpus=self.actor_gpus,
            )
            batches = data.iter_batches(batch_size=size, batch_format="numpy", prefetch_batches=self.prefetch)
            try:
                # Closing ends the actors at once if the consumer stops early, not at garbage collection. Ray's iterator
                # is a generator, although its annotation is wider.
                with contextlib.closing(cast(Generator[dict[str, np.ndarray]], iter(batches))) as running:
                    for columns in running:
                        yield _from_columns(columns)
            except ray.exceptions.RayError as error:
                if (cause := _user_error(error)) is error:
                    raise
                raise cause from error


class _Pause:
    """Callback that pauses each turn of Ray Data's scheduler, which is a thread of the trainer.

    The scheduler spins while finished batches wait for the consumer, which is always the case in training. It used four
    fifths of a core and the interpreter's lock between operators of the model: a step of the tiny recipe took 3.1 s on
    two cores, and takes 1.5 s with the pause. Batches are read ahead, so the pause delays no step.
    """

    SECONDS = 0.02
    """Length of the pause."""

    def before_execution_starts(self, executor: Any) -> None:
        """Do nothing; Ray's interface has this method."""

    def on_execution_step(self, executor: Any) -> None:
        """Pause one turn of the scheduler."""
        time.sleep(self.SECONDS)

    def after_execution_succeeds(self, executor: Any) -> None:
        """Do nothing; Ray's interface has this method."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Do nothing; Ray's interface has this method."""


class BatchActor:
    """A Ray Data worker that reads positions and returns samples as columns."""

    def __init__(self, spec: StreamSpec, cache_bytes: int, digest: str) -> None:
        """``digest`` is that of the order by which the trainer counts positions."""
        self._maker = SampleMaker(spec, cache_bytes=cache_bytes)
        self._is_same = self._maker.order.digest == digest

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the batch at the positions of a block, as columns with one row per sample.

        Raise UserError if the data changed since the trainer read them, because positions then mean other clips.
        """
        if not self._is_same:
            folders = ", ".join(str(manifest.folder) for manifest in self._maker.order.manifests)
            raise UserError(
                f"{folders}: changed since the training began to read; train once the data are complete"
            )
        batch = self._maker.batch([int(position) for position in rows["position"]])
        count = len(batch["sample_id"])
        columns = {name: value for name, value in batch.items() if isinstance(value, np.ndarray)}
        columns["starts"] = np.tile(batch["starts"], (count, 1))
        columns["sample_id"] = np.array(batch["sample_id"])
        columns["bad"] = np.array([json.dumps(batch["bad"])] * count)
        return columns


def _from_columns(columns: dict[str, np.ndarray]) -> RawBatch:
    others = {name: columns.pop(name) for name in ("sample_id", "bad")}
    # Ray's arrays are read-only views of its object store, and a batch may be changed and kept.
    batch: dict[str, Any] = {name: np.array(value) for name, value in columns.items()}
    batch["starts"] = batch["starts"][0].copy()
    batch["sample_id"] = [str(name) for name in others["sample_id"]]
    batch["epoch"] = int(batch["epochs"][0])
    bad = json.loads(str(others["bad"][0]))
    batch["bad"] = {clip_id: BadRow(*row) for clip_id, row in bad.items()}
    return cast(RawBatch, batch)


def _user_error(error: BaseException) -> BaseException:
    """Return the UserError that an actor raised, rebuilt from the text that Ray keeps, or else the error itself."""
    messages = re.findall(r"^xdub\.errors\.UserError: (.+)$", str(error), flags=re.MULTILINE)
    return UserError(messages[-1]) if messages else error
