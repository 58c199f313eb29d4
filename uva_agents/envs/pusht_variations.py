"""Visual variations of PushT: the values they take, how users write them, and how they are sampled."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pygame

from uva_agents.envs.checks import WrongTypeError
from uva_agents.errors import InputError

RGB = tuple[int, int, int]

OBJECT_SHAPES = ("circle", "square", "triangle")
DISTINCT = 60.0
"""Drawn colours are at least this far (RGB, Euclidean) from each other, from what they replace, and from what is there."""
_MARK, _MARK_EXTENT = (
    (227.0, 285.0),
    80.0,
)  # middle and extent: a drawn object lies beside it, or it would be half hidden
LEAST_SHIFT = 8
"""A drawn camera shift is at least this many pixels of the workspace in x or in y."""


@dataclass(frozen=True, slots=True)
class BackgroundObject:
    """Something on the floor, under the mark, that touches nothing: shape, colour, middle and half its width (pixels of 512)."""

    shape: int
    color: RGB
    position: tuple[float, float]
    radius: float


@dataclass(frozen=True, slots=True)
class Lighting:
    """Brightness where the light comes from, its direction (radians), and the share of it that the far side lacks."""

    brightness: float
    direction: float
    falloff: float


@dataclass(frozen=True, slots=True)
class Appearance:
    """How an episode looks. The defaults are ``Normal``: the colours of ``uva/PushT-v0`` and nothing else.

    Attributes:
        names: the variations that are in effect.
        background_color, goal_color, agent_color, block_color: fill colours. As in PushT, block and agent have a lighter inside.
        background_object: something under the mark, or ``None``.
        lighting: or ``None`` for even light.
        camera_shift: pixels of the workspace, by which the picture moves to the right and down.
        noise: standard deviation in grey levels.
        noise_seed: each moment of an episode has its own noise, which depends on this seed only.
    """

    names: tuple[str, ...] = ()
    background_color: RGB = (255, 255, 255)
    background_object: BackgroundObject | None = None
    goal_color: RGB = (144, 238, 144)
    agent_color: RGB = (65, 105, 225)
    block_color: RGB = (119, 136, 153)
    lighting: Lighting | None = None
    camera_shift: tuple[int, int] = (0, 0)
    noise: float = 0.0
    noise_seed: int = 0
    saved_as: ClassVar[str] = "Look"

    def values(self) -> dict[str, Any]:
        """Name -> value of the variations in effect, as they can be given back to ``reset``."""
        everything = asdict(self)
        return {name: everything[name] for name in self.names}


NORMAL = Appearance()


def _color() -> gym.spaces.Box:
    return gym.spaces.Box(0, 255, (3,), np.uint8)


def _number(low: float, high: float) -> gym.spaces.Box:
    return gym.spaces.Box(low, high, (), np.float32)


def variation_space() -> gym.spaces.Dict:
    """Every variation and the values it takes; a sample of it, or a part of one, is a ``variation`` option."""
    return gym.spaces.Dict(
        {
            "background_color": _color(),
            "background_object": gym.spaces.Dict(
                {
                    "shape": gym.spaces.Discrete(len(OBJECT_SHAPES)),
                    "color": _color(),
                    "position": gym.spaces.Box(60.0, 452.0, (2,), np.float32),
                    "radius": _number(25.0, 50.0),
                }
            ),
            "goal_color": _color(),
            "agent_color": _color(),
            "block_color": _color(),
            "lighting": gym.spaces.Dict(
                {
                    "brightness": _number(0.6, 1.0),
                    "direction": _number(-math.pi, math.pi),
                    "falloff": _number(0.2, 0.6),
                }
            ),
            "camera_shift": gym.spaces.Box(-40, 40, (2,), np.int64),
            "noise": _number(8.0, 40.0),
        }
    )


VARIATIONS = tuple(variation_space())


def checked_variation(value: Any) -> dict[str, Any]:
    """``value``, as a user writes it, as name -> checked value, or ``None`` where the value is to be drawn.

    Args:
        value: ``None`` or ``"Normal"``, a name, ``"all"``, a list of names, or a dict name -> value or ``None``.

    Raises:
        ValueError: an unknown name, with the close one; or a value outside :func:`variation_space`.
        TypeError: none of the above.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        value = (value,)
    if isinstance(value, Mapping):
        asked = dict(value)
    elif isinstance(value, Iterable):
        asked = dict.fromkeys(value)
    else:
        raise WrongTypeError(
            f"a variation is a name, a list of names or a dict name -> value, not {type(value).__name__}"
        )
    if list(asked.items()) == [("Normal", None)]:
        return {}
    if list(asked.items()) == [("all", None)]:
        asked = dict.fromkeys(VARIATIONS)
    space, checked = variation_space(), {}
    for name, wanted in asked.items():
        if name not in VARIATIONS:
            if name in ("Normal", "all"):
                raise InputError(f"variation {name!r} stands alone: leave it out, or the other names")
            close = difflib.get_close_matches(str(name), (*VARIATIONS, "Normal", "all"), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(VARIATIONS)}"
            raise InputError(f"no variation called {name!r}; {hint}")
        checked[name] = None if wanted is None else _checked(wanted, space[name], name)
    return checked


def draw_appearance(asked: Mapping[str, Any], rng: np.random.Generator) -> Appearance:
    """The appearance of an episode: values given, the others drawn from :func:`variation_space`.

    Draws in which two objects could hardly be told apart, one would be hidden, or nothing would change, are drawn again.

    Args:
        asked: from :func:`checked_variation`.
        rng: all that is drawn, the noise's seed included.
    """
    if not asked:
        return NORMAL
    names = tuple(name for name in VARIATIONS if name in asked)
    space = variation_space()
    space.seed(int(rng.integers(2**31)))
    noise_seed = int(rng.integers(2**31))
    for _ in range(1000):
        # All are drawn, whichever are asked for: a value then does not depend on what else varies.
        drawn = space.sample()
        values = {name: _plain(drawn[name], name) if asked[name] is None else asked[name] for name in names}
        appearance = replace(NORMAL, names=names, noise_seed=noise_seed, **values)
        if _tells_apart(appearance, {name for name in names if asked[name] is None}):
            break
    return appearance  # with colours given by the caller there may be none that is better


def _tells_apart(appearance: Appearance, drawn: set[str]) -> bool:
    colors = {
        name: getattr(appearance, name) for name in ("background_color", "goal_color", "agent_color", "block_color")
    }
    if appearance.background_object is not None:
        colors["background_object"] = appearance.background_object.color
    for name in drawn & set(colors):
        others = [color for other, color in colors.items() if other != name]
        if name != "background_object":
            others.append(getattr(NORMAL, name))
        if min(math.dist(colors[name], other) for other in others) < DISTINCT:
            return False
    background = appearance.background_object
    if (
        background is not None
        and "background_object" in drawn
        and math.dist(background.position, _MARK) < _MARK_EXTENT + background.radius
    ):
        return False
    return "camera_shift" not in drawn or max(map(abs, appearance.camera_shift)) >= LEAST_SHIFT


def _checked(value: Any, space: gym.Space[Any], name: str) -> Any:
    """``value`` in plain Python types, inside ``space``."""
    if isinstance(space, gym.spaces.Dict):
        if not isinstance(value, Mapping) or set(value) != set(space):
            given = sorted(value) if isinstance(value, Mapping) else repr(value)
            raise InputError(f"{name} is a dict with exactly {', '.join(space)}; got {given}")
        return _plain({key: _checked(value[key], space[key], f"{name}[{key!r}]") for key in space}, name)
    if isinstance(space, gym.spaces.Discrete):
        if isinstance(value, str) and value in OBJECT_SHAPES:
            return OBJECT_SHAPES.index(value)
        if isinstance(value, str) or not space.contains(value):
            raise InputError(f"{name}={value!r}: choose {', '.join(OBJECT_SHAPES)}, or 0 to {len(OBJECT_SHAPES) - 1}")
        return int(value)
    assert isinstance(space, gym.spaces.Box)
    if isinstance(value, str):
        try:
            value = tuple(pygame.Color(value))[:3]
        except ValueError:
            raise InputError(
                f"{name}={value!r} is no colour: use a name such as 'orange', or (red, green, blue)"
            ) from None
    low, high = space.low.min(), space.high.max()
    whole = np.issubdtype(space.dtype, np.integer)
    try:
        number = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        number = np.full((), np.nan)
    # A float32 sample at the upper end may exceed it as a float64.
    inside = number.shape == space.shape and bool(((number >= low - 1e-5) & (number <= high + 1e-5)).all())
    if not inside or (whole and (number != np.round(number)).any()):
        kind = "a whole number" if whole else "a number"
        what = kind if space.shape == () else f"{space.shape[0]} {kind[2:]}s"
        raise InputError(f"{name}={value!r}: it takes {what} from {low:g} to {high:g}")
    return _plain(number.astype(space.dtype), name)


def _plain(value: Any, name: str) -> Any:
    """A sample as what :class:`Appearance` holds: hashable, comparable, fit for JSON."""
    if isinstance(value, Mapping):
        parts = {key: _plain(part, f"{name}[{key!r}]") for key, part in value.items()}
        return BackgroundObject(**parts) if name == "background_object" else Lighting(**parts)
    plain = np.asarray(value).tolist()
    return tuple(plain) if isinstance(plain, list) else plain


def __getattr__(name: str) -> Any:
    if name == Appearance.saved_as:  # in pickles of earlier versions
        return Appearance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
