"""What an agent wants to be shown, as far as it says so: images are fitted to it, and a first decision can be made about it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

_GREY = 128
"""Of an empty picture. Black would be the one picture that some detectors cannot read at all."""


@dataclass(frozen=True)
class Interface:
    """Parts of an agent's observation.

    Attributes:
        images: name -> (H, W), uint8 with three channels.
        vectors: name -> size, float32.
        others: name -> space of everything else.
        own: whether the agent says this itself; else its parts do, and something may be left out.
        instructions: those that it knows, for an agent that takes an instruction; none of them where it takes any. ``None`` for
            an agent that takes none.
        neutral: name -> (size,) of vectors of which zeros mean nothing, as poses whose rotation has no such numbers.
    """

    images: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    vectors: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, gym.Space[Any]] = field(default_factory=dict)
    own: bool = True
    instructions: tuple[str, ...] | None = None
    neutral: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of all parts."""
        return [*self.images, *self.vectors, *self.others, *([] if self.instructions is None else ["task"])]

    def empty(self) -> dict[str, Any]:
        """An observation without anything to see in it; the same at every call."""
        obs: dict[str, Any] = {k: np.full((*size, 3), _GREY, np.uint8) for k, size in self.images.items()}
        obs |= {k: np.zeros(n, np.float32) for k, n in self.vectors.items()}
        obs |= {k: np.array(row, np.float32) for k, row in self.neutral.items()}
        for name, space in self.others.items():
            again = copy.deepcopy(space)  # the agent's own stream of random numbers stays where it is
            again.seed(0)
            obs[name] = again.sample()
        if self.instructions:
            obs["task"] = self.instructions[0]
        return obs


def interface_of(agent: Any) -> Interface | None:
    """What ``agent`` wants to be shown; ``None`` where neither it nor its parts say so."""
    for number, part in enumerate(_parts(agent)):
        found = _from_weights(part, own=number == 0) or _from_space(part, own=number == 0)
        if found is not None:
            return found
    return None


def _parts(agent: Any) -> Iterator[Any]:
    """An agent, and what planners and wrappers make their decisions with."""
    yield agent
    for name in ("agent", "proposals", "dynamics"):
        part = getattr(agent, name, None)
        if part is not None and part is not agent:
            yield part


def _from_weights(part: Any, *, own: bool) -> Interface | None:
    bundle = getattr(getattr(part, "weights", part), "bundle", None)
    spec = getattr(part, "spec", None) or getattr(bundle, "spec", None)
    shape = getattr(spec, "image_shape", None)
    if spec is None or shape is None:
        return None
    images = {"pixels": (int(shape[0]), int(shape[1]))}
    wrist = getattr(spec, "wrist_shape", None)
    if wrist is not None:
        images[getattr(spec, "wrist_key", "pixels_wrist")] = (int(wrist[0]), int(wrist[1]))
    vectors: dict[str, int] = {}
    neutral: dict[str, np.ndarray] = {}
    key, config = getattr(spec, "proprio_key", None), getattr(getattr(bundle, "model", None), "config", None)
    network = int(getattr(config, "proprio_dim", 0) or 0)
    if key is not None and (size := spec.proprio_size(network)):
        vectors[key] = size
        row = spec.proprio_transforms[0].neutral() if spec.proprio_transforms else None
        if row is None and spec.relative is not None:
            row = spec.relative.origin()
        if row is not None and len(row) == size:
            neutral[key] = row
    instructions = None
    if getattr(config, "text_dim", 0):
        instructions = tuple(getattr(getattr(bundle, "text", None), "instructions", ()))
    return Interface(images, vectors, own=own, instructions=instructions, neutral=neutral)


def _from_space(part: Any, *, own: bool) -> Interface | None:
    space = getattr(part, "observation_space", None)
    if not isinstance(space, gym.spaces.Dict):
        return None
    images: dict[str, tuple[int, int]] = {}
    vectors: dict[str, int] = {}
    others: dict[str, gym.Space[Any]] = {}
    for name, one in space.spaces.items():
        shape = one.shape or ()
        if isinstance(one, gym.spaces.Box) and one.dtype == np.uint8 and len(shape) == 3 and shape[-1] == 3:
            images[name] = (shape[0], shape[1])
        elif isinstance(one, gym.spaces.Box) and one.dtype == np.float32 and len(shape) == 1 and _has_zero(one):
            vectors[name] = shape[0]
        else:
            others[name] = one
    return Interface(images, vectors, others, own=own)


def _has_zero(space: gym.spaces.Box) -> bool:
    return bool((space.low <= 0).all() and (space.high >= 0).all())
