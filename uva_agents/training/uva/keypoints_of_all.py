"""Keypoints of every frame of a dataset, found in parts."""

from __future__ import annotations

import numpy as np
import torch

from uva_agents.data import Episodes, Variant
from uva_agents.data.augment import varied_frames
from uva_agents.model.keypoints.detector import ConvDetector, PooledDetector
from uva_agents.utils.images import to_images


@torch.no_grad()
def keypoints_of_all(detector: PooledDetector | ConvDetector, episodes: Episodes, variant: Variant) -> np.ndarray:
    """(N, 2 K) in the frames of a variant."""
    device, parts = next(detector.parameters()).device, []
    for begin in range(0, episodes.steps, 512):
        frames = varied_frames(episodes, variant, begin, min(begin + 512, episodes.steps))
        parts.append(detector(to_images(frames).to(device)).cpu().numpy())
    return np.concatenate(parts)
