"""Arrays larger than memory: rows in files of bounded size, each whole or absent, read a few rows at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from uva_agents.data.shard_files import FILES, NPY, data_offset
from uva_agents.data.shard_plan import ShardPlan, read_plan
from uva_agents.errors import DataError, MachineError
from uva_agents.utils.files import check_folder_target, replacing, write_text
from uva_agents.utils.memory import in_words

_END = b"UVASHARD"
_WAIT_S = 0.5
_LARGE_ROW = 4096
"""Bytes of rows that are read; smaller ones are looked at through maps."""
_MOST_SCRATCH = 64 << 20
_SCRATCH = threading.local()


class Shards:
    """A folder of shards: ``000000.npy``, ... and ``index.json``, which says how the array is cut up.

    Every shard is a ``.npy`` file, with a note behind the array: a digest of its content, and what its maker had to say. It becomes
    visible when it is whole, so that whoever was killed goes on with those that are there.

    Args:
        folder: of this array alone.
        plan: of a new one. What is there already keeps the plan that it was begun with.
    """

    def __init__(self, folder: Path, plan: ShardPlan) -> None:
        self.folder = folder
        self.plan = self._begun(plan) or plan

    @classmethod
    def there(cls, folder: Path) -> Shards | None:
        """What an earlier process has begun in a folder, or ``None``."""
        plan = read_plan(folder / "index.json")
        return None if plan is None else cls(folder, plan)

    def path(self, number: int) -> Path:
        """Of a shard."""
        return self.folder / f"{number:06d}.npy"

    def missing(self) -> list[int]:
        """Numbers of shards that are not there, or not whole."""
        return [number for number in range(self.plan.count) if not self._is_whole(number)]

    def missing_bytes(self) -> int:
        """What they will take on disk."""
        return sum((end - begin) * self.plan.row_bytes for begin, end in map(self.plan.bounds, self.missing()))

    @contextlib.contextmanager
    def writing(self) -> Iterator[list[int]]:
        """Makes the folder and gives the numbers of the missing shards, to one process at a time: others wait until it is done.

        Raises:
            MachineError: the folder cannot be written, or the disk has no space for what is missing.
        """
        check_folder_target(self.folder, space=0)
        with _lock(self.folder / ".lock") as alone:
            for partial in (
                self.folder.glob(".*.partial.npy") if alone else ()
            ):  # of a process that was killed while it wrote
                partial.unlink(missing_ok=True)
            if self._begun(self.plan) != self.plan:
                write_text(self.folder / "index.json", self.plan.to_json())
            self.check_space()
            yield self.missing()

    def check_space(self) -> None:
        """That the disk has space for what is missing.

        Raises:
            MachineError: it has not.
        """
        need, there = self.missing_bytes(), next(p for p in (self.folder, *self.folder.parents) if p.exists())
        free = shutil.disk_usage(there).free
        if need > free:
            raise MachineError(f"{self.folder} needs {in_words(need)}, and {in_words(free)} are free there: {_REMEDY}")

    def write(self, number: int, chunks: Iterable[np.ndarray], note: Mapping[str, Any] | None = None) -> None:
        """Write a shard, chunk after chunk of rows (n, ...).

        Args:
            note: kept with it; read when the last chunk is written, so it may be filled meanwhile.

        Raises:
            MachineError: it cannot be written; of a full disk, with what is needed. What is whole stays.
        """
        begin, end = self.plan.bounds(number)
        digest, rows = hashlib.blake2b(digest_size=16), 0
        try:
            with replacing(self.path(number)) as partial, partial.open("wb") as file:
                self._write_header(file, end - begin)
                for chunk in chunks:
                    chunk = np.ascontiguousarray(chunk, np.dtype(self.plan.dtype))
                    digest.update(chunk.data)
                    file.write(chunk.data)
                    rows += len(chunk)
                if rows != end - begin:
                    raise ValueError(f"shard {number} of {self.folder} got {rows} rows, {end - begin} were expected")
                text = json.dumps({"digest": digest.hexdigest(), **(note or {})}).encode()
                file.write(text + len(text).to_bytes(8, "little") + _END)
        except MachineError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            need = in_words(self.missing_bytes())
            raise MachineError(
                f"the disk is full: {self.folder} needs {need} more; what is whole stays: {_REMEDY}"
            ) from error
        FILES.forget(str(self.path(number)))

    def note(self, number: int) -> dict[str, Any]:
        """What was written with a shard that is whole.

        Raises:
            DataError: it is damaged.
        """
        found = self._read_note(number)
        if found is None:
            raise DataError(f"{self.path(number)} is damaged: delete it, and start again: it alone is made anew")
        return found

    @cached_property
    def digest(self) -> str:
        """Of the content of all shards, wherever they lie."""
        parts = [self.note(number)["digest"] for number in range(self.plan.count)]
        return hashlib.sha256(json.dumps([self.plan.to_json(), parts]).encode()).hexdigest()[:20]

    def array(self) -> ShardedArray:
        """All rows.

        Raises:
            DataError: a shard is missing.
        """
        if missing := self.missing():
            raise DataError(f"{self.path(missing[0])} is missing or damaged: start again, it is made anew")
        return ShardedArray(self)

    # -- files ---------------------------------------------------------------------------------------------------------

    def _begun(self, wanted: ShardPlan) -> ShardPlan | None:
        """The plan of what is there, if it is of the same array."""
        plan = read_plan(self.folder / "index.json")
        same = plan is not None and (plan.rows, plan.shape, plan.dtype) == (wanted.rows, wanted.shape, wanted.dtype)
        return plan if same else None

    def _write_header(self, file: BinaryIO, rows: int) -> None:
        shape = (rows, *self.plan.shape)
        header = {"descr": np.dtype(self.plan.dtype).str, "fortran_order": False, "shape": shape}
        NPY.write_array_header_1_0(file, header)

    def _is_whole(self, number: int) -> bool:
        return self._read_note(number) is not None

    def _read_note(self, number: int) -> dict[str, Any] | None:
        begin, end = self.plan.bounds(number)
        try:
            with self.path(number).open("rb") as file:
                offset = data_offset(file, (end - begin, *self.plan.shape), np.dtype(self.plan.dtype))
                size = file.seek(0, os.SEEK_END)
                last = offset + (end - begin) * self.plan.row_bytes
                if size < last + 16:
                    return None
                file.seek(last)
                tail = file.read(1 << 20)
            text, length, mark = tail[:-16], tail[-16:-8], tail[-8:]
            if mark != _END or int.from_bytes(length, "little") != len(text):
                return None
            found = json.loads(text)
            return found if isinstance(found, dict) and isinstance(found.get("digest"), str) else None
        except (OSError, ValueError):
            return None


class ShardedArray:
    """(N, ...) rows of shards, indexed like an array: by number, slice, or numbers of any shape. Every index makes a copy.

    Pickled, it is the name of its folder: other processes map the same files.
    """

    def __init__(self, shards: Shards) -> None:
        plan = shards.plan
        self.shards = shards
        self.shape = (plan.rows, *plan.shape)
        self.dtype = np.dtype(plan.dtype)
        self.ndim = len(self.shape)
        self._row_bytes, self._per_shard = plan.row_bytes, plan.rows_per_shard
        self._paths = [str(shards.path(number)) for number in range(plan.count)]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, slice):
            rows = np.arange(*key.indices(len(self)))
        else:
            rows = np.asarray(key)
            if rows.dtype.kind not in "iu":
                raise TypeError(f"rows of shards are given by numbers, got {rows.dtype}")
            if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= len(self)):
                raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        return self._gather(rows.reshape(-1)).reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows on disk cannot be had without a copy")
        found = self[:]
        return found if dtype is None else found.astype(dtype)

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        if self._row_bytes >= _LARGE_ROW or len(rows) == int(rows[-1]) - int(rows[0]) + 1:
            return self._read(rows)
        FILES.touched(len(rows), self._row_bytes)
        first, last = int(rows.min()) // self._per_shard, int(rows.max()) // self._per_shard
        if first == last:
            return self._shard(first).take(rows - first * self._per_shard, axis=0)
        # In the order of the files, one copy for each shard, and one that puts rows where they belong.
        order = np.argsort(rows)
        ordered, found = rows[order], self._scratch(len(rows))
        cuts = np.searchsorted(ordered, np.arange(first, last + 2) * self._per_shard).tolist()
        for number, begin, end in zip(range(first, last + 1), cuts[:-1], cuts[1:], strict=True):
            if begin < end:
                local = ordered[begin:end] - number * self._per_shard
                np.take(self._shard(number), local, axis=0, out=found[begin:end], mode="clip")
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return found.take(back, axis=0)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Every run of rows that lie together at one stroke, to where it belongs."""
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        which, local = np.divmod(rows, self._per_shard)
        cuts = np.flatnonzero((np.diff(rows) != 1) | (np.diff(which) != 0)) + 1
        for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(rows)], strict=True):
            number = int(which[begin])
            FILES.read(self._paths[number], self._shard_shape(number), int(local[begin]), out[begin:end])
        return out

    def _scratch(self, rows: int) -> np.ndarray:
        """Memory of this thread, written over by its next call: new pages cost more than what is copied into them."""
        size = rows * self._row_bytes
        if size > _MOST_SCRATCH:
            return np.empty((rows, *self.shape[1:]), self.dtype)
        kept: np.ndarray | None = getattr(_SCRATCH, "memory", None)
        if kept is None or len(kept) < size:
            kept = _SCRATCH.memory = np.empty(size, np.uint8)
        return kept[:size].view(self.dtype).reshape(rows, *self.shape[1:])

    def _shard(self, number: int) -> np.ndarray:
        return FILES.mapped(self._paths[number], self._shard_shape(number), self.dtype)

    def _shard_shape(self, number: int) -> tuple[int, ...]:
        return (min(self._per_shard, len(self) - number * self._per_shard), *self.shape[1:])


_REMEDY = "free some, or put the run on a larger disk (--out)"


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Waits until no other process has it. False where locks are unknown: there, two that share a folder do the same work twice."""
    alone = False
    with path.open("ab") as file:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            while not alone:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    alone = True
                except BlockingIOError:
                    time.sleep(_WAIT_S)
        yield alone
