"""The space of an instruction: text, which libraries without text spaces take for a sequence of characters."""

from __future__ import annotations

import string
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
    """Strings of 1 to ``max_length`` of :data:`LETTERS`; an observation in it is a plain ``str``.

    It behaves as gymnasium's ``Text`` everywhere. It is a ``Sequence``, too, since that is how other libraries know what has no
    fixed length: stable-baselines3's ``check_env`` takes every space that it does not know for an array and calls a string a
    mistake, but of a ``Sequence`` it says that its algorithms cannot learn from it, and passes. ``shape`` is () and ``dtype``
    object, so that a batch is an array of n strings in stable-baselines3's vectorised environments. gymnasium's
    ``AsyncVectorEnv`` needs ``shared_memory=False`` and says so: through shared memory it reads texts once, before the first.
    """

    def __init__(self, max_length: int = LONGEST, seed: Any = None) -> None:
        super().__init__(max_length, min_length=1, charset=LETTERS, seed=seed)


@create_shared_memory.register(Words)
def _no_shared_memory(space: Words, n: int = 1, ctx: Any = None) -> Any:
    raise CustomSpaceError("text does not go through gymnasium's shared memory: pass shared_memory=False")
