"""From what an environment hands over to arrays the network can trust; a mistake gets an error that names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.errors import InputError, MissingKeyError

if TYPE_CHECKING:  # the checks themselves need no torch
    from uva_agents.checkpoints.spec import InterfaceSpec

Instruction = str | np.ndarray | None
"""What to do, in words or as the text encoder's vector (D,)."""


MOST = 1 << 16
"""Observations in one call. More are a mistake in a shape, found before memory is asked for."""
_LONGEST = 1 << 40
"""Bytes of a video: more would be worked on for days."""
_LARGEST = 1 << 31
"""Bytes of one array of an observation, or of a batch. More are a mistake in a shape, too."""


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


def is_masked(value: Any) -> bool:
    """Whether some of its values are masked: the numbers under a mask mean nothing."""
    return isinstance(value, np.ma.MaskedArray) and bool(np.any(getattr(value, "mask", False)))


def to_numpy(value: Any, name: str = "the value") -> np.ndarray:
    """numpy view of an array, a torch tensor on any device, or nested lists.

    Raises:
        InputError: it is none of them, a ragged one, or one with masked values; the message has ``name``.
    """
    parts = value if isinstance(value, list | tuple) else (value,)
    if any(is_masked(part) for part in parts):
        raise InputError(f"{name} has masked values, which are not known: fill or drop them (numpy.ma.filled)")
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            # numpy has no bfloat16; float32 holds every one of its numbers.
            return np.asarray(value.float().numpy() if "bfloat16" in str(value.dtype) else value.numpy())
        return np.asarray(value)
    except Exception as error:  # whatever an object that is no array does when it is asked to be one
        raise InputError(
            f"{name} must be one array, got {_kind(value)}, which cannot be made one ({_first(error)})"
        ) from error


def to_floats(value: Any, name: str) -> np.ndarray:
    """float32 copy of numbers, in the machine's byte order.

    Raises:
        InputError: it holds something else; the message has ``name``.
    """
    array = to_numpy(value, name)
    if array.dtype.kind not in "iuf":
        raise InputError(
            f"{name} must be numbers, got {_kind(value)}{'' if hasattr(value, 'dtype') else f' of {array.dtype}'}"
        )
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused as that
        return array.astype(np.float32)


def _kind(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ if dtype is None else f"{type(value).__name__} of {dtype}"


def _first(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]


def read_observation(obs: Any, spec: InterfaceSpec, proprio_dim: int) -> Frames:
    """Check one observation or a batch against the weights' interface.

    Arrays are copied: environments write the next observation into the same memory, and an agent's history stays as it was.

    Raises:
        TypeError: not a dict, or the ``(obs, info)`` pair that ``env.reset()`` returns.
        KeyError: a key is missing.
        InputError: wrong image layout, size, dtype or range; wrong proprioception.
    """
    _check_dict(obs)
    if "pixels" not in obs:
        raise MissingKeyError(
            f"the observation has no 'pixels'; its keys are {keys_of(obs)}. Make the environment with image observations"
        )
    pixels = check_pixels(obs["pixels"], spec.image_shape)
    batched = pixels.ndim == 4
    if not batched:
        pixels = pixels[None]
    if len(pixels) > MOST:
        raise InputError(
            f"'pixels' are a batch of {len(pixels)}, more than the {MOST} that one call takes: {pixels.shape}"
        )
    wrist = None
    if spec.wrist_shape is not None:
        key = spec.wrist_key
        if key not in obs:
            raise MissingKeyError(
                f"the observation has no {key!r}, which these weights use; its keys are {keys_of(obs)}"
            )
        wrist = check_pixels(obs[key], spec.wrist_shape, name=key)
        if wrist.ndim - 3 != int(batched):
            raise InputError(
                f"'pixels' {np.shape(obs['pixels'])} and {key!r} {wrist.shape} must both be one observation or a batch"
            )
        wrist = wrist if batched else wrist[None]
        if len(wrist) != len(pixels):
            raise InputError(f"{len(pixels)} 'pixels' and {len(wrist)} {key!r}")
        wrist = wrist.copy()
    proprio = _read_proprio(obs, spec, proprio_dim, len(pixels), batched)
    return Frames(pixels.copy(), proprio, batched, wrist, _read_task(obs, len(pixels), batched))


def stack_observations(observations: Sequence[Any]) -> Any | None:
    """Observations with a leading time axis, oldest first, as ``history=`` takes them; ``None`` without any. Texts become lists."""
    if not observations:
        return None
    if not isinstance(observations[0], Mapping):
        return np.stack([np.asarray(o) for o in observations])
    return {
        key: np.stack([o[key] for o in observations])
        if isinstance(value, np.ndarray)
        else [o[key] for o in observations]
        for key, value in observations[0].items()
    }


def keys_of(obs: Mapping[Any, Any]) -> list[str]:
    """For errors; keys may be anything."""
    return sorted(str(key) for key in obs)


def _check_dict(obs: Any) -> None:
    if isinstance(obs, tuple):
        raise TypeError("got a tuple: env.reset() returns (obs, info); pass only obs, as in `obs, info = env.reset()`")
    if not isinstance(obs, Mapping):
        raise TypeError(f"an observation is a dict with 'pixels' (and 'agent_pos'), got {type(obs).__name__}")


def _read_proprio(
    obs: Mapping[str, Any], spec: InterfaceSpec, network_size: int, n: int, batched: bool
) -> np.ndarray | None:
    key, size = spec.proprio_key, spec.proprio_size(network_size)
    if key is None or not size:
        return None
    if key not in obs:
        raise MissingKeyError(f"the observation has no {key!r}, which these weights use; its keys are {keys_of(obs)}")
    shape = np.shape(to_numpy(obs[key], repr(key)))
    wanted = (n, size) if batched else (size,)
    if shape != wanted:
        raise InputError(f"{key!r} must be ({size},) per observation, {wanted} here, got {shape}")
    proprio = to_floats(obs[key], repr(key))
    proprio = proprio if batched else proprio[None]
    bad = np.flatnonzero(~np.isfinite(proprio).all(1))
    if len(bad):
        where = f" in observation {bad[0]} of {n} (counted from 0)" if batched else ""
        raise InputError(f"{key!r} has NaN or infinity{where}")
    return proprio


def _read_task(obs: Mapping[str, Any], n: int, batched: bool) -> tuple[Instruction, ...]:
    """``task_embedding`` where the observation has one, else ``task``."""
    if "task_embedding" in obs:
        value = to_numpy(obs["task_embedding"], "'task_embedding'")
        if value.ndim not in (1, 2) or (value.ndim == 2 and len(value) != n):
            raise InputError(f"'task_embedding' must be a vector, or one per observation, got shape {value.shape}")
        rows = to_floats(value, "'task_embedding'")
        if not np.isfinite(rows).all():
            raise InputError("'task_embedding' must be finite, and has NaN or infinity")
        return tuple(rows if rows.ndim == 2 else np.broadcast_to(rows, (n, *rows.shape)))
    if "task" not in obs:
        return (None,) * n
    task = obs["task"]
    if isinstance(task, str):
        return (str(task),) * n
    if isinstance(task, np.ndarray) and task.ndim == 0 and isinstance(task.item(), str):
        return (task.item(),) * n
    words = list(task) if batched and isinstance(task, list | tuple | np.ndarray) else []
    if len(words) != n or not all(isinstance(word, str) for word in words):
        kinds = sorted({type(word).__name__ for word in words})
        found = f"{len(words)} of {', '.join(kinds)}" if words else type(task).__name__
        raise InputError(f"'task' must be a str, or one per observation, got {found}")
    return tuple(str(word) for word in words)


def check_pixels(
    value: Any, image_shape: tuple[int, int], *, video: bool = False, name: str | None = None
) -> np.ndarray:
    """uint8 images (..., H, W, 3) of the right size.

    Args:
        video: the array is a video (F, H, W, 3) or (B, F, H, W, 3) rather than one image or a batch of images.
        name: of the array, for errors.

    Raises:
        InputError: they are something else; the message says how to convert what it knows.
    """
    what = name or ("frames" if video else "pixels")
    pixels = to_numpy(value, what)
    allowed = (4, 5) if video else (3, 4)
    height, width = image_shape
    if pixels.ndim not in allowed:
        wanted = "(F, H, W, 3) or (B, F, H, W, 3)" if video else "(H, W, 3) or (B, H, W, 3)"
        raise InputError(f"{what} must be {wanted}, got shape {pixels.shape}")
    if pixels.shape[-1] != 3:
        if pixels.shape[-3] == 3:
            raise InputError(
                f"{what} are channels-first {pixels.shape}; move channels last: np.moveaxis({what}, -3, -1)"
            )
        raise InputError(f"{what} must have 3 channels last, got shape {pixels.shape}{stacked(pixels.shape)}")
    if pixels.shape[-3:-1] != (height, width):
        raise InputError(
            f"{what} must be {height}x{width} for these weights, got {pixels.shape[-3]}x{pixels.shape[-2]}; resize them"
        )
    if 0 in pixels.shape:
        raise InputError(f"{what} are an empty batch, shape {pixels.shape}: give at least one observation")
    if video and pixels.nbytes > _LONGEST:
        raise InputError(f"{what} of shape {pixels.shape} have {pixels.nbytes / 2**40:.0f} TiB, which is no video")
    if pixels.dtype != np.uint8:
        raise InputError(f"{what} must be uint8 in [0, 255], got {_conversion(pixels, what)}")
    return pixels


def stacked(shape: tuple[int, ...]) -> str:
    """What is probably wrong with images of 6, 9, 12, ... channels, to be added to a message."""
    channels = min(shape[-1], shape[-3])
    if channels <= 3 or channels % 3:
        return ""
    return (
        f": {channels // 3} frames stacked along the channels, as stable-baselines3's VecFrameStack does; leave the stacking out, "
        "agents remember earlier frames themselves"
    )


def _conversion(pixels: np.ndarray, what: str) -> str:
    """What pixels of another type are, and how to make them uint8."""
    kind = pixels.dtype
    if kind.kind == "b":
        return f"bool: convert them with (255 * {what}.astype(np.uint8))"
    if kind.kind not in "iuf":
        return f"{kind}: give an array of numbers"
    # One image, or the first, says what they are; a large batch is not looked through.
    image = pixels.reshape(-1, *pixels.shape[-3:])[0].astype(np.float64)
    if not np.isfinite(image).all():
        return f"{kind} with NaN or infinity"
    low, high = float(image.min()), float(image.max())
    if kind.kind == "f" and high <= 1.0 and low >= 0.0:
        return f"{kind} scaled to [0, 1]: convert them with (255 * {what}).round().astype(np.uint8)"
    if kind.kind == "f" and high <= 1.0 and low >= -1.0:
        return f"{kind} scaled to [-1, 1]: convert them with (127.5 * ({what} + 1)).round().astype(np.uint8)"
    if low < 0 or high > 255:
        return (
            f"{kind} from {low:g} to {high:g}: scale them to [0, 255], round, and convert them with .astype(np.uint8)"
        )
    rounded = ".round()" if kind.kind == "f" else ""
    return f"{kind} from {low:g} to {high:g}: convert them with {what}{rounded}.astype(np.uint8)"


def split(obs: Any) -> tuple[list[Any], bool]:
    """One observation per environment, arrays as numpy, and whether the observation was a batch.

    Images have three axes and vectors one; one more is a batch.

    Raises:
        TypeError: the ``(obs, info)`` pair that ``env.reset()`` returns.
        ValueError: an empty dict, or entries that disagree about the batch.
    """
    if isinstance(obs, tuple):
        _check_dict(obs)
    if not isinstance(obs, Mapping):
        value = _bounded(to_numpy(obs, "the observation"), "the observation").copy()
        if value.dtype.kind not in "biufc" or not value.size:
            raise InputError(f"an observation is a dict of arrays, or one array of numbers, got {_kind(obs)}")
        batched = value.ndim in (2, 4)
        return (list(value) if batched else [value]), batched
    arrays = {
        key: _bounded(to_numpy(value, repr(key)), repr(key)) for key, value in obs.items() if not isinstance(value, str)
    }
    shaped = [key for key in arrays if arrays[key].dtype != object and arrays[key].dtype.kind not in "US"]
    if not shaped:
        raise InputError(f"the observation has no arrays; its keys are {keys_of(obs)}")
    lead = next((key for key in ("pixels", "agent_pos") if key in shaped), shaped[0])
    batched = arrays[lead].ndim in (2, 4)
    if not batched:
        return [{key: value if isinstance(value, str) else _plain(arrays[key]) for key, value in obs.items()}], False
    n = len(arrays[lead])
    if not 1 <= n <= MOST:
        raise InputError(f"{lead!r} is a batch of {n}: give 1 to {MOST} observations")
    wrong = [key for key, value in arrays.items() if value.shape[:1] != (n,)]
    if wrong:
        raise InputError(f"{lead!r} is a batch of {n}, but {wrong[0]!r} has shape {arrays[wrong[0]].shape}")
    rows = []
    for i in range(n):
        rows.append({key: obs[key] if isinstance(obs[key], str) else _plain(arrays[key][i]) for key in obs})
    return rows, True


def _bounded(value: np.ndarray, name: str) -> np.ndarray:
    if value.nbytes > _LARGEST:
        raise InputError(f"{name} of shape {value.shape} has {value.nbytes / 2**30:.0f} GiB, which is no observation")
    return value


def _plain(value: Any) -> Any:
    """What an object array of one element holds; other values as they are."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS" and value.ndim == 0:
        return value.item()
    if isinstance(value, np.ndarray):
        return value.copy()  # environments write the next observation into the same memory
    return str(value) if isinstance(value, np.str_) else value
