"""Objectives for any task: the price of actions, distance to a goal image, cost of a simulator's states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from uva_agents.agents.rollout import Rollout
from uva_agents.errors import InputError
from uva_agents.planners.objective import Objective, RequiredFrames
from uva_agents.planners.protocols import HasWeights


@dataclass(frozen=True)
class ActionPenalty(Objective):
    """Price of the actions themselves.

    Args:
        smoothness: weight of the mean squared change from one action to the next.
        effort: weight of the mean squared action.
        scale: unit of an action, a number or (A,); the costs are in its square. 1 leaves environment units.
    """

    smoothness: float = 1.0
    effort: float = 0.0
    scale: Any = 1.0

    def required_frames(self) -> RequiredFrames:
        """None: actions only."""
        return RequiredFrames(frames=(), pixels=False)

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """Costs (S,)."""
        if rollout.actions is None:
            raise InputError("ActionPenalty needs the actions of the futures, and this rollout was made without any")
        actions = np.asarray(rollout.actions, np.float64) / np.asarray(self.scale, np.float64)
        costs = self.effort * np.square(actions).mean((1, 2))
        if actions.shape[1] > 1:
            costs = costs + self.smoothness * np.square(np.diff(actions, axis=1)).mean((1, 2))
        return np.asarray(costs)


class GoalImage(Objective):
    """Distance to a goal image: mean squared difference, of pixels (scaled to [0, 1]) or of latents (network units).

    Latents are compared without decoding anything, which is cheaper, and less exact about where small things are.

    Args:
        goal: uint8 (H, W, 3).
        metric: ``"pixels"`` or ``"latents"``.
        world: whose latents; a :class:`~uva_agents.agents.WorldModel` or a :class:`~uva_agents.UVA`, for ``"latents"``.
        frames: the frames that should look like the goal; the mean over them is the cost.
    """

    def __init__(
        self,
        goal: Any,
        *,
        metric: Literal["pixels", "latents"] = "pixels",
        world: Any = None,
        frames: tuple[int, ...] | None = (-1,),
    ) -> None:
        goal = np.asarray(goal)
        if goal.ndim != 3 or goal.shape[-1] != 3 or goal.dtype != np.uint8:
            raise InputError(f"a goal image is uint8 (H, W, 3), got {goal.dtype} {goal.shape}")
        if metric not in ("pixels", "latents"):
            raise InputError(f'metric={metric!r}: choose "pixels" or "latents"')
        if (metric == "latents") != (world is not None):
            raise InputError('latents are those of some weights: give world= with metric="latents", and only then')
        self.goal, self.metric, self.frames = goal, metric, frames
        self._code = None
        if world is not None:
            uva = world.weights if isinstance(world, HasWeights) else world
            height, width = uva.spec.image_shape
            if goal.shape[:2] != (height, width):
                raise InputError(f"the goal must be {height}x{width} for these weights, got {goal.shape[:2]}")
            self._code = uva.encode(goal[None]).tokens[0]

    @property
    def identity(self) -> dict[str, Any]:
        """What it compares, as JSON values."""
        import hashlib

        digest = hashlib.sha256(self.goal.tobytes()).hexdigest()[:16]
        return {"goal": digest, "metric": self.metric, "frames": self.frames}

    def required_frames(self) -> RequiredFrames:
        """Frames as pictures, or latents alone."""
        return RequiredFrames(self.frames, pixels=self.metric == "pixels")

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """Costs (S,)."""
        rollout = rollout.select(self.frames)
        if self._code is not None:
            if rollout.latents is None:
                raise InputError('these futures have no latents (a simulator\'s have none): use metric="pixels"')
            costs = (rollout.latents - self._code).square().mean((1, 2, 3)).double().cpu().numpy()
        else:
            frames = rollout.pictures()
            if frames.shape[2:] != self.goal.shape:
                raise InputError(f"the goal is {self.goal.shape}, the imagined frames are {frames.shape[2:]}")
            difference = (frames.astype(np.float32) - self.goal) / 255
            costs = np.square(difference).mean((1, 2, 3, 4)).astype(np.float64)
        return np.asarray(costs)


@dataclass(frozen=True)
class StateCost(Objective):
    """Judges a simulator's own states: exact, and so an upper bound for objectives that judge pictures.

    Args:
        cost: of one state, as ``get_state()`` returns it.
        frames: the frames at which it is asked; the mean is the cost.
    """

    cost: Callable[[Any], float]
    frames: tuple[int, ...] | None = (-1,)

    def required_frames(self) -> RequiredFrames:
        """States only."""
        return RequiredFrames(self.frames, pixels=False)

    @property
    def identity(self) -> str:
        """Of the function."""
        return f"StateCost({getattr(self.cost, '__qualname__', type(self.cost).__name__)}, {self.frames})"

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """Costs (S,)."""
        rollout = rollout.select(self.frames)
        if rollout.states is None:
            raise InputError(
                "StateCost needs a simulator's states, and a network has none: use an objective that looks at frames"
            )
        return np.array([np.mean([self.cost(state) for state in row]) for row in rollout.states])
