"""One random stream per environment, whatever an agent keeps for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def stream_seeds(seed: int | Sequence[int] | None, batch_size: int, fresh: Iterator[int]) -> list[int]:
    """A seed for each of ``batch_size`` environments.

    Args:
        seed: one for each, or the first of consecutive ones; ``None`` takes the next ones of ``fresh``.

    Raises:
        ValueError: not one for each environment.
    """
    if seed is None:
        return [next(fresh) for _ in range(batch_size)]
    if not isinstance(seed, Sequence):
        return [int(seed) + i for i in range(batch_size)]
    if len(seed) != batch_size:
        raise ValueError(f"{len(seed)} seeds for {batch_size} environments")
    return [int(s) for s in seed]
