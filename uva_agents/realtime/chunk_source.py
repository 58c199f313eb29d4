"""Chunk sources: any agent as a function from a request to a chunk of actions, which a worker calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from uva_agents.agents.base import Observation
from uva_agents.agents.observations import to_numpy
from uva_agents.errors import InputError
from uva_agents.realtime.numbers import as_numbers

_LOOKBACK = 15
"""Earlier observations for an agent that takes a history and does not say how many: those of a 16-frame window."""


@dataclass(frozen=True, eq=False)
class ChunkRequest:
    """A request for one chunk of actions.

    Attributes:
        number: counts up within an episode, from 0.
        obs: the newest observation.
        history: earlier ones, oldest first, spaced by the agent's own control step.
        observed_s: when ``obs`` was true, on the arm's clock.
        seed: of the episode.
        episode: counts up; tells replies to an earlier episode's requests apart.
    """

    number: int
    obs: Observation
    history: tuple[Observation, ...] = ()
    observed_s: float = 0.0
    seed: int = 0
    episode: int = 0


ChunkSource = Callable[[ChunkRequest], np.ndarray]
"""Answers a request with a chunk (T, A) in environment units; row 0 is for the observation's time."""


class AgentChunkSource:
    """Asks an agent for a chunk in the way that it offers.

    - ``sample(obs, n, history=, seed=)``: policies, remote ones too; a whole chunk.
    - ``plan(obs, history=, seed=)``: planners; the best plan, planned from scratch each time: how much of the last plan has been
      carried out is known to the loop only.
    - ``predict(obs, state)``: anything else; a chunk of one action. The state is kept from request to request of an episode.

    Args:
        agent: any of these.

    Raises:
        TypeError: it has none of the three.
    """

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.way = next((name for name in ("sample", "plan", "predict") if callable(getattr(agent, name, None))), "")
        if not self.way:
            raise TypeError(f"{type(agent).__name__} is no agent: it has neither sample(), plan() nor predict()")
        self._takes = _parameters(getattr(agent, self.way))
        self._state: Any = None

    @property
    def lookback(self) -> int:
        """Earlier observations that it wants with each request."""
        return lookback(self.agent)

    def __call__(self, request: ChunkRequest) -> np.ndarray:
        """(T, A).

        Raises:
            InputError: what the agent gave is no chunk of numbers.
        """
        if self.way == "predict":
            chunk = self._predicted(request)
        else:
            options: dict[str, Any] = {}
            if "history" in self._takes and request.history:
                options["history"] = stack(request.history)
            if "seed" in self._takes:
                options["seed"] = _seed(request)
            if self.way == "sample":
                chunk = as_numbers(self.agent.sample(request.obs, 1, **options), self._name)
                chunk = chunk[0] if chunk.ndim == 3 and len(chunk) == 1 else chunk
            else:
                plan = self.agent.plan(request.obs, **options)
                if not hasattr(plan, "actions"):
                    raise InputError(f"{self._name} gave {type(plan).__name__}, not a plan with actions (T, A)")
                chunk = as_numbers(plan.actions, self._name)
        if chunk.ndim != 2 or not chunk.size:
            raise InputError(f"{self._name} gave an array of shape {chunk.shape}, not one chunk (T, A)")
        return chunk

    @property
    def _name(self) -> str:
        return f"{type(self.agent).__name__}.{self.way}"

    def _predicted(self, request: ChunkRequest) -> np.ndarray:
        """One action (1, A)."""
        if request.number == 0:
            begin = getattr(self.agent, "initial_state", None)
            self._state = begin(1, seed=[request.seed]) if callable(begin) else None
        options = {"episode_start": np.array([request.number == 0])} if "episode_start" in self._takes else {}
        if self._state is not None and callable(getattr(self._state, "restarted", None)):
            options = {}  # a state of its own begins an episode already
        answer = self.agent.predict(request.obs, self._state, **options)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise InputError(f"{self._name} gave {type(answer).__name__}, not the pair (action, state)")
        action, self._state = as_numbers(answer[0], self._name), answer[1]
        if not action.size or action.shape[:-1] not in ((), (1,)) or not action.ndim:
            raise InputError(f"{self._name} gave an array of shape {action.shape}, not one action (A,)")
        return action.reshape(1, -1)


def lookback(agent: Any) -> int:
    """Earlier observations that an agent may look at."""
    own = getattr(agent, "lookback", None)
    if isinstance(own, int):
        return own
    way = next((name for name in ("sample", "plan") if callable(getattr(agent, name, None))), None)
    return _LOOKBACK if way is not None and "history" in _parameters(getattr(agent, way)) else 0


def absolute(source: ChunkSource, *, key: str = "agent_pos") -> ChunkSource:
    """For an agent whose actions (T, 10) are poses seen from the tool's pose at the observation, as UMI has them.

    Chunks decided at different moments can be blended only in one common frame.

    Args:
        key: of the observation's pose: position, rotation vector, gripper (7,).

    Returns:
        A chunk source that gives (T, 10) in the base frame: position, rot6d, gripper.
    """
    from uva_agents.utils.rotations import matrix_from_pose9, pose9_from_matrix, pose_matrix

    def moved(request: ChunkRequest) -> np.ndarray:
        chunk = source(request)
        if chunk.shape[-1] != 10:
            raise ValueError(f"relative poses are (T, 10): position, rot6d, gripper; got {chunk.shape}")
        base = pose_matrix(np.asarray(request.obs[key], np.float64)[:6])
        poses = pose9_from_matrix(base @ matrix_from_pose9(chunk[:, :9]))
        return np.concatenate([poses, chunk[:, 9:]], axis=-1)

    return moved


def stack(observations: tuple[Observation, ...]) -> dict[str, Any]:
    """Observations with a leading time axis; text stays as the newest one says."""
    newest = observations[-1]
    return {
        key: value if isinstance(value, str) else np.stack([to_numpy(obs[key], repr(key)) for obs in observations])
        for key, value in newest.items()
    }


def _seed(request: ChunkRequest) -> int:
    """Another one for each request, the same for the same episode."""
    return int(np.random.SeedSequence([abs(request.seed), request.number]).generate_state(1)[0])


def _parameters(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some callables written in C have no signature
        return {}
