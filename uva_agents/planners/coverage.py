"""PushT: how much of the mark the block covers, read from imagined frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from uva_agents.agents.rollout import Rollout
from uva_agents.planners.objective import MaskedCosts, Objective, RequiredFrames

SIDE = 512.0
"""Of the workspace, in the simulator's pixels."""
MARK = (256.0, 256.0, np.pi / 4)
"""Where the mark is: x, y of the T's corner frame, angle."""
BARS = ((-60.0, 60.0, 0.0, 30.0), (-15.0, 15.0, 30.0, 120.0))
"""The two bars of the T: x_min, x_max, y_min, y_max."""

# What pixels of this world are made of, each the mean of a thing's inside and its outline.
_COLOURS = {"floor": (255, 255, 255), "mark": (144, 238, 144), "block": (139, 158, 178), "agent": (75, 121, 247)}


@dataclass(frozen=True)
class PushTCoverage(Objective):
    """Share of the mark that the block leaves uncovered, in [0, 1], plus a price for being far away.

    Every pixel is taken for a mixture of the four colours of PushT (three channels and parts that sum to one: exactly
    determined), so blurred frames count as much as sharp ones. Where no block touches the mark the coverage says nothing: the
    distance of the block's middle from the mark's, in widths of the workspace, tells candidates apart.

    A future in which hardly any of the block is seen costs ``1 + reach`` and its cost is not valid.

    Args:
        reach: weight of the distance.
        frames: the frames that are looked at; the mean over those in which the block is seen is the cost.
        mark: x, y and angle of the mark, the simulator's pixels.
        visible: share of the block's area that must be seen.
    """

    reach: float = 1.0
    frames: tuple[int, ...] | None = (-1,)
    mark: tuple[float, float, float] = MARK
    visible: float = 0.3

    def required_frames(self) -> RequiredFrames:
        """Frames as pictures."""
        return RequiredFrames(self.frames)

    @property
    def identity(self) -> str:
        """What it measures."""
        return repr(self)

    def __call__(self, rollout: Rollout) -> np.ndarray:
        """Costs (S,)."""
        return self.evaluate(rollout).costs

    def evaluate(self, rollout: Rollout) -> MaskedCosts:
        """Costs, and in which futures the block is seen."""
        coverage, middle, seen = self.read(rollout)
        _, target = _mark(self.mark, *rollout.frames.shape[2:4])
        costs = 1 - coverage + self.reach * np.linalg.norm(middle - target, axis=-1) / SIDE
        any_seen = np.asarray(seen.any(1))
        costs = (costs * seen).sum(1) / np.maximum(seen.sum(1), 1)
        return MaskedCosts(np.where(any_seen, costs, 1 + self.reach), any_seen)

    def read(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coverage (S, F), the middle of the block (S, F, 2) in the simulator's pixels, and where it is seen (S, F)."""
        frames = rollout.select(self.frames).pictures()
        s, f, height, width, _ = frames.shape
        mask, _ = _mark(self.mark, height, width)
        block = block_share(frames.reshape(-1, height, width, 3))
        coverage = np.clip(np.einsum("nhw,hw->n", block, mask) / mask.sum(), 0, 1)
        middle, mass = block_middle(block)
        seen = mass >= self.visible * mask.sum()  # block and mark are of one size
        return coverage.reshape(s, f), middle.reshape(s, f, 2), seen.reshape(s, f)


def block_share(frames: np.ndarray) -> np.ndarray:
    """How much of each pixel is block, (N, H, W) in [0, 1]; nothing near the walls, which are grey as well."""
    mixing = np.array([(*np.array(c) / 255, 1.0) for c in _COLOURS.values()]).T
    row = np.linalg.inv(mixing)[list(_COLOURS).index("block")].astype(np.float32)
    share = frames.astype(np.float32) @ (row[:3] / 255) + row[3]
    height, width = share.shape[1:]
    dy, dx = -(-height * 3 // 96), -(-width * 3 // 96)
    inside: np.ndarray = np.zeros_like(share)
    # A tenth is rounding and soft imagination of the empty floor.
    inside[:, dy:-dy, dx:-dx] = np.clip((share[:, dy:-dy, dx:-dx] - 0.1) / 0.9, 0, 1)
    return inside


def block_middle(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of shares (N, H, W): the middle (N, 2) in the simulator's pixels, and how many of the picture's pixels they make up (N,)."""
    mass = share.sum((1, 2))
    x, y = _centres(*share.shape[1:])
    return np.stack([share.sum(1) @ x, share.sum(2) @ y], -1) / np.maximum(mass, 1e-6)[:, None], mass


def _centres(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Middles of columns and rows, the simulator's pixels."""
    x = (np.arange(width, dtype=np.float32) + 0.5) * SIDE / width
    return x, (np.arange(height, dtype=np.float32) + 0.5) * np.float32(SIDE) / height


@lru_cache(maxsize=8)
def _mark(pose: tuple[float, float, float], height: int, width: int, fine: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel the mark covers (H, W), and its middle (2,)."""
    x, y = _centres(height * fine, width * fine)
    dx, dy = np.meshgrid(x - pose[0], y - pose[1])
    c, s = np.cos(pose[2]), np.sin(pose[2])
    along, across = c * dx + s * dy, -s * dx + c * dy
    inside = np.zeros(dx.shape, bool)
    for x0, x1, y0, y1 in BARS:
        inside |= (along >= x0) & (along <= x1) & (across >= y0) & (across <= y1)
    mask = inside.reshape(height, fine, width, fine).mean((1, 3), dtype=np.float32)
    mx, my = _centres(height, width)
    middle = np.array([(mask.sum(0) @ mx) / mask.sum(), (mask.sum(1) @ my) / mask.sum()])
    return mask, middle
