"""Demonstrations on disk, whatever makes them: in several processes, resumable, whole or not at all.

Worker processes write finished episodes into ``OUT.partial``, one file each. A killed job continues there; a worker that dies
costs its episode. When all are done they become one replay buffer, which moves into place at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial as partial_of
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from uva_agents.data.replay_buffer import write_replay_buffer_by_episode
from uva_agents.utils.files import replacing, write_text
from uva_agents.utils.workers import run_jobs

EpisodeRecorder = Callable[[int], dict[str, np.ndarray]]
"""Index of an episode -> arrays of its rows, and ``success`` (). Other arrays () go to ``meta/``, one entry per episode."""


class CollectionPlan(Protocol):
    """What is collected, a frozen dataclass. Two plans that differ never share a working folder."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def episodes(self) -> int:
        """How many; episode i has seed ``seed + i``."""

    @property
    def seed(self) -> int:
        """Of the first episode."""


@dataclass(frozen=True)
class Collected:
    """What became of a plan. ``failures``: episode index -> what happened. ``written``: episodes in the replay buffer."""

    episodes: int
    successes: int
    resumed: int
    written: int
    rows: int
    failures: dict[int, str]


def collect_episodes(
    out: str | Path,
    plan: CollectionPlan,
    make_recorder: Callable[[], EpisodeRecorder],
    *,
    attributes: Mapping[str, Any],
    instruction: Callable[[int], str] | None = None,
    workers: int = 1,
    method: str | None = None,
    only_successful: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """Collect ``plan`` into the replay buffer ``out``, with ``meta/seed`` and ``meta/success`` of every episode.

    Args:
        make_recorder: called in every process.
        attributes: of the replay buffer, besides ``plan``.
        instruction: of an episode, by its index; they become the attribute ``tasks``, where readers look for them.
        workers: processes.
        method: how they start; ``"spawn"`` for what must not be forked, such as renderers with threads of their own.
        only_successful: leave the other episodes out of ``out``.
        force: replace ``out``.
        progress: called with (episodes done, all).

    Raises:
        ValueError: ``out`` exists; its working folder belongs to another plan; no episode is left to write.
    """
    out = Path(out)
    if out.exists() and not force:
        raise ValueError(f"{out} exists: choose another folder, or --force to replace it")
    if workers < 1:
        raise ValueError(f"workers={workers}: at least one")
    partial = _working_folder(out, plan)
    done = {i for i in range(plan.episodes) if _file(partial, i).exists()}
    resumed = len(done)
    missing = [i for i in range(plan.episodes) if i not in done]
    failures: dict[int, str] = {}
    for count, ended in enumerate(
        run_jobs(partial_of(_saver, make_recorder, partial), missing, workers=workers, method=method), resumed + 1
    ):
        if ended.error is not None:
            failures[ended.job] = ended.error
        if progress is not None:
            progress(count, plan.episodes)
    indices = [i for i in range(plan.episodes) if i not in failures]
    success = {i: _success(_file(partial, i)) for i in indices}
    kept = [i for i in indices if success[i] or not only_successful]
    if not kept:
        reason = f"; the first error: {next(iter(failures.values()))}" if failures else ", none was successful"
        raise ValueError(f"no episode to write{reason}")
    described = {**attributes, "plan": dataclasses.asdict(plan)}
    if instruction is not None:
        described["tasks"] = [instruction(i) for i in kept]
    rows = _assemble(out, partial, plan, kept, success, described)
    return Collected(len(indices), sum(success.values()), resumed, len(kept), rows, failures)


def _working_folder(out: Path, plan: CollectionPlan) -> Path:
    """``OUT.partial``, new or of the same plan; files that a killed job did not finish are removed."""
    absolute = Path(os.path.abspath(out))  # "." has no name
    partial = absolute.with_name(f"{absolute.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    settings, wanted = partial / "plan.json", json.dumps(dataclasses.asdict(plan), indent=1)
    if settings.exists() and settings.read_text(encoding="utf-8") != wanted:
        raise ValueError(f"{partial} holds episodes of other settings: remove it, or finish that job with its settings")
    write_text(settings, wanted)
    for leftover in partial.glob(".*.npz"):
        leftover.unlink()
    return partial


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.npz"


def _success(path: Path) -> bool:
    with np.load(path) as episode:
        return bool(episode["success"])


def _assemble(
    out: Path,
    partial: Path,
    plan: CollectionPlan,
    kept: list[int],
    success: dict[int, bool],
    attributes: Mapping[str, Any],
) -> int:
    """Episodes of ``partial`` to ``out``; returns the number of rows."""
    rows = 0
    meta: dict[str, list[Any]] = {"seed": [plan.seed + i for i in kept], "success": [success[i] for i in kept]}
    for index in kept:
        with np.load(_file(partial, index)) as stored:
            for name in stored:
                if name != "success" and stored[name].shape == ():
                    meta.setdefault(name, []).append(stored[name].item())

    def episodes() -> Iterator[dict[str, np.ndarray]]:
        nonlocal rows
        for index in kept:
            with np.load(_file(partial, index)) as stored:
                episode = {name: stored[name] for name in stored if stored[name].shape}
            rows += len(episode["action"])
            yield episode

    zarr_folder = partial / "zarr"
    write_replay_buffer_by_episode(
        zarr_folder,
        episodes(),
        meta={name: np.array(values) for name, values in meta.items()},
        attributes=dict(attributes),
    )
    if out.exists():
        shutil.rmtree(out)
    zarr_folder.rename(out)
    shutil.rmtree(partial)
    return rows


def _saver(make_recorder: Callable[[], EpisodeRecorder], partial: Path) -> Callable[[int], None]:
    """What a worker process does: write one episode."""
    record = make_recorder()
    return lambda index: _save(_file(partial, index), record(index))


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as unfinished:
        np.savez_compressed(unfinished, **arrays)
