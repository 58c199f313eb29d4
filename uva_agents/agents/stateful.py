"""What agents share whose memory is a value: a row per environment, random streams, and the loop's own state."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np

from uva_agents.agents.arguments import seed_of, whole
from uva_agents.agents.observations import to_numpy
from uva_agents.errors import InputError


class Row(Protocol):
    """What is remembered of one environment. Made from a seed alone, it is the memory before the first observation."""

    @property
    def seed(self) -> int:
        """Of this episode's random stream."""

    @property
    def decisions(self) -> int:
        """Made so far in this episode."""

    @property
    def unobserved(self) -> bool:
        """Whether nothing has been observed yet."""


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Rows(Generic[R]):
    """State over several environments: an :class:`~uva_agents.agents.base.AgentState`.

    Attributes:
        rows: one per environment; updates make new values, nothing is changed in place.
        row_type: of them.
    """

    rows: tuple[R, ...]
    row_type: ClassVar[type[Any]]

    @classmethod
    def begin(cls, seeds: Sequence[int]) -> Self:
        """Before the first observation of one environment per seed."""
        return cls(tuple(cls.row_type(int(seed)) for seed in seeds))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> R:
        return self.rows[index]

    @property
    def decisions(self) -> np.ndarray:
        """(n,) decisions so far, per row."""
        return np.array([row.decisions for row in self.rows])

    def restarted(self, mask: np.ndarray, seeds: Sequence[int] | None = None) -> Self:
        """Rows where ``mask`` is true start a new episode; without ``seeds`` they continue from their own seed plus 1."""
        mask = _flags(mask, "mask", len(self.rows))
        rows = list(self.rows)
        for i in np.flatnonzero(mask):
            if seeds is not None:
                rows[i] = self.row_type(int(seeds[i]))
            elif not rows[i].unobserved:
                # Untouched rows keep their seed: stable-baselines3 marks the very first observation as an episode start too.
                rows[i] = self.row_type(rows[i].seed + 1)
        return type(self)(tuple(rows))


S = TypeVar("S", bound=Rows[Any])


class StatefulAgent(Generic[S]):
    """The part of an :class:`~uva_agents.agents.base.Agent` that follows from its ``predict``.

    Attributes:
        state_type: of what ``predict`` takes and returns.
    """

    state_type: ClassVar[type[Any]]

    def __init__(self) -> None:
        self._seeds: Iterator[int] = itertools.count()
        self._state: S | None = None

    def initial_state(self, batch_size: int = 1, *, seed: int | Sequence[int] | None = None) -> S:
        """State before the first observation; one seed per environment, or consecutive ones from a single seed.

        Raises:
            ValueError: not one seed for each environment.
        """
        begun: S = self.state_type.begin(stream_seeds(seed, batch_size, self._seeds))
        return begun

    def reset(self, *, seed: int | None = None) -> None:
        """Begin a new episode in :meth:`act`: whatever was seen and decided is forgotten."""
        if seed is not None:
            self._seeds = itertools.count(seed_of(seed))
        self._state = None

    def act(self, obs: Any) -> np.ndarray:
        """The next action for one observation (A,) or a batch (B, A), following one episode since :meth:`reset`."""
        action, self._state = self.predict(obs, self._state)
        return action

    def predict(
        self,
        observation: Any,
        state: S | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, S]:
        """stable-baselines3's ``predict``: actions (A,) or (n, A), and the next state."""
        raise NotImplementedError

    def _current(self, state: S | None, n: int, episode_start: np.ndarray | None) -> S:
        """The state that ``predict`` was given, checked, with new episodes begun.

        Raises:
            ValueError: it is something else, or of another number of environments.
        """
        if state is None:
            state = self.initial_state(n)
        if not isinstance(state, self.state_type) or len(state) != n:
            found = f"{len(state)} environments" if isinstance(state, self.state_type) else type(state).__name__
            raise InputError(f"state is for {found}, the observation has {n}; pass what predict returned")
        if episode_start is not None:
            state = state.restarted(_flags(episode_start, "episode_start", n))
        return state


def _flags(value: Any, name: str, n: int) -> np.ndarray:
    """(n,) bool, from that or from the numbers 0 and 1.

    Raises:
        InputError: something else; text and NaN would count as true.
    """
    found = to_numpy(value, name).reshape(-1)
    if len(found) != n:
        raise InputError(f"{name} has {len(found)} entries for {n} environments")
    if found.dtype.kind not in "biuf" or not np.isin(found, (0, 1)).all():
        raise InputError(f"{name} must be ({n},) bool, got {value!r:.60}")
    return found.astype(bool)


def stream_seeds(seed: int | Sequence[int] | None, batch_size: int, new_seeds: Iterator[int]) -> list[int]:
    """A seed for each of ``batch_size`` environments.

    Args:
        seed: one for each, or the first of consecutive ones; ``None`` takes the next ones of ``fresh``.

    Raises:
        ValueError: not one for each environment.
    """
    batch_size = whole(batch_size, "batch_size")
    if seed is None:
        return [next(new_seeds) for _ in range(batch_size)]
    given: Any = seed  # numpy's arrays of seeds are welcome too
    if isinstance(given, np.ndarray) and given.ndim == 1:
        given = given.tolist()
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        return [seed_of(given) + i for i in range(batch_size)]
    if len(given) != batch_size:
        raise InputError(f"{len(given)} seeds for {batch_size} environments")
    return [seed_of(s) for s in given]
