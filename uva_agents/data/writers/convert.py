"""Datasets of one format written in another: whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from uva_agents.data.readers.dataset import Dataset
from uva_agents.data.readers.zarr_buffer import CONVERTED
from uva_agents.data.replay_buffer import write_replay_buffer_by_episode
from uva_agents.data.writers.lerobot import write_lerobot
from uva_agents.errors import InputError
from uva_agents.utils.files import replacing_folder

_SAME_RATE = 0.005
"""Of a rate: what cameras round (59.94 is 60)."""
Progress = Callable[[int, int], None]
"""Called with (episodes done, all)."""

TARGETS = ("lerobot", "zarr")
ZARR_NAMES = {"pixels": "img", "pixels_wrist": "img_wrist"}
"""Canonical name -> name under ``data/``, where they differ: what tools for diffusion-policy data expect."""


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
        to: ``"lerobot"`` (v3: parquet and mp4, pictures lose a little) or ``"zarr"`` (replay buffer, exact).
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
    if to not in TARGETS:
        raise ValueError(f"to={to!r} is unknown: pass {' or '.join(map(repr, TARGETS))}")
    if out.exists() and not force:
        raise ValueError(f"{out} exists: choose another folder, or --force to replace it")
    source = dataset.path.resolve()
    if out.resolve() == source or source in out.resolve().parents or out.resolve() in source.parents:
        raise ValueError(f"{out} would overwrite what is read ({dataset.path}): choose another folder")
    hz = control_hz if control_hz is not None else dataset.control_hz
    if hz is not None and not 0 < hz < 10_000:
        raise ValueError(f"control_hz={hz}: steps per second, above 0")
    _check_rate(dataset, control_hz, to)
    if to != "lerobot" and (cameras or names):
        raise InputError(f"names of cameras and numbers are LeRobot's, and to={to!r} has none")
    tasks = dataset.tasks if task is None else (task,) * len(dataset)
    episodes = dataset.episodes  # checks everything before anything is written
    if to == "lerobot" and hz is None:
        raise ValueError(f"{dataset.path} does not say its control rate, which LeRobot needs: pass --hz")
    # zarr has a place for everything but attributes of single arrays and other groups.
    kept = {key: value for key, value in dataset.beside.items() if to == "zarr" and value is not None}
    with replacing_folder(out) as partial:
        if to == "zarr":
            attributes = {
                **{key.removeprefix("attributes/"): v for key, v in kept.items() if key.startswith("attributes/")},
                "control_hz": hz,
                "tasks": list(tasks or ()) or None,
                CONVERTED: dataset.format,
            }
            write_replay_buffer_by_episode(
                partial,
                _rows(dataset, progress),
                meta={key.removeprefix("meta/"): v for key, v in kept.items() if key.startswith("meta/")},
                attributes={key: value for key, value in attributes.items() if value is not None},
            )
        else:
            assert hz is not None
            write_lerobot(
                partial, episodes, control_hz=hz, tasks=tasks, cameras=cameras, names=names, progress=progress
            )
    return (*dataset.left_out, *(key for key in dataset.beside if key not in kept))


def _check_rate(dataset: Dataset, given: float | None, to: str) -> None:
    """That a rate that is given is the one that the data say, but for what LeRobot's whole numbers round.

    Raises:
        InputError: it is another.
    """
    said = dataset.control_hz
    if given is None or said is None or dataset.control_hz_assumed or abs(given - said) <= _SAME_RATE * said:
        return
    if to == "lerobot" and abs(given - said) < 1:
        return
    raise InputError(
        f"{dataset.path} says {said:g} steps per second, and --hz says {given:g}: no steps are left out or added here, they would "
        "be of another speed; leave --hz away, or correct the rate in the data"
    )


def _rows(dataset: Dataset, progress: Progress | None) -> Iterator[dict[str, np.ndarray]]:
    starts = dataset.starts
    for i, (start, end) in enumerate(zip(starts, dataset.ends, strict=True)):
        yield {_zarr_name(name, dataset): np.asarray(value[start:end]) for name, value in dataset.arrays.items()}
        if progress is not None:
            progress(i + 1, len(dataset))


def _zarr_name(name: str, dataset: Dataset) -> str:
    """Its own where another array has the usual one."""
    usual = ZARR_NAMES.get(name, name)
    return name if usual in dataset.arrays else usual
