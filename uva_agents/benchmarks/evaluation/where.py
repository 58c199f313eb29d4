"""Where an evaluation takes place: an environment by its id, or one that somebody has made."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from uva_agents.benchmarks.evaluation.env_workers import BorrowedEnvWorker, EnvWorker, open_env_workers
from uva_agents.benchmarks.evaluation.protocols import EvalProtocol, get_protocol, protocol_for
from uva_agents.errors import InputError


@dataclass(frozen=True)
class Environment:
    """What episodes are run in.

    Attributes:
        name: its id, with the module that registers it; of one that is made already, its id or class.
        made: the environment, if it is made already.
        settings: what that was made with.
        max_steps: that one's own limit.
    """

    name: str
    made: gym.Env[Any, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    max_steps: int | None = None

    def check(self, *, n_envs: int, vectorization: str, env_kwargs: Mapping[str, Any], with_videos: bool) -> None:
        """That one environment is enough for what is asked.

        Raises:
            InputError: it is not.
        """
        if self.made is None:
            return
        if n_envs > 1 or vectorization != "sync":
            raise InputError(f"one environment cannot run side by side with itself: pass the id {self.name!r} instead")
        if env_kwargs:
            raise InputError(f"env_kwargs are for making one, and this one is made: pass the id {self.name!r} instead")
        mode = self.made.render_mode
        if with_videos and mode != "rgb_array":
            raise InputError(f"videos need an environment made with render_mode='rgb_array', this one has {mode!r}")

    def env_workers(
        self, n: int, kwargs: Mapping[str, Any], vectorization: str, max_steps: int | None
    ) -> list[EnvWorker]:
        """``n`` workers, each with one environment."""
        if self.made is None:
            return open_env_workers(n, self.name, kwargs, vectorization)
        return [BorrowedEnvWorker(self.made if max_steps is None else gym.wrappers.TimeLimit(self.made, max_steps))]


def id_of(wanted: Any) -> str | None:
    """The id of an environment that is given by its id or made already, if it has one."""
    return wanted if isinstance(wanted, str) else getattr(getattr(wanted, "spec", None), "id", None)


def environment_and_rules(agent: Any, env: Any, protocol: str | EvalProtocol | None) -> tuple[Any, EvalProtocol]:
    """What ``agent`` is evaluated in and how; each says what is not said of the other, and the agent's ``spec`` what neither says.

    Args:
        env: an id, an environment that is made already, or ``None``.
        protocol: or ``None``.

    Raises:
        InputError: unknown protocol, or nothing says which environment.
    """
    rules = None if protocol is None else get_protocol(protocol)
    if env is None and rules is not None:
        env = rules.env_id
    if env is None:
        env = getattr(getattr(agent, "spec", None), "env_id", None)
    if env is None:
        how = "" if rules is None else f", and protocol {rules.name!r} fits any environment"
        raise InputError(f"{_named(agent)} names no environment{how}: say which one, for example 'uva/PushT-v0'")
    return env, rules or protocol_for(id_of(env) or "")


def _named(agent: Any) -> str:
    return str(getattr(agent, "name", None) or type(agent).__name__)


def find_environment(wanted: Any) -> Environment:
    """The environment that ``wanted`` stands for.

    Raises:
        InputError: there is none of that id, with the close ones; or it is something else than an id or one environment.
    """
    if isinstance(wanted, str):
        _check_id(wanted)
        return Environment(wanted)
    if isinstance(wanted, gym.Env):
        spec = wanted.spec
        if spec is None:
            return Environment(type(wanted.unwrapped).__name__, wanted)
        return Environment(spec.id, wanted, dict(spec.kwargs), spec.max_episode_steps)
    if isinstance(wanted, gym.vector.VectorEnv) or hasattr(wanted, "num_envs"):
        raise InputError(
            f"{type(wanted).__name__} is several environments: pass the id of one, and n_envs=N makes N of them side by side"
        )
    raise InputError(
        f"an environment is a gymnasium id, for example 'uva/PushT-v0', or what gymnasium.make returns, not {wanted!r}"
    )


def _check_id(env_id: str) -> None:
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # a module of the user's: whatever it raises is about what was asked for
            why = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            raise InputError(f"{env_id}: {module} cannot be imported: {why}") from error
    try:
        gym.spec(name)
    except gym.error.Error as error:
        close = difflib.get_close_matches(name, gym.registry, n=2)
        hint = f"did you mean {' or '.join(close)}?" if close else "import the package that registers it first"
        raise InputError(f"no environment called {name!r}; {hint}") from error
