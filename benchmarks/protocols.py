"""What is measured: environment, step limit, seeds and the score of an episode. Named, so that numbers compare."""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EvalProtocol:
    """How one episode is run and scored.

    Attributes:
        name: as given to ``evaluate`` and written into reports.
        description: one sentence.
        env_id: the environment it was made for; ``None`` for any.
        max_steps: control steps per episode; ``None`` keeps the environment's own limit.
        first_seed: published numbers use this seed and the ones after it.
        executes: actions of each predicted chunk that are executed; ``None`` where it is up to the agent.
        progress_key: key of ``info`` that holds the progress, in [0, 1] or bool.
        full_score_at: progress that earns a score of 1.
    """

    name: str
    description: str
    env_id: str | None
    max_steps: int | None
    first_seed: int
    executes: int | None
    progress_key: str
    full_score_at: float = 1.0

    def score(self, best_progress: float) -> float:
        """Score in [0, 1] of an episode from the best progress after any of its steps."""
        return min(max(best_progress / self.full_score_at, 0.0), 1.0)


PROTOCOLS: dict[str, EvalProtocol] = {
    p.name: p
    for p in (
        EvalProtocol(
            name="dp-pusht",
            description="Diffusion Policy's PushT: best coverage / 0.95 of each episode, clipped to 1, averaged",
            env_id="uva/PushT-v0",
            max_steps=300,
            first_seed=100_000,
            executes=8,
            progress_key="coverage",
            full_score_at=0.95,
        ),
        EvalProtocol(
            name="success",
            description="share of episodes in which info['is_success'] became true, in any environment",
            env_id=None,
            max_steps=None,
            first_seed=100_000,
            executes=None,
            progress_key="is_success",
        ),
    )
}


def get_protocol(name: str | EvalProtocol) -> EvalProtocol:
    """The protocol called ``name``; a protocol is returned as it is.

    Raises:
        ValueError: unknown name; the message lists the closest ones.
    """
    if isinstance(name, EvalProtocol):
        return name
    if name not in PROTOCOLS:
        close = difflib.get_close_matches(name, PROTOCOLS, n=2) or sorted(PROTOCOLS)
        raise ValueError(f"no protocol called {name!r}; did you mean {' or '.join(map(repr, close))}?")
    return PROTOCOLS[name]
