"""The environment of ``uva run``: an arm or its twin, made to fit the agent or the recording."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

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

    options = dict(args.env_arg)
    spec = gym.spec(args.env)
    if not str(spec.entry_point).startswith("uva_agents.envs.arx_x5"):
        raise InputError(f"{args.env} waits for its agent: run it with `uva eval`; `uva run` is for {ENV_ID}")
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


def _width(agent: Any, args: argparse.Namespace) -> int | None:
    """Numbers of an action as it reaches the environment."""
    if args.relative:
        return 10
    space = getattr(agent, "action_space", None)
    return None if space is None else int(space.shape[0])
