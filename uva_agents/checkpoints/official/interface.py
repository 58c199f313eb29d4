"""The interface of released files: what their tasks have in common by family, the rest from their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uva_agents.checkpoints.official.config import Settings
from uva_agents.checkpoints.spec import InterfaceSpec
from uva_agents.data.conventions import AbsolutePoses, RelativePoses, RelativeProprio
from uva_agents.data.transforms import Transform
from uva_agents.model import UVAConfig


@dataclass(frozen=True)
class Family:
    """What the released tasks of one benchmark have in common.

    Attributes:
        poses: between its environment's actions and a network's with ten numbers; none for plain actions.
        control_hz: control rate.
        env_id: the environment, where the package has one.
        bounds: of every number of an action, where they are known.
    """

    poses: tuple[Transform, ...] = ()
    control_hz: float = 10.0
    env_id: str | None = None
    bounds: tuple[float, float] | None = None


FAMILIES: Mapping[str, Family] = {
    "pusht": Family(env_id="uva/PushT-v0", bounds=(0.0, 512.0)),
    "libero": Family((AbsolutePoses(),), 20.0, "uva/Libero10-v0"),
    "tool": Family((AbsolutePoses(),), 20.0, "uva/ToolHang-v0"),
    "umi": Family((RelativePoses(),), 20.0),
}
"""By a part of the task's name in the configuration; the first that is there counts."""


def interface(settings: Settings, network: UVAConfig, limits: tuple[Any, Any] | None) -> InterfaceSpec:
    """Interface of a released file.

    Args:
        settings: of the file's configuration.
        limits: smallest and largest action in its training data, or ``None``.
    """
    task = (settings.task or "").lower()
    family = next((family for name, family in FAMILIES.items() if name in task), Family())
    side = settings.image_resolution or network.image_size
    main = settings.main_image or (side, side)
    poses = family.poses if network.action_dim == 10 else ()
    relative = any("now" in transform.needs for transform in poses)
    if family.bounds is not None:
        low, high = ((bound,) * network.action_dim for bound in family.bounds)
    elif not poses and limits is not None:
        low, high = tuple(map(float, limits[0])), tuple(map(float, limits[1]))
    else:
        size = poses[0].environment_size(10) if poses else network.action_dim
        low, high = (-float("inf"),) * size, (float("inf"),) * size
    return InterfaceSpec(
        image_shape=main,
        resize="bilinear",
        wrist_shape=(settings.wrist_image or main) if network.wrist_image else None,
        action_low=low,
        action_high=high,
        action_transforms=poses,
        proprio_key="agent_pos" if network.proprio_dim or relative else None,
        proprio_transforms=(RelativeProprio(),) if network.proprio_dim == 16 or relative else (),
        control_hz=family.control_hz,
        execute=settings.n_action_steps or 8,
        action_offset=0 if settings.shift_action in (None, True) else 1,
        env_id=family.env_id,
    )
