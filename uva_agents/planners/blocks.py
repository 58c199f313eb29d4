"""Block pushing: how far a named block ends from its square, read from imagined frames (UVA paper, section VII-B)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from uva_agents.agents.rollout import Rollout
from uva_agents.errors import InputError
from uva_agents.planners.objective import MaskedCosts, Objective, RequiredFrames
from uva_agents.planners.vision.camera import PlaneProjection, block_push_camera
from uva_agents.planners.vision.detector import THRESHOLD, Colour, find_blocks, find_square

BLOCK_PLANE = 0.03
"""Height of the point that a block's centroid in a picture corresponds to: above its centre, as its upper side is seen best."""
AREA = (0.15, 0.65, -0.45, 0.45)
"""Where a square's centre may be: x_min, x_max, y_min, y_max, metres."""


@dataclass(frozen=True)
class BlockReading:
    """What was read from S futures of F frames.

    Attributes:
        block: (S, F, 2) metres, meaningless where not seen.
        block_seen: (S, F) bool.
        square: (2,) metres.
        square_seen: whether that is a measurement.
        distance: (S, F) metres between the two.
    """

    block: np.ndarray
    block_seen: np.ndarray
    square: np.ndarray
    square_seen: bool
    distance: np.ndarray


class BlockToSquare(Objective):
    """Distance in metres from a block to a square, in the imagined frames.

    The square does not move: it is detected in the frame from which the futures start, which is a real one, and where it is
    hidden there in the mean of the imagined ones. A future's cost is the distance in the last of its frames in which the block is
    detected, or the mean over those frames. Where imagined colours have faded, the block is at the keypoint that the weights
    moved (``Rollout.keypoints``). Without either the cost is ``blind``, more than any distance in view, and not valid: a planner
    prefers every other candidate, and warns if there is none.

    Args:
        block, square: ``"red"`` or ``"green"``.
        camera: pixels to metres on the plane of the squares; by default the task's own camera at the size of the frames.
        block_camera: on the plane on which the visible middle of a block lies, a centimetre higher; ``camera`` where only that
            is given.
        frames: at which the block is looked for; several help where the arm hides it now and then.
        reduce: ``"last"`` or ``"mean"`` of the frames in which it is seen.
        threshold: density of colour at which a block counts as seen (a clear view is about 1, an outline below 0.4).
        keypoints: (red, green) index of the blocks among the rollout's keypoints; ``None`` to go by colours alone.
        blind: cost in metres where it is not.
        view: which of the environment's cameras took the pictures, where no ``camera`` is given.
    """

    def __init__(
        self,
        block: Colour = "red",
        square: Colour = "green",
        *,
        camera: PlaneProjection | None = None,
        block_camera: PlaneProjection | None = None,
        frames: tuple[int, ...] | None = (-1,),
        reduce: Literal["last", "mean"] = "last",
        threshold: float = THRESHOLD,
        keypoints: tuple[int, int] | None = (1, 2),
        blind: float = 2.0,
        view: str = "workspace",
    ) -> None:
        for what, value in (("block", block), ("square", square)):
            if value not in ("red", "green"):
                raise InputError(f'{what}={value!r}: choose "red" or "green"')
        if reduce not in ("last", "mean"):
            raise InputError(f'reduce={reduce!r}: choose "last" or "mean"')
        if frames is not None and not frames:
            raise InputError("frames=() looks at nothing: name at least one frame, or None for all")
        if block_camera is not None and camera is None:
            raise InputError("block_camera= goes with camera=, which sees the squares: give both, or camera= alone")
        for given in (camera, block_camera):
            if given is not None and not isinstance(given, PlaneProjection):
                raise TypeError(
                    f"camera={given!r} has no to_metres() and to_pixels(): see uva_agents.planners.vision.camera"
                )
        self.block: Colour = block
        self.square: Colour = square
        self.block_camera = block_camera or camera
        self.camera, self.reduce, self.threshold, self.blind = camera, reduce, threshold, blind
        self.view, self.keypoints, self.frames = view, keypoints, frames
        self._newest: tuple[Any, tuple[np.ndarray, bool]] | None = None

    @property
    def identity(self) -> dict[str, object]:
        """What it measures, as JSON values."""
        camera = self.view if self.camera is None else [repr(self.camera), repr(self.block_camera)]
        names = ("block", "square", "reduce", "threshold", "blind")
        own = {**{n: getattr(self, n) for n in names}, "points": self.keypoints}
        return {**own, "frames": self.frames, "camera": camera}

    def required_frames(self) -> RequiredFrames:
        """Frames as pictures."""
        return RequiredFrames(self.frames)

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """Costs (S,)."""
        return self.evaluate(rollout).costs

    def evaluate(self, rollout: Rollout) -> MaskedCosts:
        """Costs in metres, and which of them are measurements."""
        reading = self.read(rollout)
        seen = reading.block_seen & reading.square_seen
        any_seen = np.asarray(seen.any(1))
        if self.reduce == "last":
            last = seen.shape[1] - 1 - seen[:, ::-1].argmax(1)
            costs = reading.distance[np.arange(len(seen)), last]
        else:
            costs = (reading.distance * seen).sum(1) / np.maximum(seen.sum(1), 1)
        return MaskedCosts(np.where(any_seen, costs, self.blind), any_seen)

    def read(self, rollout: Rollout) -> BlockReading:
        """Positions in the frames that it looks at."""
        frames = rollout.select(self.frames).pictures()
        s, f, height, width, _ = frames.shape
        camera = self.camera or block_push_camera((height, width), view=self.view)
        above = self.block_camera or block_push_camera((height, width), BLOCK_PLANE, self.view)
        found = find_blocks(frames.reshape(-1, height, width, 3), self.block, above, threshold=self.threshold)
        block, block_seen = above.to_metres(found.pixels).reshape(s, f, 2), found.seen.reshape(s, f)
        keypoints = rollout.select(self.frames).keypoints
        if keypoints is not None and self.keypoints is not None:
            block = np.where(
                block_seen[..., None], block, keypoints[:, :, self.keypoints[0 if self.block == "red" else 1]]
            )
            block_seen = np.ones_like(block_seen)
        square, square_seen = np.zeros(2), False
        if rollout.now is not None and rollout.now.shape == (height, width, 3):
            square, square_seen = self._square_now(np.ascontiguousarray(rollout.now, np.uint8))
        if not square_seen:
            mean = frames.mean((0, 1), dtype=np.float32)
            square, _, square_seen = find_square(mean, self.square, camera, area=AREA)
        return BlockReading(block, block_seen, square, square_seen, np.linalg.norm(block - square, axis=-1))

    def _square_now(self, frame: np.ndarray) -> tuple[np.ndarray, bool]:
        """Where the square is in the frame (H, W, 3) from which the futures start, and whether it is detected."""
        key, newest = (frame.shape, frame.tobytes()), self._newest
        if newest is None or newest[0] != key:
            camera = self.camera or block_push_camera((frame.shape[0], frame.shape[1]), view=self.view)
            square, _, detected = find_square(frame, self.square, camera, area=AREA)
            # One decision asks several times about the same frame.
            self._newest = newest = key, (square, detected)
        return newest[1]
