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

_BLOCK = 32
"""Frames that are shifted alike."""
KEPT_BYTES = 1 << 30
"""Of reduced frames that are made once."""


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

    There are a few variants of every frame, reduced to what the network sees: see :class:`MovedFrames`.
    """

    name = "points"
    batch_setting = "batch_size {} of keypoints.detector, in a copy of the run's recipe.json"

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
        self.moved = MovedFrames(recipe, train, detector, variants)
        rows = slice(None, None, max(1, held_out.steps // 512))
        self.held_out = held_out.arrays["pixels"][rows]
        self.held_out_keypoints = stack_keypoints(recipe.data.frame_state_keys, held_out)[rows]

    def inputs(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """Reduced images (B, 3, h, w) and points (B, 2 * K) in [-1, 1]."""
        size, seed = self.config.batch_size, self.recipe.seed
        chosen = EpochOrder(len(self.moved), 1, size, seed, rank, world).at(step)[0]
        return {
            "reduced": to_images(self.moved.reduced(chosen)),
            "keypoints": torch.from_numpy(self.moved.keypoints(chosen) * self.scale + self.offset).flatten(1),
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


class MovedFrames:
    """Variants of frames and keypoints: every other one mirrored, all but the first two shifted, anew every 32 frames.

    The network is so small that augmenting frames takes longer than training on them: where all of them fit into
    :data:`KEPT_BYTES`, reduced to what the network sees, they are made once. Otherwise those of a batch are made for it.

    Args:
        recipe: says how far, and where keypoints are.
        data: the episodes.
        detector: says what is kept of a frame.
        variants: how many.
    """

    def __init__(
        self, recipe: UVARecipe, data: Episodes, detector: PooledDetector | ConvDetector, variants: int
    ) -> None:
        self.frames, self.steps, self.variants = data.arrays["pixels"], data.steps, variants
        self._reduce = detector.reduce
        self._true = stack_keypoints(recipe.data.frame_state_keys, data).astype(np.float32)
        self._mirror = recipe.augmentation.mirror
        self._size = recipe.plane.size
        shift = np.zeros((variants, -(-data.steps // _BLOCK), 2), np.int64)
        for number in range(2, variants):
            limit = recipe.augmentation.max_shift + 2 if recipe.augmentation.max_shift else 0
            rng = np.random.default_rng([recipe.seed, number])
            shift[number] = [rng.integers(-limit, limit + 1, 2) for _ in shift[number]]
        self._shift = shift
        size = detector.reduce(np.asarray(self.frames[:1])).shape[1:]
        self._kept: np.ndarray | None = None
        if len(self) * int(np.prod(size)) <= KEPT_BYTES:
            self._kept = np.empty((len(self), *size), np.uint8)
            for begin in range(0, data.steps, 512):
                row = np.arange(begin, min(begin + 512, data.steps))
                frames = np.asarray(self.frames[row])
                for number in range(variants):
                    moved = self._made(frames.copy(), np.full(len(row), number), row)
                    self._kept[number * data.steps + row] = moved

    def __len__(self) -> int:
        return self.variants * self.steps

    def reduced(self, chosen: np.ndarray) -> np.ndarray:
        """uint8 (B, h, w, 3) of what is chosen (B,), numbered variant by variant."""
        if self._kept is not None:
            kept: np.ndarray = self._kept[chosen]
            return kept
        variant, row = np.divmod(chosen, self.steps)
        return self._made(np.asarray(self.frames[row]), variant, row)

    def keypoints(self, chosen: np.ndarray) -> np.ndarray:
        """Where keypoints are in those, float32 (B, K, 2)."""
        variant, row = np.divmod(chosen, self.steps)
        moved: np.ndarray = self._true[row]
        mirrored = self._mirrored(variant)
        moved[mirrored] = self._size - moved[mirrored][..., ::-1]
        shift = self._shift[variant, row // _BLOCK].astype(np.float32) * np.float32(self._size / self.frames.shape[1])
        moved += shift[:, None]
        return moved

    def _mirrored(self, variant: np.ndarray) -> np.ndarray:
        mirrored: np.ndarray = (variant % 2 == 1) & self._mirror
        return mirrored

    def _made(self, frames: np.ndarray, variant: np.ndarray, row: np.ndarray) -> np.ndarray:
        """These frames of the data, reduced; they are written over."""
        mirrored = self._mirrored(variant)
        frames[mirrored] = frames[mirrored][:, ::-1, ::-1].transpose(0, 2, 1, 3)
        shift = self._shift[variant, row // _BLOCK]
        # Neighbours are mostly shifted alike.
        for part in np.split(np.arange(len(row)), np.flatnonzero((np.diff(shift, axis=0) != 0).any(1)) + 1):
            frames[part] = shift_frames(frames[part], *shift[part[0]].tolist())
        return self._reduce(frames)


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
