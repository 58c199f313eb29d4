"""The front door: which format a path holds, and opening it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from uva_agents.data.checksums import check_sums
from uva_agents.data.fields import Field
from uva_agents.data.formats import FORMATS, AddedFormats, Format, format_named
from uva_agents.data.picture_layouts import asked_for_pictures
from uva_agents.data.readers.dataset import Dataset, MissingExtraError, Stored, to_dataset
from uva_agents.data.readers.hdf5 import SUFFIXES
from uva_agents.data.readers.video_folder import beside_films, video_files
from uva_agents.data.selection import chosen_episodes
from uva_agents.errors import DataError, InputError, MachineError, UVAError

_PARTS = ("data", "meta", "videos")
"""Folders inside of a dataset."""


def recognise(path: str | Path) -> Format:
    """The format of the dataset at ``path``, told from names of files and folders; nothing is opened.

    Formats that other packages add are asked after those of this one.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no known format, with what was found and what to do.
    """
    path = _as_path(path)
    if not path.exists():
        near = difflib.get_close_matches(path.name, _names(path.parent), n=2) if path.parent.is_dir() else []
        raise FileNotFoundError(f"no dataset at {path}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    try:
        for found in FORMATS.values():
            if found.recognises(path):
                return found
    except PermissionError as error:
        raise MachineError(f"{error.filename or path} may not be read: change its rights (chmod +rx)") from error
    if not path.is_file() and not path.is_dir():
        raise DataError(f"{path} is neither a file nor a folder")
    added = AddedFormats([])
    if (other := added.recognising(path)) is not None:
        return other
    broken = "".join(f". {what}" for what in added.broken)
    raise DataError(f"{path} holds no dataset of a known format. {_advice(path)}{broken}")


def open_dataset(
    path: str | Path,
    *,
    format: str | None = None,
    fields: Mapping[str, str | Field] | None = None,
    episodes: str | Sequence[int] | np.ndarray | None = None,
    needed: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    verify: bool = False,
    lenient: bool = False,
    preferred: Mapping[str, Field] | None = None,
) -> Dataset:
    """Open a dataset of any known format; frames stay on disk until they are looked at.

    Args:
        path: file or folder.
        format: a name of :data:`FORMATS`, or of a format that another package adds, instead of recognising it.
        fields: canonical name -> stored key, or a :class:`~uva_agents.data.Field` that joins keys or takes columns; what is not
            named here is where the format usually has it. ``{"pixels": "obs/robot0_eye_in_hand_image"}`` takes another camera.
        episodes: only these, as numbers or in words (``"0-4,7"``, ``"!3,8"`` for all but those). What is wrong with the others does
            not matter then.
        needed: canonical names of all that will be used; what is wrong with other arrays does not matter then.
        skip: arrays to do without, by canonical name or stored key; what is wrong with them does not matter then.
        verify: hold all files against ``PATH.sha256`` first, if there is one (:mod:`uva_agents.data.checksums`).
        lenient: open what can be read in spite of what is wrong; :attr:`Dataset.holes` says it. For looking at, not for training.
        preferred: canonical name -> where it is taken from instead of the format's usual place, if all of these are there.

    Raises:
        FileNotFoundError: nothing there.
        MissingExtraError: a package is not installed; it names the extra.
        DataError: no known format, damaged or contradictory data, a key that does not exist.
        InputError: ``format``, ``episodes`` or ``skip`` mean nothing here.
        MachineError: it may not be read, or does not fit into memory.
    """
    path = _as_path(path)
    named = None if format is None else format_named(format)
    if named is not None and not path.exists():
        raise FileNotFoundError(f"no dataset at {path}")
    found = named or recognise(path)
    if verify:
        check_sums(path)
    chosen = None if episodes is None else partial(chosen_episodes, episodes)
    asked = {name: value for name, value in (fields or {}).items() if name.startswith("pixels")}
    keys = [key for value in asked.values() for key in ([value] if isinstance(value, str) else value.keys)]
    with asked_for_pictures(keys):
        stored = _read(found, path)
    return to_dataset(
        path,
        found.name,
        stored,
        fields,
        chosen=chosen,
        needed=needed,
        skip=skip,
        lenient=lenient,
        preferred=preferred,
    )


def _read(found: Format, path: Path) -> Stored:
    """What a reader gives; the operating system's refusals, and what damage brings that nobody foresaw, by their right name."""
    try:
        stored = found.read(path)
        if not isinstance(stored, Stored):
            raise TypeError(f"its reader gives a {type(stored).__name__}, not a Stored")
        return stored
    except (UVAError, MissingExtraError, FileNotFoundError):
        raise
    except PermissionError as error:
        raise MachineError(f"{error.filename or path} may not be read: change its rights (chmod +r)") from error
    except MemoryError as error:
        raise MachineError(f"{path} needs more memory than there is") from error
    except Exception as error:
        if found.name in FORMATS:
            raise
        what = f"{type(error).__name__}: {error}"
        raise MachineError(f"the format {found.name!r} of another package failed at {path}: {what}") from error


def _as_path(path: str | Path) -> Path:
    try:
        found = Path(path)
        found.exists()
    except TypeError:
        raise InputError(f"a dataset is given by its path, got {path!r:.80}") from None
    except OSError as error:
        raise InputError(f"no dataset at {str(path)[:80]}: {error.strerror}") from error
    return found


def _advice(path: Path) -> str:
    """What a path that nothing recognised looks like, and what to do."""
    if path.is_file():
        return f"Known files: {', '.join(SUFFIXES)} and .zarr.zip; known folders: {_known()}"
    inside = [child for child in sorted(path.iterdir()) if child.is_dir() or child.suffix == ".zip"]
    for child in inside[:50]:
        for found in FORMATS.values():
            if found.recognises(child):
                return f"But {child} is {found.title}: pass that"
    if (path / "meta" / "episodes.jsonl").exists():
        return "It looks like LeRobot v2: convert it with lerobot's own convert_dataset_v21_to_v30"
    if video_files(path):
        other = ", ".join(file.name for file in beside_films(path)[:3])
        return (
            f"There are films in it, and {other} beside them, which says that they are part of another dataset: if they are "
            "all that there is, pass --format video (format='video')"
        )
    above = path.resolve().parent
    if path.resolve().name in _PARTS and any(FORMATS[name].recognises(above) for name in ("lerobot", "zarr", "minari")):
        return f"But the folder above is one: pass {above if path.name in ('', '..') else path.parent}"
    names = _names(path)
    listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"Found: {listed or 'an empty folder'}. Known: {_known()}"


def _known() -> str:
    return "; ".join(found.title for found in FORMATS.values())


def _names(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir())
