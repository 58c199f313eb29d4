"""Actions and proprioception of windows: through a robot's conventions, and normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from uva_agents.data.normalizer import LinearNormalizer
from uva_agents.data.transforms import ReferencePoses, Transform, to_network
from uva_agents.data.windows import WindowIndex
from uva_agents.utils.rotations import ROTATION_FORMS

Arrays = Mapping[str, np.ndarray]
"""Canonical arrays (N, ...) of one variant of a dataset."""


class WindowNumbers:
    """One array's rows, as the network has them.

    What means the same in every window is converted and normalised once; what is relative to a window's 'now' when it is drawn.

    Args:
        arrays: of each variant of the dataset, with the same N rows.
        key: of the array.
        normalizer: has ``key``.
        transforms: the conventions.
        pose_key: proprioception, which they may refer to.
        delay: rows from a row's own to the one that says where the robot was then: 0, or 1 where observations are recorded after
            the action of their row.
        firsts: (N,) first row of each row's episode, for ``delay``.
        start_key: poses at the episode's start, in the form of ``pose_key``, where they are recorded apart from it; the first row
            of ``pose_key`` otherwise.
    """

    def __init__(
        self,
        arrays: Sequence[Arrays],
        key: str,
        normalizer: LinearNormalizer,
        transforms: Sequence[Transform] = (),
        *,
        pose_key: str | None = None,
        delay: int = 0,
        firsts: np.ndarray | None = None,
        start_key: str | None = None,
    ) -> None:
        self.key, self.normalizer, self.transforms = key, normalizer, tuple(transforms)
        self.poses: np.ndarray | None = None
        self.raw: np.ndarray | None = None
        self.rows_per_variant = len(arrays[0][key])
        self.starts: np.ndarray | None = None
        if self.transforms and pose_key is not None:
            self.poses = np.concatenate([variant[pose_key] for variant in arrays]).astype(np.float64)
            if start_key is not None:
                self.starts = np.concatenate([variant[start_key] for variant in arrays]).astype(np.float64)
        if all(transform.per_row for transform in self.transforms):
            converted = [
                network_rows(variant, key, self.transforms, pose_key=pose_key, delay=delay, firsts=firsts)
                for variant in arrays
            ]
            self.values = torch.cat([normalizer.normalize(key, torch.from_numpy(rows)) for rows in converted])
        else:
            self.raw = np.concatenate([variant[key] for variant in arrays]).astype(np.float64)

    @property
    def size(self) -> int:
        """Numbers in a row, as the network has it."""
        if self.raw is None:
            return int(self.values.shape[-1])
        size = int(self.raw.shape[-1])
        for transform in self.transforms:
            size = transform.network_size(size)
        return size

    def take(
        self, rows: np.ndarray, now: np.ndarray, start: np.ndarray, start_noise: np.ndarray | None = None
    ) -> Tensor:
        """Rows (B, K) of all variants joined, of windows with these 'now' and first rows (B,) -> (B, K, D), normalised.

        Args:
            start_noise: (B, 6) added to the position and rotation vector at the episode's start, for conventions that refer to it.
        """
        if self.raw is None:
            return self.values[torch.from_numpy(rows)]
        references = ReferencePoses()
        if self.poses is not None:
            first = self.poses[start] if self.starts is None else self.starts[now]
            if start_noise is not None:
                first = moved_poses(first, start_noise, _form_of_start(self.transforms))
            references = ReferencePoses(now=self.poses[now][:, None], start=first[:, None])
        converted = to_network(self.transforms, self.raw[rows], references)
        return self.normalizer.normalize(self.key, torch.from_numpy(np.asarray(converted, np.float32)))


def moved_poses(poses: np.ndarray, change: np.ndarray, form: str) -> np.ndarray:
    """Rows (B, P) that begin with a pose, whose rotation has this form, with (B, 6) added to position and rotation vector."""
    vector = ROTATION_FORMS["vector"]
    moved = vector.pose(ROTATION_FORMS[form].pose_matrix(poses)) + change
    pose = ROTATION_FORMS[form].pose(vector.pose_matrix(moved))
    return np.concatenate([pose, poses[:, pose.shape[1] :]], axis=1)


def _form_of_start(transforms: Sequence[Transform]) -> str:
    found = [getattr(transform, "environment", "vector") for transform in transforms if "start" in transform.needs]
    return str(found[0]) if found else "vector"


def network_rows(
    arrays: Arrays,
    key: str,
    transforms: Sequence[Transform],
    *,
    pose_key: str | None = None,
    delay: int = 0,
    firsts: np.ndarray | None = None,
) -> np.ndarray:
    """An array (N, E) of a dataset as (N, D) float32, for conventions that turn each row by itself."""
    values = arrays[key]
    if not transforms:
        return values
    now = None
    if pose_key is not None:
        rows = np.arange(len(values)) - delay
        now = arrays[pose_key][rows if firsts is None else np.maximum(rows, firsts)].astype(np.float64)
    converted = to_network(transforms, values.astype(np.float64), ReferencePoses(now=now))
    return np.asarray(converted, np.float32)


def network_limits(
    arrays: Arrays,
    key: str,
    transforms: Sequence[Transform],
    index: WindowIndex,
    offsets: np.ndarray,
    *,
    pose_key: str | None = None,
    delay: int = 0,
    firsts: np.ndarray | None = None,
    most: int = 20_000,
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest (D,) of what the network will see of an array: of all rows, or of ``most`` evenly spaced windows."""
    if all(transform.per_row for transform in transforms):
        converted = network_rows(arrays, key, transforms, pose_key=pose_key, delay=delay, firsts=firsts)
        return converted.min(0), converted.max(0)
    windows = np.unique(np.linspace(0, len(index) - 1, min(most, len(index))).astype(np.int64))
    rows = index.steps(windows, offsets)
    references = ReferencePoses()
    if pose_key is not None:
        poses = arrays[pose_key].astype(np.float64)
        references = ReferencePoses(now=poses[index.now[windows]][:, None], start=poses[index.first[windows]][:, None])
    converted = np.asarray(to_network(transforms, arrays[key][rows].astype(np.float64), references), np.float32)
    flat = converted.reshape(-1, converted.shape[-1])
    return flat.min(0), flat.max(0)
