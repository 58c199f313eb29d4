"""The files of a zarr dataset, folder or zip: listed, held against what they promise, and read only when they are whole.

zarr reads a chunk that is not there as zeros, decodes a truncated one from whatever memory follows, and allocates what a header
claims. Everything that zarr gets comes through here and is checked first.
"""

from __future__ import annotations

import bz2
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore, ZipStore

from uva_agents.data.contained import check_contained, home_of
from uva_agents.errors import DataError, MachineError

_METADATA = (".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json")
_MOST_METADATA = 64 << 20
"""Bytes of a metadata file."""
_SLACK = 1 << 16
_DEFLATE = 1040
"""Deflate makes nothing smaller than this many times."""
_HARMLESS = 256 << 20
"""Bytes that a chunk may unpack to unseen."""


@dataclass(frozen=True)
class ChunkRule:
    """What every chunk of an array must be.

    Attributes:
        size: bytes of an unpacked chunk.
        exact: whether what the compressor gives has exactly that size.
        compressor: its name, empty for none.
    """

    size: int
    exact: bool
    compressor: str

    def check(self, stored: bytes, name: str) -> None:
        """Hold a stored chunk against the rule before anything is unpacked.

        Raises:
            DataError: it is cut short, or unpacks to another size.
        """
        self.check_header(stored, len(stored), name)
        if self.compressor in ("bz2", "lzma") or (
            self.compressor in ("zlib", "gzip") and len(stored) * _DEFLATE > _HARMLESS
        ):
            claimed = _unpacked_size(stored, self.compressor, self.size * (1 if self.exact else 16) + 1)
            self._check_size(claimed, name)

    def check_header(self, begin: bytes, size: int, name: str) -> None:
        """The same of a chunk's first bytes (32 are enough) and its size on disk.

        Raises:
            DataError: see :meth:`check`.
        """
        if not size:
            raise DataError(f"{name} is empty: it is damaged; copy the dataset again")
        claimed: int | None = None
        if not self.compressor:
            claimed = size
        elif self.compressor == "blosc":
            packed = int.from_bytes(begin[12:16], "little") if len(begin) >= 16 else -1
            if packed != size:
                raise DataError(
                    f"{name} has {size} bytes, its header says {packed}: it is damaged; copy the dataset again"
                )
            claimed = int.from_bytes(begin[4:8], "little")
        elif self.compressor == "zstd":
            claimed = _zstd_size(begin)
        elif self.compressor == "lz4":  # numcodecs puts the size before
            claimed = int.from_bytes(begin[:4], "little") if len(begin) >= 4 else -1
        self._check_size(claimed, name)

    def _check_size(self, claimed: int | None, name: str) -> None:
        if claimed is not None and claimed != self.size and (self.exact or claimed > 16 * self.size + _SLACK):
            raise DataError(
                f"{name} says it unpacks to {claimed:,} bytes, a chunk of this array has {self.size:,}: it is damaged; "
                "copy the dataset again"
            )


def _zstd_size(stored: bytes) -> int | None:
    """Content size in the header of a zstandard frame, if it has one."""
    if len(stored) < 6 or stored[:4] != b"\x28\xb5\x2f\xfd":
        return -1
    descriptor = stored[4]
    single = bool(descriptor & 0x20)
    size_bytes = {0: 1 if single else 0, 1: 2, 2: 4, 3: 8}[descriptor >> 6]
    at = 5 + (0 if single else 1) + {0: 0, 1: 1, 2: 2, 3: 4}[descriptor & 3]
    if not size_bytes:
        return None
    size = int.from_bytes(stored[at : at + size_bytes], "little")
    return size + 256 if size_bytes == 2 else size


def _unpacked_size(stored: bytes, compressor: str, most: int) -> int | None:
    """Bytes that a stream unpacks to, counted piece by piece up to ``most``; ``None`` if it is damaged: unpacking says so."""
    decoder: Any
    try:
        if compressor in ("zlib", "gzip"):
            decoder = zlib.decompressobj(wbits=47)
            count, rest = 0, stored
            while rest and not decoder.eof and count <= most:
                count += len(decoder.decompress(rest, 1 << 20))
                rest = decoder.unconsumed_tail
            return count
        decoder = bz2.BZ2Decompressor() if compressor == "bz2" else lzma.LZMADecompressor()
        count, rest = 0, stored
        while not decoder.eof and count <= most:
            piece = decoder.decompress(rest, 1 << 20)
            rest = b""
            if not piece and decoder.needs_input:
                break
            count += len(piece)
        return count
    except (zlib.error, OSError, lzma.LZMAError, EOFError):
        return None


class _Checked:
    """Mixed into zarr's stores: what :class:`ZarrFiles` knows of a chunk holds when it is read."""

    rules: dict[str, ChunkRule]
    label: str

    def checked(self, key: str, value: Any, whole: bool) -> Any:
        folder, _, name = key.rpartition("/")
        if name in _METADATA:
            return value
        rule = next((self.rules[prefix] for prefix in _prefixes(folder) if prefix in self.rules), None)
        if rule is None:
            return value
        if value is None:
            raise DataError(f"{self.label}/{key} is missing: copy the dataset again")
        if whole:
            rule.check(value.to_bytes(), f"{self.label}/{key}")
        return value


class _FolderStore(_Checked, LocalStore):
    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        return self.checked(key, await super().get(key, prototype, byte_range), byte_range is None)


class _ZipFileStore(_Checked, ZipStore):
    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        return self.checked(key, await super().get(key, prototype, byte_range), byte_range is None)


class ZarrFiles:
    """A zarr dataset's files, none of them outside it.

    Args:
        path: folder, or zip file.

    Raises:
        FileNotFoundError: nothing there.
        DataError: neither a folder nor a zip file; a damaged zip; an archive that claims more than it can hold.
        MachineError: it may not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise FileNotFoundError(f"no dataset at {path}")
        self.home = home_of(path)
        self.store: _FolderStore | _ZipFileStore
        self._entries: dict[str, zipfile.ZipInfo] | None = None
        if path.is_dir():
            self.store = _FolderStore(path, read_only=True)
        else:
            check_contained(path, self.home)
            self._entries = {entry.filename: entry for entry in _entries(path)}
            self.store = _ZipFileStore(path, mode="r")
        self.store.rules, self.store.label = {}, str(path)

    def close(self) -> None:
        """Close what is open."""
        if getattr(self.store, "_zf", None) is not None:
            self.store.close()

    def children(self, folder: str) -> list[str]:
        """Names of the folders directly in a folder, sorted; empty if there is no such folder."""
        if self._entries is not None:
            prefix = f"{folder}/" if folder else ""
            rests = [name[len(prefix) :] for name in self._entries if name.startswith(prefix)]
            return sorted({rest.split("/", 1)[0] for rest in rests if "/" in rest} - {""})
        self._check_folder(folder)
        try:
            return sorted(
                entry.name for entry in os.scandir(self.path / folder) if entry.is_dir() and entry.name[0] != "."
            )
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise MachineError(f"{self.path / folder} cannot be read: {error.strerror}") from error

    def sizes(self, folder: str) -> dict[str, int]:
        """Every file below a folder, by its key from there -> stored bytes. Metadata files are left away.

        Raises:
            DataError: a link leads out of the dataset, or something is no regular file.
        """
        found: dict[str, int] = {}
        prefix = f"{folder}/"
        self._check_folder(folder)
        if self._entries is not None:
            for name, entry in self._entries.items():
                if name.startswith(prefix) and not name.endswith("/"):
                    found[name[len(prefix) :]] = entry.file_size
        else:
            for key, size in self._walk(self.path / folder, ""):
                found[key] = size
        return {key: size for key, size in found.items() if key.rpartition("/")[2] not in _METADATA}

    def metadata(self, key: str) -> Any:
        """The JSON in a metadata file, ``None`` if it is not there.

        Raises:
            DataError: it is no JSON, too large, no regular file, or leads out of the dataset.
        """
        if self._entries is not None:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry.file_size > _MOST_METADATA:
                raise DataError(f"{self.path}/{key} has {entry.file_size:,} bytes: that is no metadata")
            try:
                with zipfile.ZipFile(self.path) as file:
                    content = file.read(key)
            except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, EOFError) as error:
                raise DataError(f"{self.path}/{key} is damaged: {error}; copy the dataset again") from error
        else:
            try:
                facts = check_contained(self.path / key, self.home)
            except FileNotFoundError:
                return None
            if facts.st_size > _MOST_METADATA:
                raise DataError(f"{self.path}/{key} has {facts.st_size:,} bytes: that is no metadata")
            content = (self.path / key).read_bytes()
        try:
            return json.loads(content.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            what = "is empty" if not content.strip() else f"is no JSON: {error}"
            raise DataError(f"{self.path}/{key} {what}; copy the dataset again") from error

    def _check_folder(self, folder: str) -> None:
        place = self.path / folder
        if self._entries is None and not place.resolve().is_relative_to(self.home):
            raise DataError(
                f"{place} is a link to {place.resolve()}, outside the dataset's folder: what lies outside is not opened"
            )

    def _walk(self, folder: Path, prefix: str, depth: int = 0) -> Iterator[tuple[str, int]]:
        if depth > 12:
            raise DataError(f"{folder}: folders within folders, too deep for an array")
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise MachineError(f"{folder} cannot be read: {error.strerror}") from error
        for entry in entries:
            key = f"{prefix}{entry.name}"
            if entry.name in _METADATA:
                continue  # looked at when it is read
            if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                if entry.is_dir():
                    raise DataError(f"{entry.path} is a link to a folder: copy it into the dataset")
                try:
                    yield key, check_contained(Path(entry.path), self.home).st_size
                except FileNotFoundError:
                    continue  # dangles: as if it were not there
            elif entry.is_dir():
                yield from self._walk(Path(entry.path), f"{key}/", depth + 1)
            else:
                yield key, entry.stat().st_size


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
    except PermissionError as error:
        raise MachineError(f"{path} may not be read: change its rights (chmod +r)") from error
    except Exception as error:  # BadZipFile, and what damage in a directory of names brings: struct, Unicode, overflow
        raise DataError(f"{path} is not a zarr group: {error}; it is damaged, cut short or no zip file") from error
    size = path.stat().st_size
    for entry in entries:
        if entry.flag_bits & 1:
            raise DataError(f"{path}/{entry.filename} is encrypted: pack the dataset without a password")
        most = entry.compress_size if entry.compress_type == zipfile.ZIP_STORED else entry.compress_size * _DEFLATE + 64
        if entry.compress_size > size or entry.file_size > most:
            raise DataError(
                f"{path}/{entry.filename} says it unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes, "
                "which cannot be: the archive is damaged or means harm"
            )
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{path}/{entry.filename} is packed in a way that zarr does not use: pack it with zip -0")
    return entries


def _prefixes(folder: str) -> Iterator[str]:
    """A folder and all above it."""
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
