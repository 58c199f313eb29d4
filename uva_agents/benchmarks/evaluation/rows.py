"""An agent over a fixed number of rows: how its memory is kept, how long it takes, which rows it has no answer for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from uva_agents.agents.observations import is_masked
from uva_agents.errors import InputError, NotFiniteError


@dataclass(slots=True)
class DecisionTiming:
    """Seconds of each ``predict`` call, and whether it made a new chunk for at least one row (``None``: not known)."""

    seconds: list[float] = field(default_factory=list)
    replanned: list[bool] | None = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that got no finite action; ``{where}`` in ``reason`` stands for the step."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """(n, ...) one action per row, and the rows whose action means nothing."""

    actions: np.ndarray
    refused: tuple[RefusedRow, ...] = ()


class AgentRows:
    """Asks ``agent`` for the actions of ``n`` rows."""

    def __init__(self, agent: Any, n: int, deterministic: bool) -> None:
        self._agent, self._n, self._deterministic = agent, n, deterministic
        self._state: Any = None
        self._is_value = hasattr(agent, "initial_state")
        self.timing = DecisionTiming()

    def actions(self, observations: Any, started: np.ndarray, seeds: Sequence[int], running: np.ndarray) -> Answer:
        """Actions for ``observations``, of which ``started`` (n,) marks the first of an episode and ``running`` those that count.

        Raises:
            InputError: it returned something else than one action per row.
        """
        if self._is_value:
            # The restart, with its seed, is in the state.
            if self._state is None:
                self._state = self._agent.initial_state(self._n, seed=list(seeds))
            elif started.any():
                self._state = self._state.restarted(started, list(seeds))
        try:
            actions = self._predict(observations, started)
        except NotFiniteError as error:
            return self._without_the_bad(observations, started, seeds, running, error)
        return self._checked(actions, running)

    def _predict(self, observations: Any, started: np.ndarray) -> np.ndarray:
        before = getattr(self._state, "decisions", None)
        began = time.perf_counter()
        actions, state = self._ask(self._state, observations, started)
        self.timing.seconds.append(time.perf_counter() - began)
        self._state = state
        after = getattr(state, "decisions", None)
        if before is None or after is None:
            self.timing.replanned = None
        elif self.timing.replanned is not None:
            self.timing.replanned.append(bool(np.any(np.asarray(before) != np.asarray(after))))
        return actions

    def _ask(self, state: Any, observations: Any, started: np.ndarray) -> tuple[np.ndarray, Any]:
        try:
            actions, state = self._agent.predict(
                observations,
                state,
                episode_start=None if self._is_value else started,
                deterministic=self._deterministic,
            )
        except NotFiniteError:
            raise
        except (Exception, SystemExit) as error:
            error.add_note(FAILED_IN_PREDICT)
            raise
        if is_masked(actions):
            raise InputError("predict() returned a masked array: what is masked is no action")
        return np.asarray(actions), state

    def _without_the_bad(
        self,
        observations: Any,
        started: np.ndarray,
        seeds: Sequence[int],
        running: np.ndarray,
        error: NotFiniteError,
    ) -> Answer:
        """Find the rows that the network cannot bear, and ask for the others again. The state is a value: nothing has changed."""
        rows = np.flatnonzero(running)
        bad = {int(i): _reason(error) for i in rows}
        if self._is_value and self._n > 1:
            alone = {int(i): self._alone(int(i), observations, started, seeds) for i in rows}
            bad = {i: reason for i, reason in alone.items() if reason is not None}
        good = [int(i) for i in rows if i not in bad]
        refused = tuple(RefusedRow(i, reason) for i, reason in bad.items())
        if not good:
            return Answer(np.zeros((self._n, 0), np.float32), refused)
        replaced = np.ones(self._n, dtype=bool)
        replaced[good] = False
        self._state = self._state.restarted(replaced, list(seeds))
        try:
            answer = self._checked(self._predict(_with_row(observations, good[0], replaced), started), ~replaced)
        except NotFiniteError as again:
            return Answer(
                np.zeros((self._n, 0), np.float32), (*refused, *(RefusedRow(i, _reason(again)) for i in good))
            )
        return Answer(answer.actions, (*refused, *answer.refused))

    def _alone(self, row: int, observations: Any, started: np.ndarray, seeds: Sequence[int]) -> str | None:
        """Why there is no action for this row, in a batch in which the others begin anew with its observation."""
        others = np.arange(self._n) != row
        state = self._state.restarted(others, list(seeds))
        try:
            self._ask(state, _with_row(observations, row, others), started)
        except NotFiniteError as error:
            return _reason(error)
        return None

    def _checked(self, actions: np.ndarray, running: np.ndarray) -> Answer:
        if actions.shape[:1] != (self._n,):
            raise InputError(f"predict() got {self._n} observations and returned actions of shape {actions.shape}")
        if actions.dtype.kind in "cOSU":  # environments would take a part of it, or read it
            raise InputError(f"predict() returned actions of dtype {actions.dtype}: they must be real numbers")
        if actions.dtype.kind != "f":
            return Answer(actions)
        bad = running & ~np.isfinite(actions.reshape(self._n, -1)).all(axis=1)
        return Answer(actions, tuple(RefusedRow(int(i), _NOT_FINITE) for i in np.flatnonzero(bad)))


FAILED_IN_PREDICT = "raised by the agent's predict(), which was asked for actions"
"""Note on errors that come from the agent and not from the evaluation."""
_NOT_FINITE = (
    "the agent returned NaN or infinity {where}: its weights or its normaliser are damaged, or training diverged"
)


def _reason(error: NotFiniteError) -> str:
    text = " ".join(str(error).split()).replace("{", "{{").replace("}", "}}")
    return f"{type(error).__name__} {{where}}: {text}"


def _with_row(observations: Any, row: int, others: np.ndarray) -> Any:
    """The batch with the observation of ``row`` in place of those of ``others`` (n,)."""
    if isinstance(observations, dict):
        return {key: _with_row(value, row, others) for key, value in observations.items()}
    changed = observations.copy()
    changed[others] = observations[row]
    return changed
