"""Pictures of a planner's decisions in block pushing: what it considered, what it imagined, what would really happen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SCALE = 3
_EVERY = 4
"""Decisions between two pictures."""
_MOST = 6


class DecisionPictures:
    """Writes ``ASSIGNMENT-SEED-STEP.png`` for a few decisions of one episode.

    Asks the planner for a decision of its own, with another seed and without its memory of the last plan: what is drawn is a
    decision like the one it then makes. Planner and environment stay as they were.

    Args:
        folder: of the pictures.
        assignment, seed: of the episode.
        env: acted in.
        world: imagines.
    """

    def __init__(self, folder: Path, assignment: str, seed: int, env: Any, world: Any) -> None:
        from uva_agents.planners import SimulatorModel

        self.folder, self.name = folder, f"{assignment}-{seed}"
        self.world, self.simulator = world, SimulatorModel(env)
        self.count = self.written = 0

    def record(self, step: int, planner: Any, obs: Any, seen: Sequence[Any]) -> None:
        """Before the decision at ``step``; ``seen``: earlier observations."""
        from uva_agents.agents.observations import stack_observations

        self.count += 1
        if (self.count - 1) % _EVERY or self.written >= _MOST:
            return
        history = stack_observations(seen[-15:])
        plan = planner.plan(obs, history=history, seed=step)
        imagined = self.world.rollout(obs, plan.actions[None], history=history)
        real = self.simulator.rollout(obs, plan.actions[None])
        self.written += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(
            self.folder / f"{self.name}-{step:03d}.png", obs["pixels"], plan, imagined.frames[0], real.frames[0]
        )

    def _write(self, path: Path, now: np.ndarray, plan: Any, imagined: np.ndarray, real: np.ndarray) -> None:
        from PIL import Image

        from uva_agents.utils.pictures import enlarge, write_text

        side, gap, top = SCALE * now.shape[0], 6, 26
        wide = 2 * side + gap
        canvas = np.full((top + 2 * side + gap, wide + gap + 4 * (side + gap), 3), 255, np.uint8)
        canvas[top : top + 2 * side, : 2 * side] = self._candidates(enlarge(now, 2 * SCALE), plan)
        text = [
            (
                4,
                4,
                f"now; {len(plan.costs)} candidates, best {plan.cost * 100:.1f} cm, median {np.median(plan.costs) * 100:.1f} cm",
            )
        ]
        for row, frames in enumerate((imagined, real)):
            for column, frame in enumerate(frames):
                y, x = top + row * (side + gap), wide + gap + column * (side + gap)
                canvas[y : y + side, x : x + side] = enlarge(frame, SCALE)
                if row == 0:
                    text.append((x + 4, 4, f"+{4 * (column + 1)}: imagined over real"))
        Image.fromarray(write_text(canvas, text)).save(path)

    def _candidates(self, picture: np.ndarray, plan: Any) -> np.ndarray:
        from PIL import Image, ImageDraw

        from uva_agents.planners.vision.camera import block_push_camera

        image = Image.fromarray(picture)
        draw = ImageDraw.Draw(image)
        camera = block_push_camera((picture.shape[0], picture.shape[1]), 0.03)
        worst_first = np.argsort(plan.costs)[::-1]
        low, high = float(plan.costs.min()), float(plan.costs.max())
        for i in worst_first:
            share = (float(plan.costs[i]) - low) / max(high - low, 1e-9)
            colour = (int(60 + 195 * share), int(200 - 140 * share), 80)
            self._path(draw, camera.to_pixels(plan.candidates[i]), colour, 1)
        self._path(draw, camera.to_pixels(plan.actions), (255, 255, 255), 3)
        return np.asarray(image)

    @staticmethod
    def _path(draw: Any, points: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
        draw.line([tuple(p) for p in points], fill=colour, width=width)
