"""UMI's way of training: everything relative to the pose at 'now', and the mirrors in the picture blacked out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uva_agents.data.conventions import RelativePoses, relative_rows
from uva_agents.data.episodes import Episodes
from uva_agents.data.transforms import ReferencePoses
from uva_agents.data.windows import WindowIndex, WindowSpec
from uva_agents.utils.rotations import (
    matrix_from_pose9,
    pose9_from_matrix,
    pose_from_matrix,
    pose_matrix,
    relative_to,
)

RELEASED_UMI_SPEC = WindowSpec(n_frames=4, stride=4, action_steps=16, action_offset=1, rows_per_step=3)
"""The released windows: every third row of 60 Hz, frames at -12, -8, -4, 0 and 4, 8, 12, 16 steps, the next 16 poses as actions."""

_FULL = (2028, 2704)
_MIRROR = ((540, 1700), (680, 1450), (590, 1070), (290, 1130), (290, 1770), (550, 1770))
"""Left mirror, x and y in UMI's pictures of 2704 x 2028; the right one is its reflection."""


@dataclass(frozen=True)
class UmiBatch:
    """Windows relative to their 'now'.

    Attributes:
        history, future: uint8 (B, T, H, W, 3).
        actions: float32 (B, action_steps, 10): position (metres) and rot6d seen from the tool now, gripper width (metres).
        proprio: float32 (B, action_steps, 16): the steps up to now, as actions, and rot6d seen from the episode's start.
    """

    history: np.ndarray
    future: np.ndarray
    actions: np.ndarray
    proprio: np.ndarray


class UmiWindows:
    """Every row of every chosen episode as a 'now'; steps outside the episode repeat its first or last one.

    Args:
        episodes: of :func:`~uva_agents.data.open_dataset` on a UMI recording.
        spec: which rows.
        chosen: episode numbers; all by default.
        without_mirrors: black the mirrors out: a robot's gripper has none.
        start_noise: standard deviation added to the episode's start pose, all six numbers (metres, radians), as released in
            training; 0 to leave it.
    """

    def __init__(
        self,
        episodes: Episodes,
        spec: WindowSpec = RELEASED_UMI_SPEC,
        *,
        chosen: np.ndarray | None = None,
        without_mirrors: bool = False,
        start_noise: float = 0.0,
    ) -> None:
        missing = [name for name in ("pixels", "action") if name not in episodes.arrays]
        if missing or episodes.arrays["action"].shape[1:] != (10,):
            raise ValueError(f"{episodes.source}: UMI windows need pixels and action (N, 10); is it a UMI recording?")
        self.episodes, self.spec = episodes, spec
        self.index = WindowIndex(episodes, spec, chosen)
        self.without_mirrors, self.start_noise = without_mirrors, start_noise
        poses = np.asarray(episodes.arrays["action"], np.float64)
        self._matrices = matrix_from_pose9(poses[:, :9])
        self._width = poses[:, 9:]
        stored = next((k for k in ("robot0_demo_start_pose", "demo_start_pose") if k in episodes.arrays), None)
        self._start = None if stored is None else np.asarray(episodes.arrays[stored], np.float64)

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, windows: np.ndarray, *, seed: int | tuple[int, ...] | None = None) -> UmiBatch:
        """The windows with these numbers (B,). ``seed`` is of the start pose's noise, which is left out without it."""
        windows = np.asarray(windows)
        # The released proprioception has as many steps as the actions, and ends now.
        past = (np.arange(self.spec.action_steps) + 1 - self.spec.action_steps) * self.spec.rows_per_step
        now = self.index.now[windows]
        base = self._matrices[now][:, None]
        before = self._matrices[self.index.steps(windows, past)]
        after_rows = self.index.steps(windows, self.spec.actions)
        start = self._start_poses(windows)
        if seed is not None and self.start_noise:
            start = start + np.random.default_rng(seed).normal(0.0, self.start_noise, start.shape)
        width = self._width[self.index.steps(windows, past)]
        proprio = relative_rows(before, width, now=base, start=pose_matrix(start)[:, None])
        ahead = relative_to(base, self._matrices[after_rows])
        actions = np.concatenate([pose9_from_matrix(ahead), self._width[after_rows]], axis=-1)
        return UmiBatch(
            history=self._frames(windows, self.spec.history),
            future=self._frames(windows, self.spec.future),
            actions=actions.astype(np.float32),
            proprio=proprio.astype(np.float32),
        )

    def _start_poses(self, windows: np.ndarray) -> np.ndarray:
        """(B, 6): recorded, or each episode's first pose."""
        if self._start is not None:
            return np.asarray(self._start[self.index.now[windows]])
        return np.asarray(pose_from_matrix(self._matrices[self.index.first[windows]]))

    def _frames(self, windows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        frames: np.ndarray = self.episodes.arrays["pixels"][self.index.steps(windows, offsets)]
        if not self.without_mirrors:
            return frames
        return black_mirrors(frames.reshape(-1, *frames.shape[2:])).reshape(frames.shape)


def absolute_poses(now: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Relative actions (T, 10) and the pose now (10,) -> poses (T, 10) in the recording's frame: how a robot executes them."""
    now, actions = np.asarray(now, np.float64), np.asarray(actions, np.float64)
    return RelativePoses(environment="rot6d", reference="rot6d").to_environment(actions, ReferencePoses(now=now))


def mirror_mask(height: int, width: int) -> np.ndarray:
    """bool (height, width): where UMI's two mirrors are. Pictures are full height, cropped around the middle or not."""
    from PIL import Image, ImageDraw

    mask = Image.new("1", (width, height), 0)
    points = (np.array(_MIRROR) - np.array(_FULL[::-1]) / 2) / _FULL[0]
    for side in (1, -1):
        polygon = np.round(points * (side, 1) * height + np.array([width, height]) / 2)
        ImageDraw.Draw(mask).polygon([(int(x), int(y)) for x, y in polygon], fill=1, outline=1)
    return np.asarray(mask, bool)


def black_mirrors(frames: np.ndarray) -> np.ndarray:
    """A copy of uint8 (N, H, W, 3) with the mirrors black."""
    frames = np.array(frames)
    frames[:, mirror_mask(frames.shape[1], frames.shape[2])] = 0
    return frames
