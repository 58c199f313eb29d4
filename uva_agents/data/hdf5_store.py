"""HDF5 files opened for reading, and only what is whole and inside the dataset's folder taken from them.

HDF5 gives its fill value, usually zero, for what was never written, and follows links and external storage to any file.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.data.contained import check_contained, home_of
from uva_agents.data.readers.dataset import MissingExtraError
from uva_agents.errors import DataError, MachineError

if TYPE_CHECKING:
    import h5py

DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
    SystemError,
    AttributeError,
    MemoryError,
)
"""What h5py raises for damage inside of a file."""
_MOST_CHUNK = 4 << 30
_DEEPEST = 8


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, for reading.

    Raises:
        MissingExtraError: h5py is not installed.
        DataError: it is damaged, being written, no hdf5 file, or a link out of its folder.
        MachineError: it may not be read.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is hdf5, which needs h5py: pip install 'uva-agents[data]' (or pip install h5py)"
        ) from error
    check_contained(path, home_of(path))
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise _not_opened(path, error) from error
    except (RuntimeError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be opened; it is damaged, cut short or no hdf5 file: {error}") from error
    try:
        yield file
    finally:
        file.close()


def _not_opened(path: Path, error: OSError) -> DataError | MachineError:
    text = str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return MachineError(f"{path} may not be read: change its rights (chmod +r)")
    if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK) or "unable to lock file" in text:
        return DataError(
            f"{path} is open for writing in another program: wait until that has closed it, or read a copy made after that"
        )
    if "already open for" in text:
        return DataError(
            f"{path} is being written, or the program that wrote it ended without closing it: wait until it is closed; "
            f"if nothing writes it any more, h5clear -s {path} says so in the file"
        )
    return DataError(f"{path} cannot be opened; it is damaged, cut short or no hdf5 file: {text}")


def member(group: h5py.Group, key: str, home: Path, depth: int = 0) -> h5py.Group | h5py.Dataset | None:
    """What a key leads to, link by link, ``None`` if there is no such key.

    Args:
        home: folder that no external link may leave.

    Raises:
        DataError: a link leads nowhere, in circles, or out of the dataset.
    """
    import h5py

    here: Any = group
    for part in key.strip("/").split("/"):
        if not isinstance(here, h5py.Group):
            return None
        link = here.get(part, default=None, getlink=True)
        where = f"{group.file.filename}: {group.name.rstrip('/')}/{key.strip('/')}"
        if link is None:
            return None
        if depth > _DEEPEST:
            raise DataError(f"{where} is a link in circles")
        if isinstance(link, h5py.SoftLink):
            origin = here.file if link.path.startswith("/") else here
            here = member(origin, link.path, home, depth + 1)
            if here is None:
                raise DataError(f"{where} is a link to {link.path}, which does not exist: copy the dataset again")
            continue
        if isinstance(link, h5py.ExternalLink):
            target = Path(here.file.filename).parent / link.filename
            _check_target(target, where, home)
            with open_hdf5(target) as other:
                found = member(other, link.path, home, depth + 1)
                if found is None:
                    raise DataError(f"{where} is a link to {link.path} in {link.filename}, which does not exist")
        here = here[part]
        if isinstance(link, h5py.ExternalLink) and not Path(here.file.filename).resolve().is_relative_to(home):
            raise DataError(f"{where} leads to {here.file.filename}, outside the dataset's folder: it is not opened")
    return here


def check_whole(array: h5py.Dataset, where: str, home: Path, depth: int = 0) -> None:
    """That all of an array was written and lies in this file.

    Raises:
        DataError: never written, in part or at all; stored in other files that are not there or outside.
    """
    import h5py

    if array.external:
        raise DataError(
            f"{where} is stored outside of the hdf5 file, in {array.external[0][0]}: such files are not opened; copy the array in"
        )
    if array.shape is None:
        raise DataError(f"{where} holds nothing")
    if array.is_virtual:
        _check_virtual(array, where, home, depth)
        return
    if not array.size:
        return
    layout = array.id.get_create_plist().get_layout()
    if layout == h5py.h5d.CHUNKED:
        expected = math.prod(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))
        missing = expected - array.id.get_num_chunks()
        if missing > 0:
            raise DataError(
                f"{where} is incomplete: {missing} of {expected} chunks were never written, and would be read as "
                f"{_fill(array)}; copy or record it again"
            )
        if math.prod(array.chunks) * array.dtype.itemsize > _MOST_CHUNK:
            raise DataError(f"{where} has chunks of more than {_MOST_CHUNK:,} bytes: that is not read")
    elif layout == h5py.h5d.CONTIGUOUS:
        stored = array.id.get_storage_size()
        if not stored:
            raise DataError(
                f"{where} is incomplete: it was never written, and would be read as {_fill(array)}; copy or record it again"
            )
        expected = array.size * array.id.get_type().get_size()
        if stored != expected:
            raise DataError(f"{where} is damaged: it says {expected:,} bytes and has {stored:,}; copy it again")


def read_array(array: h5py.Dataset, where: str, rows: slice = slice(None)) -> np.ndarray:
    """Rows of an array.

    Raises:
        DataError: HDF5 cannot read them.
    """
    try:
        return np.asarray(array[rows])
    except DAMAGE as error:
        raise DataError(f"{where} cannot be read: {one_line(error)}; copy it again") from error


def one_line(error: BaseException) -> str:
    """What an error says, briefly."""
    text = " ".join(str(error).split())
    return (text if len(text) <= 200 else f"{text[:197]}...") or type(error).__name__


def _check_target(file: Path, where: str, home: Path) -> None:
    """That another file which an array is taken from is there, and in the dataset's folder."""
    try:
        check_contained(file, home)
    except FileNotFoundError:
        raise DataError(f"{where} is taken from {file}, which is not there: copy it too") from None
    except DataError as error:
        raise DataError(f"{where} is taken from elsewhere: {error}") from error


def _check_virtual(array: h5py.Dataset, where: str, home: Path, depth: int) -> None:
    if depth > _DEEPEST:
        raise DataError(f"{where} is put together from itself")
    mapped = 0
    for source in array.virtual_sources():
        count = source.vspace.get_select_npoints()
        if "%" in source.file_name or "%" in source.dset_name or not isinstance(count, int):
            raise DataError(f"{where} is put together from files without an end: that is not read")
        mapped += count
        own = Path(array.file.filename)
        target = own if source.file_name == "." else own.parent / source.file_name
        _check_target(target, where, home)
        with open_hdf5(target) as other:
            found = member(other, source.dset_name, home)
            if found is None or not hasattr(found, "dtype"):
                raise DataError(
                    f"{where} is put together from {source.dset_name} in {source.file_name}, which is not there"
                )
            check_whole(found, f"{target}: {source.dset_name}", home, depth + 1)
            if source.src_space.get_select_npoints() > found.size:
                raise DataError(f"{where} wants more of {source.dset_name} in {source.file_name} than there is")
    if mapped < array.size:
        raise DataError(
            f"{where} is incomplete: {array.size - mapped} of its {array.size} numbers come from nowhere, and would be read as "
            f"{_fill(array)}"
        )


def _fill(array: h5py.Dataset) -> str:
    try:
        return f"{array.fillvalue!r}".removeprefix("np.")
    except DAMAGE:
        return "zeros"
