"""Classical visual odometry on a wrist camera: the pose change between frames from features, without learning.

Corners (Shi and Tomasi 1994) of the first frame are followed into the second (Lucas and Kanade 1981, pyramids, forth and back).
Descriptors, such as SIFT's, do not tell apart what is much alike, as on a chequered table. Two ways from there to motion:

``"essential"``: essential matrix by the five-point algorithm (Nister 2004) in RANSAC, rotation and direction out of it; the length
of the move is that which puts the points onto the table.

``"plane"``: matched points are put onto the table where the first frame sees them, and the second frame's pose is solved from
these 3-D points (perspective-n-point in RANSAC). The essential matrix is poorly conditioned where all points lie in one plane.

Both assume what a calibrated set-up knows and a video does not say: intrinsics, where the camera sits on the tool, the height of
the table, that it is flat and that most of what is seen lies on it, and the tool's pose at the first frame. A pair of frames
with too little to follow is taken for a pause.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from uva_agents.envs.arx_x5.twin.optics import Pinhole
from uva_agents.errors import InputError
from uva_agents.utils.rotations import matrix_from_vector

METHODS = ("essential", "plane")
_LONGEST_SIDE = 480
"""Pixels: small frames are enlarged to that, so that features have room around them."""
_FEWEST = 8
_OFF = 1.5
"""Pixels of an enlarged frame that a match may be off."""
_FREE, _HELD = 0.52, (0.3, 0.22, 0.78)
"""Share of the picture, from the top, in which no finger is seen; and from which row on, between which columns, what is held."""
_FARTHEST_M, _MOST_RAD = 0.08, 0.35
"""Between two frames; more is a wrong match, not a motion."""


def load_cv2() -> ModuleType:
    """OpenCV.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "visual odometry needs OpenCV: pip install 'uva-agents[arx]' (or pip install opencv-python-headless)"
        ) from error
    return cv2


@dataclass(frozen=True)
class Track:
    """Poses of the tool along a video.

    Attributes:
        poses: (N, 4, 4), the first one as given.
        lost: (N - 1,) bool, pairs of frames with too little to match.
    """

    poses: np.ndarray
    lost: np.ndarray


class WristOdometry:
    """Follows a tool by what its camera sees of the table. See the module.

    Args:
        pinhole: of the frames that will come.
        method: one of :data:`METHODS`.
        table_height: metres, base frame.

    Raises:
        ImportError: OpenCV is not installed.
        InputError: no such method.
    """

    def __init__(self, pinhole: Pinhole, *, method: str = "plane", table_height: float = 0.0) -> None:
        if method not in METHODS:
            raise InputError(f"method={method!r} is unknown: pass {' or '.join(map(repr, METHODS))}")
        self._cv2: Any = load_cv2()
        self._pinhole, self._method = pinhole, method
        self._height = table_height
        self._contrast = self._cv2.createCLAHE(clipLimit=4.0, tileGridSize=(4, 4))

    def track(self, video: np.ndarray, start: np.ndarray) -> Track:
        """Poses of the tool along uint8 (N, H, W, 3), the first one being (4, 4).

        Raises:
            InputError: no video of two frames or more.
        """
        frames = np.asarray(video)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) < 2:
            raise InputError(f"a video is uint8 (N, H, W, 3) of at least 2 frames, got {frames.dtype} {frames.shape}")
        scale = max(1, round(_LONGEST_SIDE / max(frames.shape[1:3])))
        matrix = self._pinhole.matrix.copy()
        # The middle of a pixel stays where it is when pixels become smaller.
        matrix[:2, 2] = (matrix[:2, 2] + 0.5) * scale - 0.5
        matrix[[0, 1], [0, 1]] *= scale
        camera = start @ self._pinhole.mount
        poses, lost = [np.array(start)], []
        before = self._grey(frames[0], scale)
        for frame in frames[1:]:
            now = self._grey(frame, scale)
            change = self._change(before, now, matrix, camera)
            lost.append(change is None)
            camera = camera if change is None else camera @ change
            poses.append(camera @ np.linalg.inv(self._pinhole.mount))
            before = now
        return Track(np.array(poses), np.array(lost))

    def _grey(self, frame: np.ndarray, scale: int) -> np.ndarray:
        cv2 = self._cv2
        grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        return np.asarray(self._contrast.apply(grey))

    def _matches(self, before: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, 2) pixels of features of the first frame, and where they are in the second."""
        cv2 = self._cv2
        mask = np.zeros_like(before)
        height, width = before.shape
        mask[: round(_FREE * height)] = 255
        mask[round(_HELD[0] * height) :, round(_HELD[1] * width) : round(_HELD[2] * width)] = 0
        found = cv2.goodFeaturesToTrack(before, 400, 0.02, 6, mask=mask, blockSize=7)
        if found is None:
            return np.zeros((0, 2)), np.zeros((0, 2))
        there, seen, _ = cv2.calcOpticalFlowPyrLK(before, now, found, None, winSize=(31, 31), maxLevel=4)
        back, again, _ = cv2.calcOpticalFlowPyrLK(now, before, there, None, winSize=(31, 31), maxLevel=4)
        good = (seen[:, 0] > 0) & (again[:, 0] > 0) & (np.linalg.norm((back - found)[:, 0], axis=1) < 1.0)
        inside = (there[:, 0] >= 0).all(1) & (there[:, 0] < before.shape[::-1]).all(1)
        return found[good & inside, 0].astype(np.float64), there[good & inside, 0].astype(np.float64)

    def _change(self, before: np.ndarray, now: np.ndarray, matrix: np.ndarray, camera: np.ndarray) -> np.ndarray | None:
        """(4, 4) the second camera's pose in the first one's frame; ``None`` where that cannot be told."""
        first, second = self._matches(before, now)
        on_table, depths = self._on_table(first, matrix, camera)
        first, second, points, depths = first[on_table], second[on_table], depths[on_table], depths[on_table, 2]
        if len(first) < _FEWEST:
            return None
        solve = self._by_essential if self._method == "essential" else self._by_plane
        change = solve(first, second, points, depths, matrix)
        if change is None or not np.isfinite(change).all():
            return None
        angle = float(np.arccos(np.clip((np.trace(change[:3, :3]) - 1) / 2, -1, 1)))
        return change if np.linalg.norm(change[:3, 3]) < _FARTHEST_M and angle < _MOST_RAD else None

    def _on_table(self, pixels: np.ndarray, matrix: np.ndarray, camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which pixels (n, 2) see the table, (n,) bool, and where: (n, 3) in the camera's frame."""
        rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(matrix).T
        down = rays @ camera[2, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            far = (self._height - camera[2, 3]) / down
        good = np.isfinite(far) & (far > 0.03) & (far < 1.5)
        return good, rays * np.where(good, far, 0.0)[:, None]

    def _by_plane(
        self, first: np.ndarray, second: np.ndarray, points: np.ndarray, depths: np.ndarray, matrix: np.ndarray
    ) -> np.ndarray | None:
        cv2 = self._cv2
        cv2.setRNGSeed(0)
        good, vector, move, inliers = cv2.solvePnPRansac(
            points, second, matrix, None, reprojectionError=_OFF, iterationsCount=300, confidence=0.999
        )
        if not good or inliers is None or len(inliers) < _FEWEST:
            return None
        kept = inliers[:, 0]
        vector, move = cv2.solvePnPRefineLM(points[kept], second[kept], matrix, None, vector, move)
        return np.linalg.inv(_pose(matrix_from_vector(vector[:, 0]), move[:, 0]))

    def _by_essential(
        self, first: np.ndarray, second: np.ndarray, points: np.ndarray, depths: np.ndarray, matrix: np.ndarray
    ) -> np.ndarray | None:
        cv2 = self._cv2
        cv2.setRNGSeed(0)
        if float(np.median(np.linalg.norm(second - first, axis=1))) < 0.5:
            return np.eye(4)  # nothing moved: a direction cannot be told
        essential, inliers = cv2.findEssentialMat(first, second, matrix, method=cv2.RANSAC, prob=0.999, threshold=_OFF)
        if essential is None or essential.shape != (3, 3):
            return None
        count, rotation, direction, inliers = cv2.recoverPose(essential, first, second, matrix, mask=inliers)
        kept = inliers[:, 0] > 0
        if count < _FEWEST:
            return None
        # A point at depth d in the first frame is seen at K (R d ray + s t): s by least squares over all of them.
        seen = np.column_stack([second[kept], np.ones(kept.sum())]) @ np.linalg.inv(matrix).T
        moved = points[kept] @ rotation.T
        along = np.cross(seen, direction[:, 0])
        lengths = -np.sum(np.cross(seen, moved) * along, axis=1) / np.maximum(np.sum(along**2, axis=1), 1e-12)
        return np.linalg.inv(_pose(rotation, direction[:, 0] * float(np.median(lengths))))


def _pose(rotation: np.ndarray, position: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, position
    return pose
