"""The environment of ``uva run``: an arm or its twin, made to fit the agent or the recording."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.envs import RECORDED
from uva_agents.errors import InputError

if TYPE_CHECKING:
    from uva_agents.realtime import RecordedActions

ENV_ID = "uva/ArxX5-v0"


def make_environment(args: argparse.Namespace, rate: float, agent: Any, recording: RecordedActions | None) -> Any:
    """The environment, with what agent or recording say of it where the command line does not."""
    import gymnasium as gym

    import uva_agents.envs  # noqa: F401
    from uva_agents.envs.arx_x5.safety import SafetyConfig
    from uva_agents.envs.fitting import options_for

    if args.env == RECORDED:
        return _recorded(args, agent)
    options = dict(args.env_arg)
    spec = gym.spec(args.env)
    if not str(spec.entry_point).startswith("uva_agents.envs.arx_x5"):
        raise InputError(
            f"{args.env} waits for its agent: run it with `uva eval`; `uva run` is for {ENV_ID} and {RECORDED}"
        )
    safety = dict(args.safety)
    for name in safety:
        if name not in SafetyConfig.__dataclass_fields__:
            raise InputError(f"--safety {name}: unknown; one of {', '.join(SafetyConfig.__dataclass_fields__)}")
    if args.dry_run:
        safety["dry_run"] = True
    if safety:
        options.setdefault("safety", SafetyConfig(**safety))
    recorded = dict(recording.settings or {}) if recording is not None else {}
    width = recording.actions.shape[1] if recording is not None else _width(agent, args)
    if "action_mode" not in options:
        options["action_mode"] = recorded.get("action_mode") or ("absolute_vector" if width == 7 else "absolute")
    # The loop tells the agent what to do.
    options = options_for(args.env, agent, {"control_hz": rate, "instruction": False, **options})
    if options.get("driver", "sim") == "sim":
        options.setdefault("realtime", True)
    for name, source in (("camera", args.camera), ("outside_camera", args.outside_camera)):
        if source is not None:
            options[name] = _opened(source, options.get("image_size", 224), args.camera_latency)
    if args.outside_camera is not None:
        options.setdefault("cameras", "wrist,outside")
    return gym.make(args.env, disable_env_checker=True, **options)


def _opened(source: str, size: int | tuple[int, int], latency_s: float) -> Any:
    from uva_agents.envs.arx_x5.system.cameras import open_camera
    from uva_agents.utils.clocks import MonotonicClock

    shape = (size, size) if isinstance(size, int) else (size[0], size[1])
    return open_camera(source, clock=MonotonicClock(), size=shape, latency_s=latency_s, loop=True)


def default_environment(args: argparse.Namespace, agent: Any) -> str:
    """The arm; recorded episodes for weights that were trained here on those of another robot."""
    spec = getattr(agent, "spec", None)
    if spec is None or spec.env_id is not None or not Path(args.agent).is_dir():
        return ENV_ID
    from uva_agents.checkpoints.trained import action_names
    from uva_agents.data.meaning import meaning
    from uva_agents.data.run_data import data_of_run

    if data_of_run(args.agent) is None:
        return ENV_ID
    size = len(spec.action_low)
    is_pose = meaning(action_names(args.agent, size), np.zeros((1, size))).kind == "pose"
    return ENV_ID if is_pose else RECORDED


def _recorded(args: argparse.Namespace, agent: Any) -> Any:
    """Recorded episodes, as the agent was trained on them."""
    import gymnasium as gym

    from uva_agents.commands.recorded import replay_for

    for option in ("safety", "dry_run", "camera", "relative", "record", "process"):
        if getattr(args, option):
            raise InputError(f"--{option.replace('_', '-')} is for an arm, and {RECORDED} replays what was recorded")
    spec = getattr(agent, "spec", None)
    if spec is None:
        raise InputError(f"{RECORDED} goes by what weights were trained on: {args.agent} does not say")
    found = replay_for(args.agent, spec, dict(args.env_arg))
    print(f"{args.agent} on recorded episodes, nothing moves: {found.sentence}", flush=True)
    return gym.make(RECORDED, disable_env_checker=True, **found.kwargs)


def _width(agent: Any, args: argparse.Namespace) -> int | None:
    """Numbers of an action as it reaches the environment."""
    if args.relative:
        return 10
    space = getattr(agent, "action_space", None)
    return None if space is None else int(space.shape[0])
