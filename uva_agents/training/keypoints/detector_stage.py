"""The keypoint detector, where the data has keypoints: a network that finds them in a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uva_agents.data import Episodes, EpochOrder, LinearNormalizer
from uva_agents.data.augment import shift_frames
from uva_agents.model.keypoints.detector import ConvDetector, PooledDetector
from uva_agents.training.report import Reporter
from uva_agents.training.uva.recipes import UVARecipe
from uva_agents.utils.images import to_images


class DetectorModule(nn.Module):
    """Mean absolute error of the coordinates.

    Args:
        detector: what is trained.
        weights: (2 * K,) of the coordinates, 1 on average.
    """

    def __init__(self, detector: PooledDetector | ConvDetector, weights: Tensor) -> None:
        super().__init__()
        self.detector = detector
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, reduced: Tensor, keypoints: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Reduced images (B, 3, h, w) and keypoints (B, 2 * K) in [-1, 1] -> loss, scalar."""
        error = (self.detector.read_reduced(reduced) - keypoints).abs()
        return (error * self.get_buffer("weights")).mean(), {}


class DetectorStage:
    """Supervised by the keypoints that the demonstrations carry; frames mirrored and shifted, keypoints along with them.

    The network is so small that augmenting frames would take longer than training on them: a few variants are made once,
    reduced to what the network sees (fewer of them where it sees everything, for the sake of memory).
    """

    name = "points"

    def __init__(
        self,
        recipe: UVARecipe,
        detector: PooledDetector | ConvDetector,
        train: Episodes,
        held_out: Episodes,
        normalizer: LinearNormalizer,
    ) -> None:
        if recipe.keypoints is None:
            raise ValueError(f"recipe {recipe.name!r} trains no keypoint detector")
        self.recipe, self.config = recipe, recipe.keypoints.detector
        self.augmentation, self.world = recipe.augmentation, recipe.plane
        self.scale, self.offset = keypoint_scale(recipe.data.frame_state_keys, normalizer)
        weights = torch.ones(recipe.model.num_keypoints, 2)
        weights[: recipe.model.proprio_keypoints] = recipe.keypoints.agent_weight
        self.module: nn.Module = DetectorModule(detector, (weights / weights.mean()).flatten())
        variants = detector.training_variants if self.augmentation.mirror or self.augmentation.max_shift else 1
        size = detector.reduce(train.arrays["pixels"][:1]).shape[1:]
        # One array, filled: joined from parts it would be there twice.
        frames, keypoints = np.empty((variants, train.steps, *size), np.uint8), []
        for number in range(variants):
            keypoints.append(
                self._variant(
                    train, stack_keypoints(recipe.data.frame_state_keys, train), detector, number, frames[number]
                )
            )
        self.frames, self.keypoints = frames.reshape(-1, *size), np.concatenate(keypoints)
        rows = slice(None, None, max(1, held_out.steps // 512))
        self.held_out = held_out.arrays["pixels"][rows]
        self.held_out_keypoints = stack_keypoints(recipe.data.frame_state_keys, held_out)[rows]

    def _variant(
        self,
        data: Episodes,
        keypoints: np.ndarray,
        detector: PooledDetector | ConvDetector,
        number: int,
        out: np.ndarray,
    ) -> np.ndarray:
        """Variant ``number``, frames into ``out``, keypoints returned: every other one mirrored, all but the first two shifted,
        anew every 32 frames.
        """
        augmentation, world = self.augmentation, self.world
        rng = np.random.default_rng([self.recipe.seed, number])
        pixels = data.arrays["pixels"]
        n, h = pixels.shape[:2]
        moved = keypoints.astype(np.float32).copy()
        mirror = augmentation.mirror and number % 2 == 1
        if mirror:
            moved = world.size - moved[..., ::-1]
        limit = 0 if number < 2 or not augmentation.max_shift else augmentation.max_shift + 2
        for begin in range(0, n, 32):
            rows = slice(begin, min(begin + 32, n))
            frames = pixels[rows]
            if mirror:
                frames = frames[:, ::-1, ::-1].transpose(0, 2, 1, 3)
            dx, dy = rng.integers(-limit, limit + 1, 2).tolist()
            frames = shift_frames(frames, dx, dy)
            out[rows] = detector.reduce(frames)
            moved[rows] += np.array([dx, dy], np.float32) * (world.size / h)
        return moved

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """Reduced images (B, 3, h, w) and points (B, 2 * K) in [-1, 1]."""
        size, seed = self.config.batch_size, self.recipe.seed
        chosen = EpochOrder(len(self.frames), 1, size, seed, rank, world).at(step)[0]
        return {
            "reduced": to_images(self.frames[chosen]),
            "keypoints": torch.from_numpy(self.keypoints[chosen] * self.scale + self.offset).flatten(1),
        }

    def validate(self, module: nn.Module, reporter: Reporter, step: int) -> dict[str, float]:
        """Errors of held-out points in the world's unit: mean and median of all, mean of the first."""
        assert isinstance(module, DetectorModule)
        device = next(module.parameters()).device
        read = module.detector(to_images(self.held_out).to(device)).cpu().numpy()
        world = (read.reshape(self.held_out_keypoints.shape) - self.offset) / self.scale
        error = np.linalg.norm(world - self.held_out_keypoints, axis=-1) * self.world.unit_scale
        return {
            f"points_{self.world.unit}": float(error.mean()),
            f"points_median_{self.world.unit}": float(np.median(error)),
            f"first_{self.world.unit}": float(error[:, 0].mean()),
        }


def keypoint_scale(keys: Sequence[str], normalizer: LinearNormalizer) -> tuple[np.ndarray, np.ndarray]:
    """What takes keypoints (..., K, 2) from coordinates to [-1, 1]: factor and summand, (K, 2) float32 each."""
    scale, offset = (
        np.concatenate([np.asarray(values[key], np.float32) for key in keys]).reshape(-1, 2)
        for values in (normalizer.scale, normalizer.offset)
    )
    return scale, offset


def stack_keypoints(keys: Sequence[str], episodes: Episodes) -> np.ndarray:
    """World coordinates of the keypoints in these arrays, (N, K, 2)."""
    joined: np.ndarray = np.concatenate([episodes.arrays[key] for key in keys], axis=1)
    return joined.reshape(len(joined), -1, 2)
