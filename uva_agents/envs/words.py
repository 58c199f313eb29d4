"""The space of an instruction: text, which libraries without text spaces take for a sequence of characters."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
from gymnasium.error import CustomSpaceError
from gymnasium.vector.utils import create_shared_memory

LETTERS = string.ascii_letters + string.digits + " -"
LONGEST = 256
"""Letters of an instruction."""


class _Characters(gym.spaces.Sequence):
    """What ``Text`` needs of a base class, of which there is more to know than that it is a ``Space``."""

    def __init__(self, dtype: Any = str, seed: Any = None) -> None:
        gym.Space.__init__(self, (), object, seed)
        self.feature_space, self.stack = gym.spaces.Text(1, min_length=1, charset=LETTERS), False

    def seed(self, seed: Any = None) -> Any:
        return gym.Space.seed(self, seed)

    def to_jsonable(self, sample_n: Any) -> list[Any]:
        return list(sample_n)

    def from_jsonable(self, sample_n: list[Any]) -> list[Any]:
        return list(sample_n)


class Words(gym.spaces.Text, _Characters):  # type: ignore[misc]  # both generic, in str and in tuples
    """Strings of 1 to ``max_length`` of some letters, :data:`LETTERS` as a rule; an observation in it is a plain ``str``.

    It behaves as gymnasium's ``Text`` everywhere. It is a ``Sequence``, too, since that is how other libraries know what has no
    fixed length: stable-baselines3's ``check_env`` takes every space that it does not know for an array and calls a string a
    mistake, but of a ``Sequence`` it says that its algorithms cannot learn from it, and passes. ``shape`` is () and ``dtype``
    object, so that a batch is an array of n strings in stable-baselines3's vectorised environments. gymnasium's
    ``AsyncVectorEnv`` needs ``shared_memory=False`` and says so: through shared memory it reads texts once, before the first.
    """

    def __init__(
        self, max_length: int = LONGEST, seed: Any = None, *, letters: str = LETTERS, min_length: int = 1
    ) -> None:
        super().__init__(max_length, min_length=min_length, charset=letters, seed=seed)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Words:
        """That holds these texts, whatever is in them, and all that other environments' instructions consist of."""
        texts = tuple(texts)
        more = {letter for text in texts for letter in text} - set(LETTERS)
        return cls(
            max(LONGEST, *map(len, texts)), letters=LETTERS + "".join(sorted(more)), min_length=0 if "" in texts else 1
        )


@create_shared_memory.register(Words)
def _no_shared_memory(space: Words, n: int = 1, ctx: Any = None) -> Any:
    raise CustomSpaceError("text does not go through gymnasium's shared memory: pass shared_memory=False")
