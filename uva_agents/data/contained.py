"""Files of a dataset are regular files in its own folder: no link leads out of it, no pipe is waited for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from uva_agents.errors import DataError, MachineError


def home_of(path: Path) -> Path:
    """The folder that everything of a dataset must be in: its own, or the one that a file lies in.

    A download by huggingface_hub is a folder of links into ``blobs`` beside its ``snapshots``: all of that is home.
    """
    real = path.resolve()
    named = path if path.is_absolute() else Path.cwd() / path
    for folder in (named, *named.parents):
        if folder.parent.name == "snapshots" and (folder.parent.parent / "blobs").is_dir():
            return folder.parent.parent.resolve()
    return real if real.is_dir() else real.parent


def is_hidden(file: Path, folder: Path) -> bool:
    """Whether a name on the way from ``folder`` begins with a dot, as what systems and editors leave behind does."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def check_contained(file: Path, home: Path) -> os.stat_result:
    """Facts of a regular file, link or not, that lies below ``home``.

    Raises:
        FileNotFoundError: there is none, or its link dangles.
        DataError: it is a pipe, device or folder, or a link that leads elsewhere.
        MachineError: it may not be looked at.
    """
    try:
        real = file.resolve(strict=True)
        facts = real.stat()
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        raise MachineError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not real.is_relative_to(home):
        raise DataError(
            f"{file} {'is a link to' if file.is_symlink() else 'lies at'} {real}, outside the dataset's folder {home}: what lies "
            "outside is not opened; copy it inside"
        )
    if not stat.S_ISREG(facts.st_mode):
        raise DataError(f"{file} is not a regular file")
    if not os.access(real, os.R_OK):
        raise MachineError(f"{file} may not be read: change its rights (chmod +r)")
    return facts


def contained(folder: Path, name: str | Path) -> Path:
    """``folder / name``, which a dataset names: a regular file in the dataset's own ``folder``.

    Raises:
        FileNotFoundError, DataError, MachineError: see :func:`check_contained`; ``name`` is absolute, or leads out by ``..``.
    """
    inside = os.path.normpath(name)
    if "\0" in inside or os.path.isabs(inside) or inside.split(os.sep)[0] == "..":
        raise DataError(f"{folder}: {str(name)!r} leads outside the dataset's folder: it is not opened")
    check_contained(folder / inside, home_of(folder))
    return folder / inside
