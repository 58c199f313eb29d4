"""Options of ``uva/ArxX5-v0`` that go with weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uva_agents.envs.arx_x5.observing import CAMERAS, OUTSIDE, WRIST


def cameras_for(interface: Any) -> tuple[str, ...]:
    """The cameras that weights look through, the main one first: as they say, or as the second one's key says.

    Weights that say nothing and have a single camera are taken to have the wrist's.

    Args:
        interface: with the attributes of an :class:`~uva_agents.checkpoints.InterfaceSpec`.
    """
    second = None if getattr(interface, "wrist_shape", None) is None else _second(interface)
    named = tuple(getattr(interface, "cameras", ()))
    if len(named) == (1 if second is None else 2) and {*named} <= {*CAMERAS}:
        return named
    if second is None:
        return (WRIST,)
    second = second.removeprefix("pixels_")
    return (WRIST, OUTSIDE) if second == OUTSIDE else (OUTSIDE, WRIST)


def _second(interface: Any) -> str:
    return str(getattr(interface, "wrist_key", "pixels_wrist"))


def options_for(interface: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Pictures, rate and kind of actions of weights, on the twin the instruction too; see :mod:`uva_agents.envs.fitting`."""
    options: dict[str, Any] = {
        "image_size": tuple(interface.image_shape),
        "control_hz": float(interface.control_hz),
        # Joints and poses with a rotation vector have the same length: who acts in joints has to say it.
        "action_mode": "absolute_vector" if len(interface.action_low) == 7 else "absolute",
    }
    if not given.get("outside"):
        options["cameras"] = dict(zip(("pixels", _second(interface)), cameras_for(interface), strict=False))
    if given.get("driver", "sim") == "sim":
        options["instruction"] = True
    return options
