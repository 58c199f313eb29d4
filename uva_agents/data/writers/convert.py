"""Datasets of one format written in another: whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from uva_agents.data.formats import FORMATS, Format, format_named
from uva_agents.data.readers.dataset import Dataset
from uva_agents.data.writers.writer import Progress, WriteOptions, Writer
from uva_agents.errors import InputError
from uva_agents.utils.files import replacing_folder

_SAME_RATE = 0.005
"""Of a rate: what cameras round (59.94 is 60)."""
TARGETS = tuple(row.name for row in FORMATS.values() if row.writer is not None)
"""Formats of this package that can be written."""


def convert_dataset(
    dataset: Dataset,
    out: str | Path,
    to: str,
    *,
    control_hz: float | None = None,
    force: bool = False,
    task: str | None = None,
    cameras: Mapping[str, str] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Write ``dataset`` at ``out``. It is written beside ``out`` and moved into place at the end.

    Args:
        to: ``"lerobot"`` (v3: parquet and mp4, pictures lose a little), ``"zarr"`` (replay buffer, exact), or a format with a
            writer that another package adds.
        control_hz: steps per second, where the dataset does not say, or as LeRobot's whole number.
        force: replace ``out``.
        task: an instruction for every episode, in place of what the dataset says.
        cameras, names: of LeRobot's features, see :func:`~uva_agents.data.writers.lerobot.write_lerobot`.
        progress: called after each episode.

    Returns:
        Keys of what the dataset has and ``out`` has not: what could not be read, and what ``to`` has no place for.

    Raises:
        InputError: ``control_hz`` is not the rate that the dataset says.
        ValueError: ``out`` exists; unknown target; no rate (LeRobot needs one); data that :class:`Episodes` refuses.
    """
    out = Path(out)
    writer = _writer(to)
    if out.exists() and not force:
        raise ValueError(f"{out} exists: choose another folder, or --force to replace it")
    source = dataset.path.resolve()
    if out.resolve() == source or source in out.resolve().parents or out.resolve() in source.parents:
        raise ValueError(f"{out} would overwrite what is read ({dataset.path}): choose another folder")
    hz = control_hz if control_hz is not None else dataset.control_hz
    if hz is not None and not 0 < hz < 10_000:
        raise ValueError(f"control_hz={hz}: steps per second, above 0")
    _check_rate(dataset, control_hz, writer)
    if not writer.names_features and (cameras or names):
        raise InputError(f"names of cameras and numbers are LeRobot's, and to={to!r} has none")
    tasks = dataset.tasks if task is None else (task,) * len(dataset)
    _ = dataset.episodes  # checks everything before anything is written
    if writer.needs_rate and hz is None:
        title = {"lerobot": "LeRobot"}.get(to, to)
        raise ValueError(f"{dataset.path} does not say its control rate, which {title} needs: pass --hz")
    with replacing_folder(out) as partial:
        writer.write(partial, dataset, WriteOptions(hz, tasks, cameras, names, progress))
    kept = {key for key, value in dataset.beside.items() if writer.keeps_beside and value is not None}
    return (*dataset.left_out, *(key for key in dataset.beside if key not in kept))


def _writer(to: str) -> Writer:
    """How the format ``to`` is written.

    Raises:
        ValueError: there is none, or it is only read.
    """
    found: Format | None = None
    with contextlib.suppress(InputError):
        found = format_named(to)
    if found is None or found.writer is None:
        raise ValueError(f"to={to!r} is unknown: pass {' or '.join(map(repr, TARGETS))}")
    return found.writer


def _check_rate(dataset: Dataset, given: float | None, writer: Writer) -> None:
    """That a rate that is given is the one that the data say, but for what LeRobot's whole numbers round.

    Raises:
        InputError: it is another.
    """
    stored = dataset.control_hz
    if given is None or stored is None or dataset.control_hz_assumed or abs(given - stored) <= _SAME_RATE * stored:
        return
    if writer.whole_rate and abs(given - stored) < 1:
        return
    raise InputError(
        f"{dataset.path} says {stored:g} steps per second, and --hz says {given:g}: no steps are left out or added here, they "
        "would be of another speed; leave --hz away, or correct the rate in the data"
    )
