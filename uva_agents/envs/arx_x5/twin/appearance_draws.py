"""Looks drawn from seeds: those that a policy is trained with, and others that it never was.

A draw has five kinds of things in it (:data:`KINDS`), each from a random stream of its own: under one seed ``"unseen-table"`` is
``"varied"`` but for the table. Where things stand does not depend on the look, so that looks are compared on the same episodes.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from uva_agents.envs.arx_x5.twin.appearance import (
    MOST_DISTRACTORS,
    PLAIN,
    CameraOffset,
    Colour,
    Distractor,
    Lamp,
    TwinAppearance,
    Vector,
)
from uva_agents.envs.checks import checked_choice

KINDS = ("table", "objects", "distractors", "light", "gripper")
"""What looks can be unseen in."""
LOOKS = ("plain", "varied", "unseen", *(f"unseen-{kind}" for kind in KINDS))
"""``"plain"``: as built, always the same. ``"varied"``: another one each episode, for training. ``"unseen"``: all of :data:`KINDS`
as they never are in ``"varied"``; ``"unseen-KIND"``: only that one."""

Range = tuple[float, float]
_Draw = Callable[[np.random.Generator, bool], TwinAppearance]

_STREAM = 0x100C
_KEPT_FREE = ((0.02, 0.50), (0.20, 0.50), (-0.10, 0.50))
"""x, y of what a task has put aside, metres."""


def draw_appearance(name: str, seed: int) -> TwinAppearance:
    """The look called ``name``, one of :data:`LOOKS`, of the episode with this seed.

    Raises:
        InputError: no such look.
    """
    checked_choice(name, "looks", LOOKS)
    if name == "plain":
        return PLAIN
    whole = replace(PLAIN, name=name)
    for number, (kind, draw) in enumerate(_DRAWS.items()):
        unseen = kind in KINDS and name in ("unseen", f"unseen-{kind}")
        part = draw(np.random.default_rng([_STREAM, seed, number, int(unseen)]), unseen)
        whole = replace(
            whole,
            table=part.table if kind == "table" else whole.table,
            colours=whole.colours + part.colours,
            lamps=whole.lamps + part.lamps,
            headlight=part.headlight or whole.headlight,
            distractors=whole.distractors + part.distractors,
            cameras=whole.cameras + part.cameras,
        )
    return whole


def _table(rng: np.random.Generator, unseen: bool) -> TwinAppearance:
    floor = _hsv(rng, (0.0, 1.0), (0.0, 0.12), (0.25, 0.6))
    if unseen:
        hue = _one_of(rng, ((0.70, 0.97), (0.44, 0.52)))
        table = str(rng.choice(["table_dots", "table_stripes"]))
        colour = _hsv(rng, hue, (0.4, 0.75), (0.4, 0.85))
        floor = _hsv(rng, (0.0, 1.0), (0.35, 0.7), (0.25, 0.7))
    elif rng.random() < 0.6:
        table, colour = str(rng.choice(["table_flat", "table_checks"])), _hsv(rng, (0.05, 0.11), (0.2, 0.6), (0.4, 0.8))
    else:
        table, colour = str(rng.choice(["table_flat", "table_checks"])), _hsv(rng, (0.0, 1.0), (0.0, 0.1), (0.25, 0.85))
    return TwinAppearance(table=table, colours=((table, colour), ("floor", floor)))


def _objects(rng: np.random.Generator, unseen: bool) -> TwinAppearance:
    if unseen:
        cup = _hsv(rng, _one_of(rng, ((0.0, 0.14), (0.76, 0.9))), (0.6, 0.95), (0.5, 0.9))
        china = _hsv(rng, (0.0, 1.0), (0.3, 0.6), (0.6, 0.95))
        target = _hsv(rng, _one_of(rng, ((0.0, 0.16), (0.5, 0.95))), (0.7, 0.95), (0.6, 0.95))
        block = _hsv(rng, (0.15, 0.85), (0.5, 0.9), (0.4, 0.9))
    else:
        cup = _hsv(rng, (0.56, 0.64), (0.6, 0.9), (0.45, 0.85))
        china = _hsv(rng, (0.0, 1.0), (0.0, 0.08), (0.8, 1.0))
        target = _hsv(rng, (0.31, 0.41), (0.7, 0.95), (0.65, 0.95))
        block = _hsv(rng, (0.97, 1.03), (0.6, 0.9), (0.5, 0.9))
    return TwinAppearance(colours=(("cup", cup), ("china", china), ("target", target), ("block", block)))


def _distractors(rng: np.random.Generator, unseen: bool) -> TwinAppearance:
    count = int(rng.integers(3, MOST_DISTRACTORS + 1) if unseen else rng.integers(0, 4))
    shapes = ("sphere", "capsule", "ellipsoid") if unseen else ("box", "cylinder")
    taken = [np.array(place) for place in _KEPT_FREE]
    things: list[Distractor] = []
    while len(things) < count:
        place = _aside(rng)
        if min(float(np.linalg.norm(place - other)) for other in taken) < 0.11:
            continue
        taken.append(place)
        shape = str(rng.choice(shapes))
        size, height = _size(rng, shape)
        colour = _hsv(rng, (0.0, 1.0), (0.5, 0.95) if unseen else (0.1, 0.7), (0.3, 0.9))
        at = (float(place[0]), float(place[1]), height)
        things.append(Distractor(shape, size, at, float(rng.uniform(-math.pi, math.pi)), colour))
    return TwinAppearance(distractors=tuple(things))


def _light(rng: np.random.Generator, unseen: bool) -> TwinAppearance:
    if unseen:
        # From the other side, in colour, and either dim or glaring.
        bright = _uniform(rng, _one_of(rng, ((0.2, 0.3), (0.85, 1.0))))
        tint = _hsv(rng, _one_of(rng, ((0.02, 0.12), (0.55, 0.7))), (0.2, 0.4), (1.0, 1.0))
        main = (_uniform(rng, (-0.7, -0.3)), _uniform(rng, (0.5, 1.0)), _uniform(rng, (0.9, 1.5)))
        ambient = _uniform(rng, (0.19, 0.26))
    else:
        bright = _uniform(rng, (0.4, 0.7))
        tint = _hsv(rng, (0.05, 0.7), (0.0, 0.08), (1.0, 1.0))
        main = (_uniform(rng, (0.3, 0.9)), _uniform(rng, (-1.1, -0.5)), _uniform(rng, (1.3, 1.9)))
        ambient = _uniform(rng, (0.27, 0.43))
    second = _uniform(rng, (0.15, 0.35)) * bright / 0.55
    lamps = (
        Lamp(main, _towards(main, (0.3, 0.0, 0.0)), _scaled(tint, bright)),
        Lamp((-0.4, 1.0, 1.4), (0.37, -0.56, -0.74), _scaled(tint, second)),
    )
    return TwinAppearance(lamps=lamps, headlight=(_scaled(tint, ambient), _scaled(tint, ambient)))


def _gripper(rng: np.random.Generator, unseen: bool) -> TwinAppearance:
    if unseen:
        finger = _hsv(rng, (0.28, 0.92), (0.5, 0.9), (0.35, 0.9))
        shell = _hsv(rng, (0.0, 1.0), (0.35, 0.7), (0.4, 0.8))
        motor = _hsv(rng, (0.0, 1.0), (0.2, 0.6), (0.45, 0.75))
    else:
        finger = _hsv(rng, (0.02, 0.13), (0.65, 0.95), (0.7, 1.0))
        shell = _hsv(rng, (0.0, 1.0), (0.0, 0.05), (0.7, 0.92))
        motor = _hsv(rng, (0.0, 1.0), (0.0, 0.1), (0.13, 0.3))
    return TwinAppearance(colours=(("finger", finger), ("shell", shell), ("motor", motor)))


def _cameras(rng: np.random.Generator, unseen: bool) -> TwinAppearance:
    def offset(camera: str, metres: float, degrees: float) -> CameraOffset:
        return CameraOffset(camera, _vector(rng, metres), _vector(rng, math.radians(degrees)))

    return TwinAppearance(cameras=(offset("wrist", 0.002, 1.0), offset("outside", 0.015, 1.5)))


_DRAWS: dict[str, _Draw] = {
    "table": _table,
    "objects": _objects,
    "distractors": _distractors,
    "light": _light,
    "gripper": _gripper,
    "cameras": _cameras,
}


def _aside(rng: np.random.Generator) -> np.ndarray:
    """(2,) on the table, where no task has anything to do."""
    if rng.random() < 0.4:
        return np.array([rng.uniform(0.56, 0.70), rng.uniform(-0.45, 0.45)])
    side = 1.0 if rng.random() < 0.5 else -1.0
    return np.array([rng.uniform(0.05, 0.65), side * rng.uniform(0.31, 0.50)])


def _size(rng: np.random.Generator, shape: str) -> tuple[Vector, float]:
    """MuJoCo's size of a thing that stands on the table, and the height of its centre."""
    wide, high = float(rng.uniform(0.014, 0.032)), float(rng.uniform(0.015, 0.055))
    deep = float(rng.uniform(0.014, 0.032))
    return {
        "box": ((wide, deep, high), high),
        "cylinder": ((wide, high, 0.0), high),
        "sphere": ((wide, 0.0, 0.0), wide),
        "capsule": ((wide * 0.7, high, 0.0), high + wide * 0.7),
        "ellipsoid": ((wide, deep, high), high),
    }[shape]


def _uniform(rng: np.random.Generator, between: Range) -> float:
    return float(rng.uniform(*between))


def _vector(rng: np.random.Generator, most: float) -> Vector:
    x, y, z = (float(v) for v in rng.uniform(-most, most, 3))
    return x, y, z


def _one_of(rng: np.random.Generator, ranges: Sequence[Range]) -> Range:
    return ranges[int(rng.integers(len(ranges)))]


def _hsv(rng: np.random.Generator, hue: Range, saturation: Range, value: Range) -> Colour:
    drawn = [_uniform(rng, between) for between in (hue, saturation, value)]
    return colorsys.hsv_to_rgb(drawn[0] % 1.0, *drawn[1:])


def _scaled(colour: Colour, by: float) -> Colour:
    return colour[0] * by, colour[1] * by, colour[2] * by


def _towards(position: Vector, at: Vector) -> Vector:
    direction = np.array(at) - np.array(position)
    x, y, z = (float(v) for v in direction / np.linalg.norm(direction))
    return x, y, z
