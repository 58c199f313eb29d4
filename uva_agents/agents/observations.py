"""From what an environment hands over to arrays the network can trust; a mistake gets an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from uva_agents.checkpoints.spec import InterfaceSpec


@dataclass(frozen=True)
class Frames:
    """Checked observations of n environments.

    Attributes:
        pixels: uint8 (n, H, W, 3).
        proprio: float32 (n, P), or ``None`` where the weights use none.
        batched: whether the caller's observation had a leading axis.
    """

    pixels: np.ndarray
    proprio: np.ndarray | None
    batched: bool

    def __len__(self) -> int:
        return len(self.pixels)


def to_numpy(value: Any) -> np.ndarray:
    """numpy view of an array or a torch tensor on any device."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def read_observation(obs: Any, spec: InterfaceSpec, proprio_dim: int) -> Frames:
    """Check one observation or a batch against the weights' interface.

    Raises:
        TypeError: not a dict, or the ``(obs, info)`` pair that ``env.reset()`` returns.
        KeyError: a key is missing.
        ValueError: wrong image layout, size, dtype or range; wrong proprioception.
    """
    if isinstance(obs, tuple):
        raise TypeError("got a tuple: env.reset() returns (obs, info); pass only obs, as in `obs, info = env.reset()`")
    if not isinstance(obs, Mapping):
        raise TypeError(f"an observation is a dict with 'pixels' (and 'agent_pos'), got {type(obs).__name__}")
    if "pixels" not in obs:
        raise KeyError(
            f"the observation has no 'pixels'; its keys are {sorted(obs)}. Make the environment with image observations"
        )
    pixels = check_pixels(obs["pixels"], spec.image_shape)
    batched = pixels.ndim == 4
    if not batched:
        pixels = pixels[None]
    proprio = None
    if proprio_dim and spec.proprio_key is not None:
        if spec.proprio_key not in obs:
            raise KeyError(
                f"the observation has no {spec.proprio_key!r}, which these weights use; its keys are {sorted(obs)}"
            )
        proprio = to_numpy(obs[spec.proprio_key]).astype(np.float32)
        proprio = proprio if batched else proprio[None]
        if proprio.shape != (len(pixels), proprio_dim):
            raise ValueError(f"{spec.proprio_key!r} must be ({proprio_dim},) per observation, got {proprio.shape[1:]}")
        if not np.isfinite(proprio).all():
            raise ValueError(f"{spec.proprio_key!r} has NaN or infinity")
    return Frames(pixels, proprio, batched)


def check_pixels(value: Any, image_shape: tuple[int, int], *, video: bool = False) -> np.ndarray:
    """uint8 images (..., H, W, 3) of the right size.

    Args:
        video: the array is a video (F, H, W, 3) or (B, F, H, W, 3) rather than one image or a batch of images.
    """
    pixels = to_numpy(value)
    allowed = (4, 5) if video else (3, 4)
    what = "frames" if video else "pixels"
    height, width = image_shape
    if pixels.ndim not in allowed:
        wanted = "(F, H, W, 3) or (B, F, H, W, 3)" if video else "(H, W, 3) or (B, H, W, 3)"
        raise ValueError(f"{what} must be {wanted}, got shape {pixels.shape}")
    if pixels.shape[-1] != 3:
        if pixels.shape[-3] == 3:
            raise ValueError(
                f"{what} are channels-first {pixels.shape}; move channels last: np.moveaxis({what}, -3, -1)"
            )
        raise ValueError(f"{what} must have 3 channels last, got shape {pixels.shape}")
    if pixels.dtype != np.uint8:
        top = float(np.nanmax(pixels)) if pixels.size else 0.0
        scale = " and scaled to [0, 255]" if top <= 1.0 else ""
        raise ValueError(
            f"{what} must be uint8 in [0, 255], got {pixels.dtype} with maximum {top:g}; convert them with .astype(np.uint8){scale}"
        )
    if pixels.shape[-3:-1] != (height, width):
        raise ValueError(
            f"{what} must be {height}x{width} for these weights, got {pixels.shape[-3]}x{pixels.shape[-2]}; resize them"
        )
    return pixels
