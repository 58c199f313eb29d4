"""Augmentation that keeps dynamics exact: image and coordinates move together.

Two symmetries of planar pushing, applied to whole episodes so that every window stays consistent:

* **shift** by whole pixels: frames, positions and actions all move. The goal region moves too, so the relation between
  block and goal that a policy acts on is unchanged; only the walls are off, by a few pixels.
* **mirror** about the anti-diagonal, (x, y) -> (size - y, size - x): maps the standard PushT goal onto itself, so it is exact.

Latents are cached, so each variant of the dataset is encoded once; a variant draws its own shift for every episode. Colour or
blur augmentation would need a fresh encoding per draw and is deliberately absent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uva_agents.data.episodes import Episodes
from uva_agents.errors import InputError

POINT_KEYS = ("action", "agent_pos", "keypoints")


@dataclass(frozen=True)
class Variant:
    """One variant of a dataset.

    Args:
        mirror: reflect about the anti-diagonal.
        max_shift: largest shift, image pixels, drawn per episode from ``seed``; 0 for none.
        seed: of the shifts.
    """

    mirror: bool = False
    max_shift: int = 0
    seed: int = 0

    @property
    def identity(self) -> bool:
        """Whether it changes nothing."""
        return not self.mirror and self.max_shift == 0

    def shifts(self, n_episodes: int) -> np.ndarray:
        """(E, 2) whole pixels (dx, dy) per episode."""
        if self.max_shift == 0:
            return np.zeros((n_episodes, 2), dtype=np.int64)
        rng = np.random.default_rng(self.seed)
        return rng.integers(-self.max_shift, self.max_shift + 1, (n_episodes, 2))


def standard_variants(count: int, *, max_shift: int = 4, mirror: bool = True) -> tuple[Variant, ...]:
    """``count`` variants: the data itself first, then its mirror image, then shifted ones, every other one mirrored."""
    if count < 1:
        raise ValueError(f"at least one variant is needed, got {count}")
    return tuple(
        Variant(mirror=mirror and i % 2 == 1, max_shift=0 if i < 2 else max_shift, seed=i) for i in range(count)
    )


def apply_variant(episodes: Episodes, variant: Variant, *, world_size: float | None) -> Episodes:
    """The transformed episodes.

    Args:
        world_size: side of the square world that an image spans, in the units of the coordinates (512 for PushT); ``None`` where
            coordinates are not those of the picture's plane: pictures are then shifted alone, and numbers stay.

    Raises:
        InputError: a mirrored variant of data whose coordinates are not the picture's.
    """
    if variant.identity:
        return episodes
    if world_size is None and variant.mirror:
        raise InputError(f"{episodes.source}: a mirrored picture needs mirrored coordinates, and these have no plane")
    pixels = np.empty(episodes.arrays["pixels"].shape, np.uint8)
    for begin in range(0, len(pixels), 512):
        end = min(begin + 512, len(pixels))
        pixels[begin:end] = varied_frames(episodes, variant, begin, end)
    numbers = move_coordinates(episodes, variant, world_size=world_size)
    return Episodes({**numbers, "pixels": pixels}, episodes.ends, episodes.source)


def varied_frames(episodes: Episodes, variant: Variant, begin: int, end: int, *, key: str = "pixels") -> np.ndarray:
    """Frames uint8 (n, H, W, 3) of the rows from ``begin`` to ``end`` of a variant: nothing else of it is made."""
    frames = np.asarray(episodes.arrays[key][begin:end])
    if variant.identity:
        return frames
    out, shifts = np.empty_like(frames), variant.shifts(len(episodes))
    episode = int(np.searchsorted(episodes.ends, begin, side="right"))
    first = begin
    while first < end:
        last = min(int(episodes.ends[episode]), end)
        part = frames[first - begin : last - begin]
        if variant.mirror:
            part = part[:, ::-1, ::-1].transpose(0, 2, 1, 3)
        out[first - begin : last - begin] = shift_frames(part, *shifts[episode].tolist())
        first, episode = last, episode + 1
    return out


def move_coordinates(episodes: Episodes, variant: Variant, *, world_size: float | None) -> dict[str, np.ndarray]:
    """All arrays but the pictures, with every coordinate in :data:`POINT_KEYS` transformed."""
    numbers = {key: value for key, value in episodes.arrays.items() if not key.startswith("pixels")}
    if variant.identity or world_size is None:  # poses of a robot, say, are no points of a plane, and need not be
        return numbers
    unit = world_size / episodes.arrays["pixels"].shape[1]
    lengths = np.diff(episodes.ends, prepend=0)
    shift = np.repeat(variant.shifts(len(episodes)), lengths, axis=0) * unit
    return {
        key: _move_points(value, variant.mirror, shift, world_size) if key in POINT_KEYS else value
        for key, value in numbers.items()
    }


def shift_frames(frames: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """(N, H, W, 3) moved right by dx and down by dy whole pixels; edges are replicated."""
    if dx == 0 and dy == 0:
        return frames
    rows = np.clip(np.arange(frames.shape[1]) - dy, 0, frames.shape[1] - 1)
    columns = np.clip(np.arange(frames.shape[2]) - dx, 0, frames.shape[2] - 1)
    return frames[:, rows][:, :, columns]


def _move_points(value: np.ndarray, mirror: bool, shift: np.ndarray, size: float) -> np.ndarray:
    """(N, 2k) interleaved x, y."""
    points: np.ndarray = value.reshape(len(value), -1, 2).astype(np.float32)
    if mirror:
        points = size - points[..., ::-1]
    return (points + shift[:, None].astype(np.float32)).reshape(value.shape)
