"""Checks an environment against what agents, planners and benchmarks rely on, and says what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.envs.protocol import Restorable, Skippable

_STEPS = 4


@dataclass(frozen=True)
class Violation:
    """A rule that an environment breaks.

    Attributes:
        rule: what is expected.
        found: what the environment did.
        fix: what to change in it.
    """

    rule: str
    found: str
    fix: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.found}. {self.fix}."


def check_env(env: gym.Env[Any, Any], *, seed: int = 0) -> tuple[Violation, ...]:
    """Try ``env`` out, and explain everything in it that agents of this package would trip over; nothing, if all is well.

    It is reset and stepped, not closed. gymnasium's own ``check_env`` looks at the interface that every environment has; this looks
    at what is asked for beyond it: images as ``pixels``, seeds that repeat, ``info["is_success"]``, actions that are refused
    when they are not finite, and a state that can be put back where there is one.

    Args:
        env: one environment, as ``gymnasium.make`` returns it.
        seed: of the episodes that are tried.
    """
    found = list(_spaces(env))
    if found:
        return tuple(found)  # whatever else is tried would fail for the same reasons
    for rule in (_reset, _seeds, _steps, _not_finite, _restored, _foreign_options):
        try:
            found.extend(rule(env, seed))
        except Exception as error:
            found.append(
                Violation(
                    f"reset and step work{_WHILE[rule]}",
                    f"{type(error).__name__}: {error}",
                    "mend this first; what comes after it was not looked at",
                )
            )
            break
    return tuple(found)


def _spaces(env: gym.Env[Any, Any]) -> Iterator[Violation]:
    space, action = env.observation_space, env.action_space
    if not isinstance(space, gym.spaces.Dict):
        yield Violation(
            "observations are dicts",
            f"observation_space is {type(space).__name__}",
            'use gymnasium.spaces.Dict with "pixels" and "agent_pos"',
        )
        return
    pixels = space.spaces.get("pixels")
    if not isinstance(pixels, gym.spaces.Box):
        yield Violation(
            "the camera's picture is obs['pixels']",
            f"the keys are {', '.join(space.spaces)}",
            'add "pixels", Box(0, 255, (H, W, 3), uint8)',
        )
    else:
        for name in (key for key in space.spaces if key.startswith("pixels")):
            part = space.spaces[name]
            if part.dtype != np.uint8 or part.shape is None or len(part.shape) != 3 or part.shape[-1] != 3:
                yield Violation(
                    "pictures are uint8 with the colours last",
                    f"{name} is {part.dtype} {part.shape}",
                    f'make "{name}" Box(0, 255, (H, W, 3), uint8)',
                )
    position = space.spaces.get("agent_pos")
    if position is not None and (position.dtype != np.float32 or position.shape is None or len(position.shape) != 1):
        yield Violation(
            "obs['agent_pos'] is a float32 vector",
            f"it is {position.dtype} {position.shape}",
            'make "agent_pos" Box(low, high, (P,), float32)',
        )
    if not isinstance(action, gym.spaces.Box) or action.dtype != np.float32 or len(action.shape) != 1:
        yield Violation("actions are float32 vectors", f"action_space is {action}", "use Box(low, high, (A,), float32)")
    elif not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
        yield Violation(
            "actions are bounded",
            f"action_space is {action}",
            "give finite bounds: agents clip to them, planners draw in them",
        )


def _reset(env: gym.Env[Any, Any], seed: int) -> Iterator[Violation]:
    obs, info = env.reset(seed=seed)
    yield from _inside(env, obs, "reset")
    yield from _success(info, "reset")


def _seeds(env: gym.Env[Any, Any], seed: int) -> Iterator[Violation]:
    first, again = (env.reset(seed=seed)[0] for _ in range(2))
    different = [key for key in first if not np.array_equal(first[key], again[key])]
    if different:
        yield Violation(
            "the same seed begins the same episode",
            f"two resets with seed={seed} differ in {', '.join(different)}",
            "draw everything from self.np_random, after super().reset(seed=seed)",
        )


def _steps(env: gym.Env[Any, Any], seed: int) -> Iterator[Violation]:
    first, _ = env.reset(seed=seed)
    kept = {key: np.array(value) for key, value in first.items()}
    env.action_space.seed(seed)
    found: list[Violation] = []
    for _ in range(_STEPS):
        action = env.action_space.sample()
        before = action.copy()
        obs, reward, terminated, truncated, info = env.step(action)
        found += [*_inside(env, obs, "step"), *_success(info, "step")]
        if not np.array_equal(action, before):
            found.append(
                Violation(
                    "an action stays as it was", "step() changed the array it was given", "copy it: np.array(action)"
                )
            )
        if not np.isfinite(float(reward)):
            found.append(Violation("rewards are finite", f"step() gave {reward}", "say 0.0 where there is none"))
        if not all(isinstance(flag, bool | np.bool_) for flag in (terminated, truncated)):
            found.append(
                Violation("the ends are booleans", f"step() gave {terminated!r}, {truncated!r}", "return bool(...)")
            )
        if terminated or truncated:
            env.reset(seed=seed)
    changed = [key for key, value in kept.items() if not np.array_equal(first[key], value)]
    if changed:
        found.append(
            Violation(
                "an observation stays what it was",
                f"later steps changed {', '.join(changed)} of the first one",
                "return copies: agents keep the frames of the past",
            )
        )
    yield from dict.fromkeys(found)  # each once


def _not_finite(env: gym.Env[Any, Any], seed: int) -> Iterator[Violation]:
    env.reset(seed=seed)
    action = env.action_space.sample()
    action[0] = np.nan
    try:
        env.step(action)
    except Exception:
        return
    yield Violation(
        "an action that is not finite is refused", "step() took one with NaN", "raise ValueError before anything moves"
    )


def _restored(env: gym.Env[Any, Any], seed: int) -> Iterator[Violation]:
    base: Any = env.unwrapped
    if not isinstance(base, Restorable):
        return
    env.reset(seed=seed)
    env.action_space.seed(seed + 1)
    actions = [env.action_space.sample() for _ in range(_STEPS)]
    try:
        state = base.get_state()
    except Exception:  # real hardware has no state to go back to
        return
    steps = [env.step(action) for action in actions]
    base.set_state(state)
    again = [env.step(action) for action in actions]
    for one, two in zip(steps, again, strict=True):
        different = [key for key in one[0] if not np.array_equal(one[0][key], two[0][key])]
        if different or float(one[1]) != float(two[1]):
            yield Violation(
                "after set_state(get_state()) the same actions lead to the same observations",
                f"{', '.join(different) or 'the reward'} differed",
                "put everything that the next step depends on into the state, the random generator too",
            )
            return
    if isinstance(base, Skippable):
        base.set_state(state)
        for action in actions:
            base.advance(action)
        seen = base.get_obs()
        different = [key for key, value in seen.items() if not np.array_equal(value, again[-1][0][key])]
        if different:
            yield Violation(
                "advance() leads where step() leads",
                f"{', '.join(different)} of get_obs() differed",
                "share the code of both",
            )


def _foreign_options(env: gym.Env[Any, Any], seed: int) -> Iterator[Violation]:
    try:
        env.reset(seed=seed, options={"lerobot_new_rollout": True})
    except Exception as error:
        yield Violation(
            "reset options of other code bases (lerobot_...) are passed over",
            f"reset() raised {type(error).__name__}",
            "look only at the options that are yours",
        )


def _inside(env: gym.Env[Any, Any], obs: Any, where: str) -> Iterator[Violation]:
    if not env.observation_space.contains(obs):
        yield Violation(
            "observations are in observation_space",
            f"{where}() gave one outside: {_first(env, obs)}",
            "widen the space or clip",
        )


def _first(env: gym.Env[Any, Any], obs: Any) -> str:
    """What is wrong with an observation that its space does not contain."""
    space = env.observation_space
    if not isinstance(obs, Mapping) or not isinstance(space, gym.spaces.Dict):
        return f"a {type(obs).__name__}"
    if obs.keys() != space.spaces.keys():
        return f"keys {', '.join(obs)}"
    wrong = next((key for key, part in space.spaces.items() if not part.contains(obs[key])), "")
    value = np.asarray(obs[wrong]) if wrong else np.zeros(0)
    return f"{wrong} is {value.dtype} {value.shape}" + (
        f", {value.min()} to {value.max()}" if value.size and value.dtype.kind in "fiu" else ""
    )


def _success(info: Any, where: str) -> Iterator[Violation]:
    if not isinstance(info, Mapping) or not isinstance(info.get("is_success"), bool | np.bool_):
        yield Violation(
            "info['is_success'] is a bool on every reset and step",
            f"{where}() gave {info.get('is_success', 'none') if isinstance(info, Mapping) else info!r}",
            "add it: benchmarks count successes by it",
        )


_WHILE: dict[Callable[..., Any], str] = {
    _reset: "",
    _seeds: " with the same seed twice",
    _steps: " with sampled actions",
    _not_finite: " after an action was refused",
    _restored: " after set_state()",
    _foreign_options: " with options",
}
