"""Fréchet video distance, as the released code measures imagined videos (paper Table IV).

The features come from a network that the caller brings: the usual one is an I3D trained on Kinetics-400 that is passed around as a
TorchScript file, and TorchScript files run code, so only load one from a source you trust.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features, (N, D) and (M, D).

    Covariances divide by N - 1. With N below D they are singular and the distance depends on N: report N with it.

    Raises:
        ValueError: fewer than two rows, different D, or features that are not finite.
    """
    a, b = np.asarray(real, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features must be (N, D) and (M, D) with N, M of at least 2, got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("features have NaN or infinity")
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # tr sqrt(AB) = tr sqrt(sqrt(A) B sqrt(A)), whose argument is symmetric: real eigenvalues, also where A is singular.
    values, vectors = np.linalg.eigh(np.atleast_2d(first))
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ np.atleast_2d(second) @ root).clip(0)).sum()
    gap = np.square(a.mean(0) - b.mean(0)).sum()
    return float(gap + np.trace(np.atleast_2d(first)) + np.trace(np.atleast_2d(second)) - 2 * cross)


def preprocess(videos: np.ndarray, *, resolution: int = 224) -> Tensor:
    """uint8 (B, F, H, W, 3) -> (B, 3, F, resolution, resolution) in [-1, 1]: the shorter side resized, the middle cropped."""
    if videos.ndim != 5 or videos.shape[-1] != 3 or videos.dtype != np.uint8:
        raise ValueError(f"videos must be uint8 (B, F, H, W, 3), got {videos.dtype} {videos.shape}")
    b, f, h, w, _ = videos.shape
    frames = torch.from_numpy(videos).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    scale = resolution / min(h, w)
    size = (resolution, math.ceil(w * scale)) if h <= w else (math.ceil(h * scale), resolution)
    frames = interpolate(frames, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - resolution) // 2, (size[1] - resolution) // 2
    frames = frames[..., top : top + resolution, left : left + resolution]
    return (2 * frames - 1).view(b, f, 3, resolution, resolution).transpose(1, 2)


@torch.no_grad()
def frechet_video_distance(
    real: Iterable[np.ndarray],
    generated: Iterable[np.ndarray],
    features: Callable[[Tensor], Tensor],
    *,
    resolution: int = 224,
) -> float:
    """Distance between two sets of videos.

    Args:
        real, generated: batches of uint8 (B, F, H, W, 3).
        features: (B, 3, F, H, W) in [-1, 1] -> (B, D).
    """

    def collect(batches: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([features(preprocess(batch, resolution=resolution)).cpu().numpy() for batch in batches])

    return frechet_distance(collect(real), collect(generated))
