"""Goals that come with the observation, as a picture: the objective, and agents for the protocol ``pusht-goal``."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from uva_agents.agents.observations import keys_of, to_floats
from uva_agents.agents.rollout import Rollout
from uva_agents.errors import InputError, MissingKeyError
from uva_agents.planners.objectives import GoalImage, Term
from uva_agents.planners.planner import SamplingPlanner
from uva_agents.planners.protocols import Judgement, Looks


class ObservedGoal(Term):
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
        self.looks = Looks(frames, pixels=metric == "pixels")

    @property
    def identity(self) -> dict[str, Any]:
        """What it compares, as JSON values."""
        return {"goal": f"obs[{self.key!r}]", "metric": self.metric, "frames": self.frames, "nearest": self.nearest}

    def at(self, obs: Any) -> Term:
        """The objective for this observation.

        Raises:
            KeyError: it has no goal.
        """
        if self.key not in obs:
            raise MissingKeyError(f"the observation has no {self.key!r} to plan for; its keys are {keys_of(obs)}")
        goal = np.asarray(obs[self.key])
        if not self.nearest:
            return GoalImage(goal, metric=self.metric, world=self.world, frames=self.frames)
        return _Nearest(
            tuple(GoalImage(goal, metric=self.metric, world=self.world, frames=(i,)) for i in self.frames or ())
        )

    def judge(self, rollout: Rollout) -> Judgement:
        """Not without an observation: a planner asks :meth:`at` first."""
        raise InputError(
            f"what is wanted comes with the observation: ask at(obs), with obs[{self.key!r}], for the objective"
        )


class _Nearest(Term):
    """The least of the costs of several frames."""

    def __init__(self, goals: tuple[GoalImage, ...]) -> None:
        self._goals = goals
        self.looks = goals[0].looks
        for goal in goals[1:]:
            self.looks = self.looks | goal.looks

    def judge(self, rollout: Rollout) -> Judgement:
        costs = np.min([goal.judge(rollout).costs for goal in self._goals], axis=0)
        return Judgement(costs, np.ones(len(costs), bool))


class RandomWalk:
    """Candidates that wander off from where the finger is: a random direction and speed for every few steps.

    Args:
        action_space: positions, (A,).
        horizon: actions per candidate.
        hold: steps between changes of direction.
        stride: greatest change per step, in units of an action.
        key: of the observation, the position (A,) that they start from.
    """

    lookback = 0

    def __init__(
        self, action_space: Any, *, horizon: int = 16, hold: int = 4, stride: float = 16.0, key: str = "agent_pos"
    ) -> None:
        if not 1 <= hold <= horizon or not stride > 0:
            raise InputError(
                f"hold must be between 1 and the horizon {horizon} and stride positive, got {hold}, {stride}"
            )
        self.action_space, self.horizon, self.hold, self.stride, self.key = action_space, horizon, hold, stride, key

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the samples, as JSON values."""
        return {"proposals": "RandomWalk", "horizon": self.horizon, "hold": self.hold, "stride": self.stride}

    def sample(self, obs: Any, n: int, *, seed: int | None = None) -> np.ndarray:
        """(n, horizon, A) float32, inside the action space.

        Raises:
            KeyError, InputError: the observation has no finite position.
        """
        rng = np.random.default_rng(seed)
        if self.key not in obs:
            raise KeyError(f"the observation has no {self.key!r} to start from; its keys are {keys_of(obs)}")
        position = to_floats(obs[self.key], repr(self.key)).astype(np.float64)
        if position.shape != self.action_space.shape or not np.isfinite(position).all():
            raise InputError(
                f"{self.key!r} must be {self.action_space.shape} finite numbers to start from, got {position}"
            )
        legs = -(-self.horizon // self.hold)
        steps = rng.uniform(-self.stride, self.stride, (n, legs, len(position))).repeat(self.hold, axis=1)
        actions = position + steps[:, : self.horizon].cumsum(axis=1)
        return np.asarray(np.clip(actions, self.action_space.low, self.action_space.high), np.float32)


class Both:
    """Candidates of two proposals, half of each.

    Args:
        first, second: anything with ``sample(obs, n)``, with the same number of actions per candidate.
    """

    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second = first, second
        self.action_space = first.action_space
        self.lookback = max(getattr(part, "lookback", 0) for part in (first, second))

    @property
    def name(self) -> str:
        """Of both."""
        return " + ".join(getattr(part, "name", None) or type(part).__name__ for part in (self.first, self.second))

    @property
    def identity(self) -> list[Any]:
        """Of both, as JSON values."""
        return [getattr(part, "identity", type(part).__name__) for part in (self.first, self.second)]

    def sample(self, obs: Any, n: int, *, history: Any = None, seed: int | None = None) -> np.ndarray:
        """(n, T, A); an odd one more of the first."""
        from uva_agents.planners.protocols import takes

        parts = []
        for part, count in ((self.first, n - n // 2), (self.second, n // 2)):
            given = {"history": history, "seed": seed}
            if count:
                parts.append(part.sample(obs, count, **{k: v for k, v in given.items() if takes(part.sample, k)}))
        return np.concatenate(parts)


def pusht_goal_planner(weights: str = "pusht-nano", *, n_samples: int = 16, proposals: str = "both") -> SamplingPlanner:
    """The planner measured in docs/pusht.md: ``uva eval uva_agents.planners.goal:pusht_goal_planner --protocol pusht-goal``.

    Args:
        weights: whose policy proposes and whose world model imagines.
        n_samples: candidates per decision.
        proposals: ``"policy"`` (which goes for the mark, whatever the goal), ``"walk"`` (:class:`RandomWalk`) or ``"both"``.
    """
    from uva_agents.agents import UVA

    uva = UVA.from_pretrained(weights)
    policy, world = uva.policy(), uva.world_model()
    walk = RandomWalk(policy.action_space)
    kinds: dict[str, Any] = {"policy": policy, "walk": walk, "both": Both(policy, walk)}
    if proposals not in kinds:
        raise InputError(f"proposals={proposals!r}: choose one of {', '.join(kinds)}")
    return SamplingPlanner(
        dynamics=world,
        objective=ObservedGoal(frames=(1, 3), nearest=True),
        proposals=kinds[proposals],
        n_samples=n_samples,
        execute=6,
        steps=4,
    )


def policy_only_planner() -> SamplingPlanner:
    """:func:`pusht_goal_planner` with the policy's proposals alone, for a command line."""
    return pusht_goal_planner(proposals="policy")


class RandomWalker:
    """An agent that wanders: the baseline. Its state is a random stream per environment."""

    def __init__(self, action_space: Any, **walk: Any) -> None:
        self.action_space = action_space
        self._walk = RandomWalk(action_space, **walk)

    name = "RandomWalker"

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its actions, as JSON values."""
        return self._walk.identity

    def initial_state(self, batch_size: int = 1, *, seed: Any = 0) -> Any:
        """A planner's state without plans: seeds, and the actions still to carry out."""
        from uva_agents.planners.state import PlannerRow, PlannerState

        seeds = list(seed) if np.ndim(seed) else [int(seed or 0) + i for i in range(batch_size)]
        return PlannerState(tuple(PlannerRow(s) for s in seeds))

    def predict(
        self, observation: Any, state: Any = None, episode_start: np.ndarray | None = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """stable-baselines3's ``predict``."""
        import dataclasses

        from uva_agents.agents.observations import split
        from uva_agents.planners.state import PlannerState

        observations, batched = split(observation)
        state = self.initial_state(len(observations)) if state is None else state
        if episode_start is not None:
            state = state.restarted(np.asarray(episode_start))
        actions, rows = [], []
        for row, obs in zip(state.rows, observations, strict=True):
            if row.hungry:
                key = int(np.random.SeedSequence([row.seed, row.decisions]).generate_state(1)[0])
                queue = self._walk.sample(obs, 1, seed=key)[0]
                row = dataclasses.replace(row.observed(obs, 1), queue=queue, decisions=row.decisions + 1)
            action, row = row.acted()
            actions.append(action)
            rows.append(row)
        return (np.stack(actions) if batched else actions[0]), PlannerState(tuple(rows))


def random_walker() -> RandomWalker:
    """For PushT: ``uva eval uva_agents.planners.goal:random_walker --protocol pusht-goal``."""
    import gymnasium as gym

    return RandomWalker(gym.spaces.Box(0.0, 512.0, (2,), np.float32))
