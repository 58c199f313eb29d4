"""Stage 2, where the data has points: a reader that finds them in a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uva_agents.data import Episodes, EpochOrder
from uva_agents.data.augment import shift_frames
from uva_agents.model.points import PointReader
from uva_agents.training.config import Recipe
from uva_agents.training.report import Reporter
from uva_agents.training.vae_stage import to_images


class PointsModule(nn.Module):
    """Mean absolute error of the coordinates."""

    def __init__(self, reader: PointReader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, pooled: Tensor, points: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return (self.reader.read_pooled(pooled) - points).abs().mean(), {}


class PointsStage:
    """Supervised by the key points that the demonstrations carry; frames mirrored and shifted, points along with them.

    The network is so small that augmenting frames would take longer than training on them: a few variants are made once,
    averaged down to what the network sees.
    """

    name = "points"
    variants = 10

    def __init__(self, recipe: Recipe, reader: PointReader, train: Episodes, held_out: Episodes) -> None:
        self.recipe = recipe
        self.module: nn.Module = PointsModule(reader)
        frames, points = [], []
        for number in range(self.variants):
            pooled, moved = self._variant(train, stack_points(recipe, train), reader.pool, number)
            frames.append(pooled)
            points.append(moved)
        self.frames, self.points = np.concatenate(frames), np.concatenate(points)
        some = slice(None, None, max(1, held_out.steps // 512))
        self.held_out = held_out.arrays["pixels"][some]
        self.held_out_points = stack_points(recipe, held_out)[some]

    def _variant(self, data: Episodes, points: np.ndarray, pool: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Variant ``number``: every other one mirrored, all but the first two shifted, anew every 32 frames."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, number])
        pixels = data.arrays["pixels"]
        n, h, w, _ = pixels.shape
        out = np.empty((n, h // pool, w // pool, 3), np.uint8)
        moved = points.astype(np.float32).copy()
        mirror = recipe.mirror and number % 2 == 1
        if mirror:
            moved = recipe.world_size - moved[..., ::-1]
        limit = 0 if number < 2 else recipe.max_shift + 2
        for begin in range(0, n, 32):
            rows = slice(begin, min(begin + 32, n))
            frames = pixels[rows]
            if mirror:
                frames = frames[:, ::-1, ::-1].transpose(0, 2, 1, 3)
            dx, dy = rng.integers(-limit, limit + 1, 2).tolist()
            frames = shift_frames(frames, dx, dy)
            blocks = frames.reshape(len(frames), h // pool, pool, w // pool, pool, 3)
            out[rows] = np.round(blocks.mean((2, 4)))
            moved[rows] += np.array([dx, dy], np.float32) * (recipe.world_size / h)
        return out, moved

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        recipe = self.recipe
        chosen = EpochOrder(len(self.frames), 1, recipe.points.batch_size, recipe.seed, rank, world).at(step)[0]
        return {
            "pooled": to_images(self.frames[chosen]),
            "points": torch.from_numpy(2 * self.points[chosen] / recipe.world_size - 1).flatten(1),
        }

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        assert isinstance(module, PointsModule)
        device = next(module.parameters()).device
        read = module.reader(to_images(self.held_out).to(device)).cpu().numpy()
        world = (read.reshape(self.held_out_points.shape) + 1) / 2 * self.recipe.world_size
        error = np.linalg.norm(world - self.held_out_points, axis=-1)
        return {
            "points_px": float(error.mean()),
            "points_median_px": float(np.median(error)),
            "first_px": float(error[:, 0].mean()),
        }


def stack_points(recipe: Recipe, episodes: Episodes) -> np.ndarray:
    """World coordinates of all read-out points, (N, K, 2)."""
    joined: np.ndarray = np.concatenate([episodes.arrays[key] for key in recipe.readout_keys], axis=1)
    return joined.reshape(len(joined), -1, 2)
