"""From what an environment hands over to arrays the network can trust; a mistake gets an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.errors import MissingKeyError

if TYPE_CHECKING:  # the checks themselves need no torch
    from uva_agents.checkpoints.spec import InterfaceSpec

Instruction = str | np.ndarray | None
"""What to do, in words or as the text encoder's vector (D,)."""


@dataclass(frozen=True)
class Frames:
    """Checked observations of n environments.

    Attributes:
        pixels: uint8 (n, H, W, 3).
        proprio: float32 (n, P), or ``None`` where the weights use none.
        wrist: uint8 (n, h, w, 3), or ``None`` where the weights have no wrist camera.
        task: per environment an instruction, its embedding (D,), or ``None``.
        batched: whether the caller's observation had a leading axis.
    """

    pixels: np.ndarray
    proprio: np.ndarray | None
    batched: bool
    wrist: np.ndarray | None = None
    task: tuple[Instruction, ...] = ()

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
        raise MissingKeyError(
            f"the observation has no 'pixels'; its keys are {sorted(obs)}. Make the environment with image observations"
        )
    pixels = check_pixels(obs["pixels"], spec.image_shape)
    batched = pixels.ndim == 4
    if not batched:
        pixels = pixels[None]
    wrist = None
    if spec.wrist_shape is not None:
        if "pixels_wrist" not in obs:
            raise MissingKeyError(
                f"the observation has no 'pixels_wrist', which these weights use; its keys are {sorted(obs)}"
            )
        wrist = check_pixels(obs["pixels_wrist"], spec.wrist_shape)
        wrist = wrist if batched else wrist[None]
        if len(wrist) != len(pixels):
            raise ValueError(f"{len(pixels)} 'pixels' and {len(wrist)} 'pixels_wrist'")
    return Frames(
        pixels,
        _read_proprio(obs, spec, proprio_dim, len(pixels), batched),
        batched,
        wrist,
        _read_task(obs, len(pixels), batched),
    )


def _read_proprio(
    obs: Mapping[str, Any], spec: InterfaceSpec, network_size: int, n: int, batched: bool
) -> np.ndarray | None:
    if spec.proprio_key is None or not (network_size or spec.proprio_pose):
        return None
    if spec.proprio_key not in obs:
        raise MissingKeyError(
            f"the observation has no {spec.proprio_key!r}, which these weights use; its keys are {sorted(obs)}"
        )
    size = spec.proprio_size(network_size)
    proprio = to_numpy(obs[spec.proprio_key]).astype(np.float32)
    proprio = proprio if batched else proprio[None]
    if proprio.shape != (n, size):
        raise ValueError(f"{spec.proprio_key!r} must be ({size},) per observation, got {proprio.shape[1:]}")
    if not np.isfinite(proprio).all():
        raise ValueError(f"{spec.proprio_key!r} has NaN or infinity")
    return proprio


def _read_task(obs: Mapping[str, Any], n: int, batched: bool) -> tuple[Instruction, ...]:
    """``task_embedding`` where the observation has one, else ``task``."""
    if "task_embedding" in obs:
        rows = to_numpy(obs["task_embedding"]).astype(np.float32)
        rows = rows if rows.ndim == 2 else np.broadcast_to(rows, (n, *rows.shape))
        if rows.ndim != 2 or len(rows) != n or not np.isfinite(rows).all():
            raise ValueError(f"'task_embedding' must be a finite vector per observation, got shape {rows.shape}")
        return tuple(rows)
    if "task" not in obs:
        return (None,) * n
    task = obs["task"]
    if isinstance(task, str):
        return (task,) * n
    words = tuple(str(t) for t in task) if batched else ()
    if len(words) != n:
        raise ValueError(f"'task' must be a str, or one per observation, got {type(task).__name__}")
    return words


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


def split(obs: Any) -> tuple[list[Any], bool]:
    """One observation per environment, arrays as numpy, and whether the observation was a batch.

    Images have three axes and vectors one; one more is a batch.

    Raises:
        TypeError: the ``(obs, info)`` pair that ``env.reset()`` returns.
        ValueError: an empty dict, or entries that disagree about the batch.
    """
    if isinstance(obs, tuple):
        raise TypeError("got a tuple: env.reset() returns (obs, info); pass only obs, as in `obs, info = env.reset()`")
    if not isinstance(obs, Mapping):
        value = to_numpy(obs)
        batched = value.ndim in (2, 4)
        return (list(value) if batched else [value]), batched
    arrays = {key: to_numpy(value) for key, value in obs.items() if not isinstance(value, str)}
    shaped = [key for key in arrays if arrays[key].dtype != object and arrays[key].dtype.kind not in "US"]
    if not shaped:
        raise ValueError(f"the observation has no arrays; its keys are {sorted(obs)}")
    lead = next((key for key in ("pixels", "agent_pos") if key in shaped), shaped[0])
    batched = arrays[lead].ndim in (2, 4)
    if not batched:
        return [{key: value if isinstance(value, str) else _plain(arrays[key]) for key, value in obs.items()}], False
    n = len(arrays[lead])
    wrong = [key for key, value in arrays.items() if value.shape[:1] != (n,)]
    if wrong:
        raise ValueError(f"{lead!r} is a batch of {n}, but {wrong[0]!r} has shape {arrays[wrong[0]].shape}")
    rows = []
    for i in range(n):
        rows.append({key: obs[key] if isinstance(obs[key], str) else _plain(arrays[key][i]) for key in obs})
    return rows, True


def _plain(value: Any) -> Any:
    """What an object array of one element holds; other values as they are."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS" and value.ndim == 0:
        return value.item()
    return str(value) if isinstance(value, np.str_) else value
