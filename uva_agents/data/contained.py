"""Paths inside a dataset's folder: what a dataset says may not open other files of the machine."""

from __future__ import annotations

import stat
from pathlib import Path

from uva_agents.errors import DataError, MachineError


def contained(folder: Path, name: str | Path) -> Path:
    """``folder / name``, a regular file that is inside ``folder``, links followed.

    Links into the ``blobs`` of a Hugging Face cache, which is how that keeps its snapshots, are inside.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is absolute, leads outside, or is no regular file.
        MachineError: it may not be looked at.
    """
    if "\0" in str(name):
        raise DataError(f"{folder}: {str(name)!r} is no name of a file")
    path = folder / name
    try:
        real, root = path.resolve(), folder.resolve()
        facts = real.stat() if _inside(real, root) or _is_blob(real, folder) else None
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:  # a link to itself
        reason = getattr(error, "strerror", None) or error
        raise MachineError(f"{path} cannot be read: {reason}") from error
    if facts is None:
        raise DataError(
            f"{path} leads outside the dataset's folder, to {real}: it is not opened; copy it into the folder"
        )
    if not stat.S_ISREG(facts.st_mode):
        raise DataError(f"{path} is no regular file")
    return path


def _inside(path: Path, folder: Path) -> bool:
    return folder in path.parents


def _is_blob(path: Path, folder: Path) -> bool:
    where = folder.absolute()
    return where.parent.name == "snapshots" and (where.parent.parent / "blobs").resolve() == path.parent
