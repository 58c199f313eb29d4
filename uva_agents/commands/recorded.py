"""Weights of a robot that no environment is at hand of, on recorded episodes: the held-out ones of what they were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.checkpoints.folder import is_checkpoint_file, resolve
from uva_agents.data import open_dataset
from uva_agents.data.fields import field_to_dict
from uva_agents.data.run_data import RunData, data_of_run
from uva_agents.data.selection import format_episodes
from uva_agents.envs import RECORDED
from uva_agents.errors import InputError


@dataclass(frozen=True)
class EpisodeReplay:
    """How weights are tried on recorded episodes.

    Attributes:
        kwargs: for ``gymnasium.make("uva/Recorded-v0", ...)``, ready for JSON.
        episodes: numbers of the episodes in the dataset, in the order of seeds.
        sentence: that says so.
    """

    kwargs: dict[str, Any]
    episodes: tuple[int, ...]
    sentence: str


def replay_for(weights: str, spec: Any, given: Mapping[str, Any]) -> EpisodeReplay:
    """The recorded episodes that weights are tried on.

    Args:
        weights: their name or folder.
        spec: their interface.
        given: arguments of the environment that somebody chose, which come first; ``data`` among them stands for the dataset.

    Raises:
        InputError: nothing says which dataset, or it is not there any more.
        DataError: see :func:`~uva_agents.data.run_data.data_of_run`, or the dataset is damaged.
    """
    import gymnasium as gym

    run = None if is_checkpoint_file(weights) else data_of_run(resolve(weights))
    kwargs: dict[str, Any] = {"action_offset": spec.action_offset, "control_hz": spec.control_hz}
    bounds = np.array([spec.action_low, spec.action_high], float)
    if np.isfinite(bounds).all():
        kwargs["limits"] = bounds.tolist()
    path, same = _dataset(weights, run, given)
    kwargs["data"] = str(path)
    if same and run is not None:
        kwargs["rows_per_step"] = run.rows_per_step
        kwargs["fields"] = {name: field_to_dict(origin) for name, origin in run.main.fields.items()}
        if run.main.held_out or run.main.episodes is not None:
            kwargs["episodes"] = format_episodes(run.main.held_out or run.main.episodes or ())
    elif "rows_per_step" not in given:
        kwargs["rows_per_step"] = _rows_per_step(path, spec.control_hz)
    kwargs |= given
    env = gym.make(RECORDED, disable_env_checker=True, **kwargs)
    episodes = env.unwrapped.episodes  # type: ignore[attr-defined]
    env.close()
    held = same and run is not None and bool(run.main.held_out) and "episodes" not in given
    what = "held-out " if held else ""
    count = f"{len(episodes)} {what}episode{'s' if len(episodes) > 1 else ''} ({format_episodes(episodes)})"
    return EpisodeReplay(kwargs, episodes, f"{RECORDED} replays {count} of {kwargs['data']}")


def _dataset(weights: str, run: RunData | None, given: Mapping[str, Any]) -> tuple[Path, bool]:
    """Its path, and whether it is what the weights were trained on."""
    if "data" in given:
        path = Path(str(given["data"]))
        if not path.exists():
            raise InputError(f"no dataset at {path}")
        # One that was moved keeps its name.
        return path, run is not None and path.resolve().name == run.main.path.name
    if run is None:
        raise InputError(
            f"{weights} names no environment, and no data.json beside it says what it was trained on: give an environment "
            "(ENV; uva imagine: --env), or recorded episodes with --env-arg data=PATH"
        )
    if not run.main.path.exists():
        raise InputError(
            f"{weights} names no environment, and the dataset that it was trained on is gone: {run.main.path}. Say where it is "
            "now with --env-arg data=PATH, or give an environment (ENV)"
        )
    return run.main.path, True


def _rows_per_step(path: Path, control_hz: float) -> int:
    hz = open_dataset(path, lenient=True).control_hz
    return 1 if hz is None else max(1, round(hz / control_hz))
