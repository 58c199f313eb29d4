"""The options of ``uva/ArxX5-v0``, looked at together before an arm is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from uva_agents.envs.arx_x5.checks import flag, instance, methods, number, path, short
from uva_agents.envs.arx_x5.safety import SafetyConfig
from uva_agents.envs.arx_x5.system.system import Latencies
from uva_agents.envs.words import LONGEST, Words
from uva_agents.errors import InputError

_FLAGS = ("realtime", "outside", "joint_state", "timestamp", "render_observations")
_TEXTS = ("model", "task", "action_mode", "tool_frame", "looks")
_MAY_BE_NONE = {"model", "task"}
MADE_WITH = ("interface", "options", "realism")
"""What :func:`~uva_agents.envs.arx_x5.drivers.factory.make_driver` takes besides the arm's model."""


def check_options(options: Mapping[str, Any]) -> None:
    """Types and ranges of the arguments of :class:`~uva_agents.envs.arx_x5.env.ArxX5Env`, by name.

    Raises:
        InputError: one makes no sense; the message names it and says what belongs there.
    """
    check_rate(options["control_hz"])
    for name in _FLAGS:
        flag(name, options[name])
    for name in _TEXTS:
        value = options[name]
        if not (isinstance(value, str) or (value is None and name in _MAY_BE_NONE)):
            raise InputError(f"{name}={short(value)} must be text, not {type(value).__name__}")
    if not isinstance(options["instruction"], str):
        flag("instruction", options["instruction"])
    elif options["instruction"] not in Words():
        raise InputError(
            f"instruction={short(options['instruction'])} must be letters, digits, blanks and hyphens, at most {LONGEST}"
        )
    check_driver(options["driver"], options["driver_options"])
    check_setup(options["safety"], options["latencies"])
    for name in ("camera", "outside_camera"):
        if options[name] is not None:
            methods(name, options[name], ("read", "close"), "camera")
    if not callable(options["home_on_reset"]):
        flag("home_on_reset", options["home_on_reset"])
    if options["success"] is not None and not callable(options["success"]):
        raise InputError(
            f"success={short(options['success'])} must be a function of the arm's state that returns a bool"
        )
    if options["late_s"] is not None and number("late_s", options["late_s"]) < 0:
        raise InputError(f"late_s={options['late_s']} must not be negative: seconds")
    if options["log_file"] is not None:
        path("log_file", options["log_file"])
    mask = options["image_mask"]
    if mask is not None and not isinstance(mask, np.ndarray):
        raise InputError(f"image_mask must be a bool array (height, width), not {type(mask).__name__}")


def check_rate(control_hz: Any) -> None:
    """Steps per second.

    Raises:
        InputError: no number, or out of range.
    """
    if not 1 <= number("control_hz", control_hz) <= 100:
        raise InputError(f"control_hz={control_hz} must be between 1 and 100 steps per second")


def check_setup(safety: Any, latencies: Any) -> None:
    """Limits and latencies, or ``None`` for their defaults.

    Raises:
        InputError: something else.
    """
    if safety is not None:
        instance("safety", safety, SafetyConfig, "SafetyConfig(speed=0.1)")
    if latencies is not None:
        instance("latencies", latencies, Latencies, "Latencies(action_s=0.05)")


def check_driver(driver: Any, made_with: Mapping[str, Any], *, known: tuple[str, ...] = MADE_WITH) -> None:
    """A driver or the name of one, and options for the latter.

    Raises:
        InputError: neither, or options that nothing would come of.
    """
    unknown = sorted(set(made_with) - set(known))
    if unknown:
        raise InputError(f"{unknown[0]!r} is no option of the arm: a driver is made with {', '.join(known)}")
    if isinstance(driver, str):
        return
    if not hasattr(driver, "clock"):
        raise InputError(
            f"driver={short(driver)} is no driver: pass 'sim', 'arx5', or an object with a clock and a driver's methods"
        )
    if made_with:
        name = sorted(made_with)[0]
        raise InputError(f"{name}= is for drivers by name: the one that was given has been made already")
