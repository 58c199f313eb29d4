"""The objective whose goal comes with the observation, as a picture."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any, Literal

import numpy as np

from uva_agents.agents.observations import keys_of
from uva_agents.agents.rollout import Rollout
from uva_agents.errors import InputError, MissingKeyError
from uva_agents.planners.objective import Objective, RequiredFrames
from uva_agents.planners.objectives import GoalImage


class ObservedGoal(Objective):
    """:class:`GoalImage` of the picture that the observation itself holds, another one in every environment and episode.

    Args:
        key: of the observation, uint8 (H, W, 3).
        metric, world, frames: see :class:`GoalImage`.
        nearest: judge a candidate by the one of ``frames`` that is nearest to the goal instead of by their mean: the goal may
            be reached on the way.
    """

    def __init__(
        self,
        key: str = "goal",
        *,
        metric: Literal["pixels", "latents"] = "pixels",
        world: Any = None,
        frames: tuple[int, ...] | None = (-1,),
        nearest: bool = False,
    ) -> None:
        if nearest and not frames:
            raise InputError("nearest= chooses among frames: name them, frames=(1, 3)")
        self.key, self.metric, self.world, self.nearest = key, metric, world, nearest
        self.frames = frames

    @property
    def identity(self) -> dict[str, Any]:
        """What it compares, as JSON values."""
        return {"goal": f"obs[{self.key!r}]", "metric": self.metric, "frames": self.frames, "nearest": self.nearest}

    def required_frames(self) -> RequiredFrames:
        """Frames as pictures, or latents alone."""
        return RequiredFrames(self.frames, pixels=self.metric == "pixels")

    def bind(self, obs: Any) -> Objective:
        """The objective for this observation.

        Raises:
            KeyError: it has no goal.
        """
        if self.key not in obs:
            raise MissingKeyError(f"the observation has no {self.key!r} to plan for; its keys are {keys_of(obs)}")
        goal = np.asarray(obs[self.key])
        if not self.nearest:
            return GoalImage(goal, metric=self.metric, world=self.world, frames=self.frames)
        return _NearestFrame(
            tuple(GoalImage(goal, metric=self.metric, world=self.world, frames=(i,)) for i in self.frames or ())
        )

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """Not without an observation: a planner calls :meth:`bind` first."""
        raise InputError(
            f"what is wanted comes with the observation: call bind(obs), with obs[{self.key!r}], for the objective"
        )


class _NearestFrame(Objective):
    """The least of the costs of several frames."""

    def __init__(self, goals: tuple[GoalImage, ...]) -> None:
        self._goals = goals

    def required_frames(self) -> RequiredFrames:
        return reduce(or_, (goal.required_frames() for goal in self._goals))

    def __call__(self, rollout: Rollout) -> np.ndarray:
        return np.asarray(np.min([goal(rollout) for goal in self._goals], axis=0))
