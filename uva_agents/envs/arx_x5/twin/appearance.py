"""How the twin looks: colours, light, things that stand about, cameras a little out of place. Nothing of it can be felt.

A :class:`TwinAppearance` is a value. It is written into the MuJoCo model that physics and pictures share; only pictures read it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Colour = tuple[float, float, float]
Vector = tuple[float, float, float]
SHAPES = ("box", "cylinder", "sphere", "capsule", "ellipsoid")
MOST_DISTRACTORS = 5
TABLES = ("table", "table_flat", "table_checks", "table_dots", "table_stripes")
"""Materials of the table's top. The first one has colours of its own, the others are grey and take any."""
_AWAY = "0 0 -5"


@dataclass(frozen=True, slots=True)
class Distractor:
    """A thing that has no part in the task. It is only seen: the arm goes through it.

    Attributes:
        shape: one of :data:`SHAPES`.
        size: (3,) of MuJoCo's geoms, metres.
        position: (3,) of its centre, metres, base frame.
        yaw: rad.
        colour: red, green, blue in [0, 1].
    """

    shape: str
    size: Vector
    position: Vector
    yaw: float
    colour: Colour


@dataclass(frozen=True, slots=True)
class Lamp:
    """A light: where it is, where it shines, how brightly. Metres, a direction, colours in [0, 1]."""

    position: Vector
    direction: Vector
    diffuse: Colour


@dataclass(frozen=True, slots=True)
class CameraOffset:
    """How far a camera is from where it should be.

    Attributes:
        camera: its name in the model.
        shift: (3,) metres, in the frame of what carries it.
        turn: (3,) a rotation vector in rad, in the camera's own frame.
    """

    camera: str
    shift: Vector
    turn: Vector


@dataclass(frozen=True, slots=True)
class TwinAppearance:
    """What differs from how the twin was built; the default differs in nothing.

    Attributes:
        name: by which it was drawn, one of :data:`~uva_agents.envs.arx_x5.twin.appearance_draws.LOOKS`.
        table: material of the table's top, one of :data:`TABLES`.
        colours: (material, colour) of what has another one.
        lamps: the two lights; none for those that were built.
        headlight: ambient and diffuse light of the camera's own lamp; ``None`` for those that were built.
        distractors: at most :data:`MOST_DISTRACTORS`.
        cameras: those that are out of place.
    """

    name: str = "plain"
    table: str = "table"
    colours: tuple[tuple[str, Colour], ...] = ()
    lamps: tuple[Lamp, ...] = ()
    headlight: tuple[Colour, Colour] | None = None
    distractors: tuple[Distractor, ...] = ()
    cameras: tuple[CameraOffset, ...] = ()


PLAIN = TwinAppearance()


def appearance_assets_xml() -> str:
    """Materials that tables may have besides the plain one; grey, for colours to be multiplied with."""
    grey = 'rgb1="0.98 0.98 0.98" width="64" height="64"'
    return f"""
    <texture name="checks" type="2d" builtin="checker" rgb2="0.9 0.9 0.9" {grey}/>
    <texture name="dots" type="2d" builtin="flat" mark="random" markrgb="0.7 0.7 0.7" random="0.08" {grey}/>
    <texture name="stripes" type="2d" builtin="gradient" rgb2="0.72 0.72 0.72" {grey}/>
    <material name="table_flat" specular="0.1"/>
    <material name="table_checks" texture="checks" texrepeat="8 8" texuniform="true" specular="0.1"/>
    <material name="table_dots" texture="dots" texrepeat="3 3" texuniform="true" specular="0.1"/>
    <material name="table_stripes" texture="stripes" texrepeat="14 14" texuniform="true" specular="0.1"/>"""


def distractors_xml() -> str:
    """Places for distractors, out of sight."""
    return "".join(
        f'<body name="distractor{i}" pos="{_AWAY}"><geom name="distractor{i}" type="sphere" size="0.02" mass="0" '
        'contype="0" conaffinity="0"/></body>'
        for i in range(MOST_DISTRACTORS)
    )


class AppearanceWriter:
    """Writes looks into a model.

    Args:
        mj: MuJoCo.
        model: as :func:`~uva_agents.envs.arx_x5.twin.model.scene_xml` has it; its look is :data:`PLAIN`.
    """

    def __init__(self, mj: Any, model: Any) -> None:
        self._mj, self._model = mj, model
        self.appearance = PLAIN
        """The present one."""
        light = model.vis.headlight
        self._built = {name: getattr(model, name).copy() for name in _ARRAYS}
        self._headlight = light.ambient.copy(), light.diffuse.copy()

    def apply(self, appearance: TwinAppearance) -> None:
        """From the next picture on, everything looks like that."""
        if appearance == self.appearance:
            return
        model, self.appearance = self._model, appearance
        for name, value in self._built.items():
            getattr(model, name)[:] = value
        model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = appearance.headlight or self._headlight
        model.geom_matid[model.geom("table").id] = model.material(appearance.table).id
        for material, colour in appearance.colours:
            model.mat_rgba[model.material(material).id, :3] = colour
        for i, lamp in enumerate(appearance.lamps):
            model.light_pos[i], model.light_dir[i], model.light_diffuse[i] = lamp.position, lamp.direction, lamp.diffuse
        for i, thing in enumerate(appearance.distractors):
            self._place(i, thing)
        for offset in appearance.cameras:
            camera = model.camera(offset.camera).id
            model.cam_pos[camera] += offset.shift
            rotated = np.empty(4)
            self._mj.mju_mulQuat(rotated, model.cam_quat[camera], _quaternion(offset.turn))
            model.cam_quat[camera] = rotated

    def _place(self, index: int, thing: Distractor) -> None:
        model = self._model
        base, geom = model.body(f"distractor{index}").id, model.geom(f"distractor{index}").id
        model.geom_type[geom] = getattr(self._mj.mjtGeom, f"mjGEOM_{thing.shape.upper()}")
        model.geom_size[geom] = thing.size
        model.geom_rgba[geom] = [*thing.colour, 1.0]
        model.body_pos[base] = thing.position
        model.body_quat[base] = _quaternion((0.0, 0.0, thing.yaw))


_ARRAYS = (
    *("mat_rgba", "geom_matid", "geom_type", "geom_size", "geom_rgba", "body_pos", "body_quat"),
    *("light_pos", "light_dir", "light_diffuse", "cam_pos", "cam_quat"),
)
"""Of the model, that a look may change."""


def _quaternion(vector: Vector) -> np.ndarray:
    """(4,) w first, of a rotation vector in rad."""
    angle = math.sqrt(sum(v * v for v in vector))
    axis = np.array(vector) / angle if angle else np.zeros(3)
    return np.array([math.cos(angle / 2), *(math.sin(angle / 2) * axis)])
