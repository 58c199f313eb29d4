"""Datasets of one format written in another: whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from uva_agents.data.lerobot_writer import write_lerobot
from uva_agents.data.readers.dataset import Dataset
from uva_agents.data.replay_buffer import write_replay_buffer_by_episode
from uva_agents.errors import InputError

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
) -> None:
    """Write ``dataset`` at ``out``. It is written beside ``out`` and moved into place at the end.

    Args:
        to: ``"lerobot"`` (v3: parquet and mp4, pictures lose a little) or ``"zarr"`` (replay buffer, exact).
        control_hz: steps per second, where the dataset does not say.
        force: replace ``out``.
        task: an instruction for every episode, in place of what the dataset says.
        cameras, names: of LeRobot's features, see :func:`~uva_agents.data.lerobot_writer.write_lerobot`.
        progress: called after each episode.

    Raises:
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
    if to != "lerobot" and (cameras or names):
        raise InputError(f"names of cameras and numbers are LeRobot's, and to={to!r} has none")
    tasks = dataset.tasks if task is None else (task,) * len(dataset)
    episodes = dataset.episodes  # checks everything before anything is written
    out = Path(os.path.abspath(out))  # "." has no name
    partial = out.with_name(f"{out.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        if to == "zarr":
            attributes = {
                "control_hz": hz,
                "tasks": list(tasks or ()) or None,
                "converted_from": dataset.format,
            }
            write_replay_buffer_by_episode(
                partial,
                _rows(dataset, progress),
                attributes={key: value for key, value in attributes.items() if value is not None},
            )
        else:
            if hz is None:
                raise ValueError(f"{dataset.path} does not say its control rate, which LeRobot needs: pass --hz")
            write_lerobot(
                partial, episodes, control_hz=hz, tasks=tasks, cameras=cameras, names=names, progress=progress
            )
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _move_into_place(partial, out)


def _rows(dataset: Dataset, progress: Progress | None) -> Iterator[dict[str, np.ndarray]]:
    starts = dataset.starts
    for i, (start, end) in enumerate(zip(starts, dataset.ends, strict=True)):
        yield {ZARR_NAMES.get(name, name): np.asarray(value[start:end]) for name, value in dataset.arrays.items()}
        if progress is not None:
            progress(i + 1, len(dataset))


def _move_into_place(partial: Path, out: Path) -> None:
    old = out.with_name(f"{out.name}.old")
    if out.exists():
        # Two renames: at no moment is there half of either.
        out.rename(old)
    partial.rename(out)
    if old.is_dir():
        shutil.rmtree(old)
    elif old.exists():
        old.unlink()
