"""A data set that is being written: workers write shards, and one driver commits their facts and ledger rows.

The order of a commit is: the shards, which workers wrote; manifest.json, once; a part of the manifest; a part of the
ledger. A kill between any two leaves a data set with all earlier commits, and no ledger row "kept" lacks its clip.
When the next writer opens the set, shards that no commit names are added if the ledger has rows "kept" of their clips,
or if nothing else is known of the set. Others are removed, because their inputs have no rows, so they are done again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from xdub.data.columns import Shards
from xdub.data.hash_index import HashIndex, text_hash, text_hashes
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.locks import SPEAKERS, WRITER, locked
from xdub.data.manifest import MANIFEST, SHARD_NAME, Manifest, check_shards, sha256_of
from xdub.data.manifest_files import (
    ShardFacts,
    facts_table,
    load_columns,
    manifest_parts,
    record_recipe,
    speaker_parts,
    write_head,
)
from xdub.data.shard_files import UNFINISHED, read_facts
from xdub.errors import UserError
from xdub.files.storage import Location, locate

CONTENT_NAME = re.compile(r"shard-[0-9a-f]{16}\.parquet")
"""Names of shards that commits of this version add."""
YOUNG = 24 * 3600
"""Seconds within which a shard of an object store, which has no locks, may belong to another writer."""


class DataSet:
    """Writer of the data set DIR, new or existing; a data set has one writer at a time, from `__init__` to `close`.

    ``kind`` ("clips" or "pairs") is by default the kind of the first shard. ``recipe`` is stored in manifest.json.
    """

    def __init__(self, folder: str | Path | Location, *, kind: str | None = None, recipe: Any = None) -> None:
        """Open or create a data set.

        Raises:
            UserError: another process writes DIR, or DIR holds the other kind or has another recipe.
        """
        check_utf8(str(folder))
        self.folder = locate(folder)
        try:
            self.folder.make_folder()
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be created ({error.strerror}); choose another folder"
            ) from error
        self.kind, self.recipe = kind, recipe
        self._lock = ExitStack()
        try:
            busy = f"{self.folder}: another process writes this data set; wait for it"
            self._lock.enter_context(locked(self.folder, WRITER, busy=busy))
            self._open()
        except BaseException:
            self._lock.close()
            raise

    def _open(self) -> None:
        """Read what is recorded, and remove what a killed writer left."""
        self._has_head = False
        self._ids, self._files = HashIndex(), HashIndex()
        self._manifest = manifest_parts(self.folder)
        speaker_parts(self.folder).remove_torn()
        names, parts = self.folder.sizes(), self._manifest.parts
        if MANIFEST in names:
            self._resume(names)
        elif parts:
            raise UserError(
                f"{self.folder}: {MANIFEST} is missing, but {self._manifest.folder} lists shards; copy it again"
            )
        self._clean(names)
        if self.kind is not None:
            self.write_head()

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger of the data set."""
        return Ledger(self.folder, repair=True)

    def __contains__(self, clip_id: str) -> bool:
        return text_hash(clip_id) in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def commit(
        self,
        facts: Sequence[ShardFacts],
        ledger_rows: Iterable[LedgerRow] = (),
        *,
        dropped: Iterable[str] = (),
    ) -> int:
        """Add shards that are complete in the folder, then ledger rows; return the number of new clips.

        A clip that the data set has does not count a second time. A shard without a new clip is removed, and so is each
        file of ``dropped`` that no commit names.
        """
        for each in facts:
            if not has_own_name(each):
                raise ValueError(f"{each.file!r} is not the name of a shard with sha256 {each.sha256}")
        added = self._add(facts)
        for file in dropped:
            self._remove_unnamed(file)
        rows = list(ledger_rows)
        if rows or "ledger" in vars(self):
            with self.ledger.whole():
                for row in rows:
                    self.ledger.add(row)
                self.ledger.flush()
        return added

    def _add(self, facts: Sequence[ShardFacts]) -> int:
        """Add shards to the manifest; return the number of new clips."""
        counted = [self._counted(each) for each in facts]
        new = [each for each in counted if len(each.skipped) < each.rows]
        if new:
            self._check_present(new)
            self.write_head()
            self._manifest.append(facts_table(new))
            for each in new:
                self._files.set(text_hash(each.file), 1)
        for each in counted:
            self._remove_unnamed(each.file)
        return sum(each.rows - len(each.skipped) for each in new)

    def _check_present(self, facts: Sequence[ShardFacts]) -> None:
        """Raise UserError if a shard is missing in an object store, where no lock stops another writer."""
        for each in facts if self.folder.local is None else ():
            path = self.folder / each.file
            if not path.is_file():
                raise UserError(f"{path}: was removed, perhaps by another writer; run the same command again")

    def _remove_unnamed(self, file: str) -> None:
        """Remove a shard that no commit names; a worker may have written one again that a commit names."""
        if text_hash(file) not in self._files:
            (self.folder / file).delete()

    def compact(self) -> tuple[int, int]:
        """Merge the parts of manifest, ledger and speakers; return their number before and after."""
        with locked(self.folder, SPEAKERS):
            folders = [self._manifest, self.ledger.parts, speaker_parts(self.folder)]
            before = sum(parts.compact() for parts in folders)
            return before, sum(len(parts.parts) for parts in folders)

    def write_head(self) -> None:
        """Write manifest.json unless it is there."""
        if not self._has_head:
            write_head(self.folder, self.kind or "clips", self.recipe)
            self._has_head = True

    def close(self) -> None:
        """Write manifest.json, if no commit did, and the rest of the ledger; another process may then write DIR."""
        try:
            self.write_head()
            if "ledger" in vars(self):
                self.ledger.flush()
        finally:
            self.release()

    def release(self) -> None:
        """Let another process write DIR. Nothing is written."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        try:
            # Keep complete rows if the caller fails, unless the disk failed.
            if error_type is None or not issubclass(error_type, (OSError, UserError)):
                self.close()
        finally:
            self.release()

    def check_kind(self, kind: str, clip_id: str) -> None:
        """Raise UserError unless the data set holds clips of a kind; the first clip of a new set decides."""
        self.kind = self.kind or kind
        if kind != self.kind:
            raise UserError(f"{self.folder} holds {self.kind}; {kind} such as {clip_id} need another folder")

    def _counted(self, facts: ShardFacts) -> ShardFacts:
        """Add the ids of a shard; return its facts with the rows whose clips were known."""
        self.check_kind(facts.kind, facts.ids[0])
        skipped = []
        for row, clip_id in enumerate(facts.ids):
            key = text_hash(clip_id)
            if key in self._ids:
                skipped.append(row)
            else:
                self._ids.set(key, 1)
        return replace(facts, skipped=tuple(skipped))

    def _resume(self, sizes: dict[str, int]) -> None:
        manifest = Manifest(**load_columns(self.folder))
        check_shards(manifest, sizes, verify=False)
        if manifest.ids and self.kind not in (None, manifest.kind):
            raise UserError(f"{self.folder} holds {manifest.kind}, not {self.kind}; choose another folder")
        if manifest.ids and None not in (self.recipe, manifest.recipe) and self.recipe != manifest.recipe:
            raise UserError(
                f"{self.folder} was created with another recipe; choose another folder, or remove it"
            )
        # The head of a set without clips may be of another kind or recipe.
        self._has_head = bool(manifest.ids)
        if manifest.ids:
            self.kind = manifest.kind
            if manifest.recipe is None and self.recipe is not None:
                record_recipe(self.folder, self.recipe)
            self.recipe = manifest.recipe if self.recipe is None else self.recipe
        self._ids.update(text_hashes(manifest.ids))
        self._files.update(text_hashes(Shards.of(manifest.shards).file))

    def _clean(self, names: Iterable[str]) -> None:
        """Remove incomplete files; add or remove the shards that no commit names."""
        unknown = []
        for name in names:
            if name.startswith(UNFINISHED):
                self._remove_old(self.folder / name)
            elif SHARD_NAME.fullmatch(name) and text_hash(name) not in self._files:
                unknown.append(self.folder / name)
        if not unknown:
            return
        kept = self.ledger.kept_clips() if MANIFEST in names else None
        added = []
        for path in unknown:
            is_numbered = not CONTENT_NAME.fullmatch(path.name)
            try:
                facts = read_facts(path)
            except UserError:
                if is_numbered or sha256_of(path)[:16] == path.name[6:22]:
                    raise
                # A power cut may leave a file without its content.
                self._remove_old(path)
                continue
            if kept is None or is_numbered or any(text_hash(clip_id) in kept for clip_id in facts.ids):
                facts = replace(facts, sha256=sha256_of(path))
                if not has_own_name(facts):
                    raise UserError(f"{path}: its content does not fit its name; copy it again, or remove it")
                added.append(facts)
            else:
                self._remove_old(path)
        if added:
            self._add(added)

    def _remove_old(self, path: Location) -> None:
        """Remove a file of a killed writer, unless the file may belong to another writer that is active."""
        changed_ns = path.info().mtime_ns
        # Some file systems know no time.
        is_old = changed_ns is not None and time.time() - changed_ns / 1e9 > YOUNG
        if path.local is not None or is_old:
            path.delete()


def has_own_name(facts: ShardFacts) -> bool:
    """Return whether a shard has the name of its content, or a number as in sets of earlier versions."""
    by_content = CONTENT_NAME.fullmatch(facts.file) is not None
    return facts.file[6:22] == facts.sha256[:16] if by_content else bool(SHARD_NAME.fullmatch(facts.file))


def check_utf8(path: str | Path) -> None:
    """Raise UserError for a file name that is not UTF-8 text, which no Parquet file can hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{ascii(str(path))}: the name is not UTF-8 text; rename the file or folder"
        ) from None
