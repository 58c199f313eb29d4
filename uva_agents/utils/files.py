"""Files that are whole or absent: written at one stroke, checked before long work, read only where they are regular."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from uva_agents.errors import DataError, MachineError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it becomes ``path`` when the block ends well, and is gone when it does not.

    Of a link, the file that it leads to is replaced, not the link. Streams (``/dev/stdout``, pipes, ``/dev/null``) are written to.

    Raises:
        MachineError: the folder cannot be made or written, the disk is full, or something is there that is no file.
    """
    if is_stream(path):
        with _streaming(Path(path)) as partial:
            yield partial
        return
    path = _end_of_links(Path(path))
    _refuse_what_is_no_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=f".partial{path.suffix}")
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {_reason(error)}") from error
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())  # mkstemp makes it private
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise MachineError(f"{path} cannot be written: {_reason(error)}") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """A path to write a folder at, on the disk of ``path``; it takes the place of what is at ``path`` when the block ends well,
    and is gone when it does not. Nothing else beside ``path`` is touched: whatever lies there is somebody's.

    Raises:
        MachineError: the folder above cannot be made or written, or the disk is full.
    """
    path = Path(os.path.abspath(path))  # "." has no name
    check_folder_target(path.parent)
    try:
        hold = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial"))
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {_reason(error)}") from error
    partial, old = hold / "new", hold / "old"
    try:
        yield partial
        # Two renames: at no moment is there half of either.
        there = path.exists() or path.is_symlink()
        if there:
            path.rename(old)
        try:
            partial.rename(path)
        except BaseException:
            if there:
                old.rename(path)
            raise
    finally:
        if not old.exists() or path.exists():  # else what was there could not be put back
            shutil.rmtree(hold, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, completely or not at all.

    Raises:
        MachineError: see :func:`replacing`.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` completely or not at all.

    Raises:
        MachineError: see :func:`replacing`.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


def check_file_target(path: str | Path, *, space: int = 1 << 20) -> Path:
    """That a file can be written at ``path``, before the work whose result it will hold. Makes its folder.

    Args:
        space: bytes that the disk must have free.

    Raises:
        MachineError: a folder is there, its own folder cannot be made or written, or the disk is full.
    """
    wanted = Path(path)
    if wanted.is_dir():
        raise MachineError(
            f"{wanted} is a folder: give the name of a file, for example {wanted / 'result'}{wanted.suffix}"
        )
    if is_stream(wanted):
        if not os.access(wanted, os.W_OK):
            raise MachineError(f"{wanted} is there and may not be written: choose another name or change its rights")
        return wanted
    path = _end_of_links(wanted)
    _refuse_what_is_no_file(path)
    _check_writable(path.parent, path)
    if path.exists() and not os.access(path, os.W_OK):
        raise MachineError(f"{path} is there and may not be written: choose another name or change its rights")
    _check_space(path.parent, path, space)
    return wanted


def is_stream(path: str | Path) -> bool:
    """Whether what is at ``path`` takes bytes and keeps no name: standard output, a pipe, a terminal, ``/dev/null``.

    Standard output is one also where it goes to a file: what was printed is in that file.
    """
    path = _end_of_links(Path(path))
    if _descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def check_folder_target(path: str | Path, *, space: int = 1 << 20) -> Path:
    """That files can be written in the folder ``path``, before the work whose results it will hold. Makes it.

    Raises:
        MachineError: a file is there, it cannot be made or written, or the disk is full.
    """
    path = Path(path)
    _check_writable(path, path)
    _check_space(path, path, space)
    return path


@contextlib.contextmanager
def folder_target(path: str | Path, *, space: int = 1 << 20) -> Iterator[Path]:
    """As :func:`check_folder_target`; where the work then fails before it has written anything, what was made is gone again.

    Raises:
        MachineError: see :func:`check_folder_target`.
    """
    path = Path(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield check_folder_target(path, space=space)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # one that holds something stays
                folder.rmdir()
        raise


def read_regular(path: str | Path, *, limit: int) -> bytes:
    """Content of a regular file of at most ``limit`` bytes: no pipe that never ends, no device, no file that fills the memory.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is not a regular file, or larger.
        MachineError: it may not be read.
    """
    path = Path(path)
    # Without O_NONBLOCK, opening a pipe waits for whoever writes to it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        if path.is_dir():
            raise DataError(f"{path} is a folder, not a file") from error
        raise MachineError(f"{path} cannot be read: {_reason(error)}") from error
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        os.close(handle)
        raise DataError(f"{path} is {'a folder' if stat.S_ISDIR(facts.st_mode) else 'not a regular file'}")
    with os.fdopen(handle, "rb") as file:
        if facts.st_size > limit:
            raise DataError(f"{path} has {facts.st_size:,} bytes, at most {limit:,} are read of such a file")
        return file.read(limit + 1)


def read_regular_text(path: str | Path, *, limit: int = 64 << 20) -> str:
    """Content of a regular UTF-8 file.

    Raises:
        FileNotFoundError, DataError, MachineError: see :func:`read_regular`; it is not UTF-8.
    """
    content = read_regular(path, limit=limit)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start}): it is damaged, or another kind of file"
        ) from error


@contextlib.contextmanager
def _streaming(path: Path) -> Iterator[Path]:
    """A path to write to, whose content goes to the stream ``path`` when the block ends well."""
    with tempfile.TemporaryDirectory(prefix="uva-stream-") as folder:
        partial = Path(folder) / f"result{path.suffix}"
        yield partial
        try:
            number = _descriptor(_end_of_links(path))
            if number is None:
                # Opening a pipe that nobody reads would wait for ever.
                handle = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
                os.set_blocking(handle, True)
            else:
                for stream in (sys.stdout, sys.stderr):
                    if stream is not None:
                        stream.flush()
                handle = os.dup(number)
            with os.fdopen(handle, "wb") as sink, partial.open("rb") as source:
                shutil.copyfileobj(source, sink)
        except OSError as error:
            reason = "no program reads from this pipe" if error.errno == errno.ENXIO else _reason(error)
            raise MachineError(f"{path} cannot be written: {reason}") from error


def _end_of_links(path: Path) -> Path:
    """Where the links at ``path`` lead, up to a name of one of this process's open files."""
    for _ in range(40):  # as many as Linux follows
        if _descriptor(path) is not None or not path.is_symlink():
            return path
        path = path.parent / path.readlink()
    raise MachineError(f"{path} cannot be written: its links lead in a circle")


def _descriptor(path: Path) -> int | None:
    """The number of the open file of this process that ``path`` is another name of."""
    found = re.fullmatch(r"/dev/(?:(stdin|stdout|stderr)|fd/(\d{1,6}))|/proc/self/fd/(\d{1,6})", path.as_posix())
    if found is None:
        return None
    name = found[1]
    return int(found[2] or found[3]) if name is None else ("stdin", "stdout", "stderr").index(name)


def _refuse_what_is_no_file(path: Path) -> None:
    # To put a file in a device's place would destroy it, and to write to a disk what is on it.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise MachineError(f"{path} is a device or a socket, not a file: choose another name")


def _check_writable(folder: Path, target: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MachineError(f"{target} cannot be written: {_reason(error)}") from error


def _check_space(folder: Path, target: Path, space: int) -> None:
    if not hasattr(os, "statvfs"):
        return
    facts = os.statvfs(folder)
    free = facts.f_bavail * facts.f_frsize
    if free < space:
        raise MachineError(f"{target} cannot be written: {free:,} bytes are free there, {space:,} are needed")


def _reason(error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename:
        # Of the path that was to be a folder, the part that is something else.
        path = Path(error.filename)
        file = next((part for part in (path, *path.parents) if part.exists() and not part.is_dir()), None)
        if file is not None:
            return f"{file} is a file, not a folder"
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
