"""PushT with visual disturbances: other colours, objects, light, camera positions and noise; the dynamics are the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pygame
from gym_pusht.envs.pymunk_override import DrawOptions

from uva_agents.envs.checks import WrongTypeError
from uva_agents.envs.pusht import PushTEnv, PushTState, ResetOptions
from uva_agents.envs.pusht_values import SIZE
from uva_agents.envs.pusht_variations import (
    NORMAL,
    OBJECT_SHAPES,
    Appearance,
    BackgroundObject,
    Lighting,
    checked_variation,
    draw_appearance,
    variation_space,
)


@dataclass(frozen=True, slots=True)
class DisturbedState(PushTState):
    """A moment of an episode with its appearance."""

    appearance: Appearance = NORMAL


class PushTDisturbedEnv(PushTEnv):
    """``uva/PushTDisturbed-v0``: ``uva/PushT-v0`` with other colours, things on the floor, light, camera position or noise.

    ``reset(options={"variation": ["goal_color", "noise"]})`` draws a value for each name, ``{"variation": {"goal_color":
    (255, 0, 0), "noise": None}}`` gives some of them, and a sample of ``variation_space`` gives all. ``"all"`` draws all;
    ``"Normal"`` or an empty list is ``uva/PushT-v0``, bit for bit. Without the option the constructor's ``variation`` holds.

    Only pictures change: starts, motion, reward and success are those of ``uva/PushT-v0`` for the same seed and actions.
    What is drawn depends on the seed of the reset, on nothing else. ``info["variation"]`` holds the values in effect.

    Args:
        render_mode, render_size: as in ``uva/PushT-v0``.
        variation: what varies in every episode whose reset does not say.

    Attributes:
        variation_space: a ``gymnasium.spaces.Dict``, name -> values.
    """

    task = "pusht-disturbed"
    _env_id: ClassVar[str] = "uva/PushTDisturbed-v0"
    _options: ClassVar[tuple[str, ...]] = ("reset_to_state", "variation")
    _state: ClassVar[type[PushTState]] = DisturbedState

    def __init__(
        self, render_mode: str | None = "rgb_array", render_size: int = 512, variation: Any | None = None
    ) -> None:
        super().__init__(render_mode, render_size)
        self.variation_space = variation_space()
        self._variation = checked_variation(variation)
        self._appearance = NORMAL

    def _moment(self) -> tuple[Any, ...]:
        return *super()._moment(), self._appearance

    def _begin(self, options: ResetOptions) -> None:
        asked = self._variation
        if "variation" in options:
            if options["variation"] is None:
                raise WrongTypeError("variation=None: pass 'Normal' or names, or leave the option out")
            asked = checked_variation(options["variation"])
        # A child leaves the stream of the generator as it is: later starts without a seed stay those of uva/PushT-v0.
        self._appearance = draw_appearance(asked, self.np_random.spawn(1)[0])

    def _adopt(self, state: PushTState) -> None:
        assert isinstance(state, DisturbedState)
        self._appearance = state.appearance
        if self._start is not None:
            self._dress()

    def _setup(self) -> None:
        super()._setup()
        self._dress()

    def _dress(self) -> None:
        for body, color in ((self.agent, self._appearance.agent_color), (self.block, self._appearance.block_color)):
            for shape in body.shapes:
                shape.color = pygame.Color(*color)

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "variation": self._appearance.values()}

    # -- drawing: below is the order of gym-pusht, with what the appearance adds ---------------------------

    def _draw(self) -> pygame.Surface:
        appearance = self._appearance
        if appearance == NORMAL:
            normal: pygame.Surface = super()._draw()
            return normal
        screen = pygame.Surface((int(SIZE), int(SIZE)))
        screen.fill(appearance.background_color)
        if appearance.background_object is not None:
            _draw_object(screen, appearance.background_object)
        mark = self.get_goal_pose_body(self.goal_pose)
        for shape in self._block_shapes:
            corners = [mark.local_to_world(v) for v in shape.get_vertices()]
            pygame.draw.polygon(screen, appearance.goal_color, [(round(x), round(y)) for x, y in corners])
        self.space.debug_draw(DrawOptions(screen))
        if appearance.camera_shift != (0, 0):
            moved = pygame.Surface(screen.get_size())
            moved.fill(appearance.background_color)
            moved.blit(screen, appearance.camera_shift)
            screen = moved
        return screen

    def _get_img(self, screen: pygame.Surface, width: int, height: int, render_action: bool = False) -> np.ndarray:
        appearance, action = self._appearance, self._last_action
        if action is not None:
            self._last_action = (action[0] + appearance.camera_shift[0], action[1] + appearance.camera_shift[1])
        try:
            image = np.asarray(super()._get_img(screen, width, height, render_action))
        finally:
            self._last_action = action
        if appearance.lighting is None and not appearance.noise:
            return image
        light = image.astype(np.float32)
        if appearance.lighting is not None:
            light *= _illumination(appearance.lighting, width, height)[..., None]
        if appearance.noise:
            # A function of the moment: looking twice shows the same, and so does looking again after set_state().
            rng = np.random.default_rng((appearance.noise_seed, len(self._actions), width, height))
            light += appearance.noise * rng.standard_normal(light.shape, np.float32)
        return np.asarray(np.clip(np.rint(light), 0, 255).astype(np.uint8))


def _draw_object(screen: pygame.Surface, thing: BackgroundObject) -> None:
    (x, y), r = thing.position, thing.radius
    kind = OBJECT_SHAPES[thing.shape]
    if kind == "circle":
        pygame.draw.circle(screen, thing.color, (round(x), round(y)), round(r))
    elif kind == "square":
        pygame.draw.rect(screen, thing.color, (round(x - r), round(y - r), round(2 * r), round(2 * r)))
    else:
        angles = [math.pi * (k / 1.5 - 0.5) for k in range(3)]
        pygame.draw.polygon(screen, thing.color, [(x + r * math.cos(a), y + r * math.sin(a)) for a in angles])


@lru_cache(maxsize=8)
def _illumination(light: Lighting, width: int, height: int) -> np.ndarray:
    """Factor per pixel, (height, width): full brightness at the edge that the light comes from, less with the way."""
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    cos, sin = math.cos(light.direction), math.sin(light.direction)
    away = (1 - (cos * x + sin * y) / (abs(cos) + abs(sin))) / 2
    return np.asarray(light.brightness * (1 - light.falloff * away), np.float32)
