"""Chunks of actions as trajectories in time: stamped, cut, and blended into what is still queued. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from uva_agents.utils.rotations import matrix_from_rot6d, matrix_from_vector, rot6d_from_matrix, vector_from_matrix

RotationKind = Literal["vector", "rot6d"]
_WIDTH = {"vector": 3, "rot6d": 6}
_FLAT = 1e-6
_SAME_S = 1e-9
"""Times closer than this are one."""


@dataclass(frozen=True, slots=True)
class ActionLayout:
    """Which columns of an action turn; all others (positions, joints, gripper) are mixed straight.

    Attributes:
        rotations: (first column, ``"vector"`` for a rotation vector of 3 numbers or ``"rot6d"`` for two rows of a matrix).
    """

    rotations: tuple[tuple[int, RotationKind], ...] = ()

    @property
    def least(self) -> int:
        """Numbers that an action has at least."""
        return max((column + _WIDTH[kind] for column, kind in self.rotations), default=1)

    def check(self, actions: np.ndarray) -> None:
        """That actions (n, A) with rotations are poses: blended with others, invalid ones would become valid but meaningless ones.

        Raises:
            ValueError: a rotation whose two rows are zero or parallel, or a place of exactly zero, which is the arm's own foot and
                what something says that has failed.
        """
        for column, kind in self.rotations:
            nowhere = ~np.asarray(actions)[:, max(column - 3, 0) : column].any(axis=1)
            if column >= 3 and nowhere.any():
                raise ValueError(f"action {int(nowhere.argmax())} is a pose at exactly (0, 0, 0): no place for a tool")
            if kind != "rot6d":
                continue
            rows = np.asarray(actions, np.float64)[:, column : column + 6].reshape(-1, 2, 3)
            # A chunk that is not finite is refused as such.
            area = np.linalg.norm(np.cross(rows[:, 0], rows[:, 1]), axis=-1)
            size = np.linalg.norm(rows, axis=-1)
            flat = (size.min(-1) < _FLAT) | (area < _FLAT * size.prod(-1))
            if flat.any():
                i = int(flat.argmax())
                raise ValueError(f"the rotation of action {i} is none: its two rows are zero or parallel")

    def mix(self, first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """``weight`` (n,) of the way from ``first`` (n, A) to ``second`` (n, A); rotations about one axis, the short way round."""
        share = np.asarray(weight, np.float64)[:, None]
        mixed: np.ndarray = (1 - share) * first + share * second
        for column, kind in self.rotations:
            part = slice(column, column + _WIDTH[kind])
            before, after = _matrices(first[:, part], kind), _matrices(second[:, part], kind)
            turn = vector_from_matrix(np.swapaxes(before, -1, -2) @ after)
            rotated = before @ matrix_from_vector(share * turn)
            mixed[:, part] = vector_from_matrix(rotated) if kind == "vector" else rot6d_from_matrix(rotated)
        return mixed


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where to be when: straight from each action to the next, and still at the last after it.

    Attributes:
        times: (n,) seconds, rising.
        actions: (n, A), environment units.

    Raises:
        ValueError: no action, unequal lengths, times that do not rise, or numbers that are not finite.
    """

    times: np.ndarray
    actions: np.ndarray

    def __post_init__(self) -> None:
        times, actions = np.asarray(self.times, np.float64), np.asarray(self.actions, np.float64)
        if times.ndim != 1 or actions.ndim != 2 or len(times) != len(actions) or not len(times):
            raise ValueError(f"a trajectory is times (n,) and actions (n, A), got {times.shape} and {actions.shape}")
        if not (np.diff(times) > 0).all():
            raise ValueError("the times of a trajectory must rise")
        if not (np.isfinite(times).all() and np.isfinite(actions).all()):
            bad = int(np.argwhere(~np.isfinite(actions).all(axis=1))[0, 0]) if np.isfinite(times).all() else -1
            raise ValueError("a time is not finite" if bad < 0 else f"action {bad} has NaN or infinity")
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "actions", actions)

    @property
    def start_s(self) -> float:
        """Time of the first action."""
        return float(self.times[0])

    @property
    def end_s(self) -> float:
        """Time of the last one."""
        return float(self.times[-1])

    def at(self, times: np.ndarray, layout: ActionLayout) -> np.ndarray:
        """Actions (m, A) at ``times`` (m,): the first before it begins, the last after it ends."""
        times = np.clip(np.asarray(times, np.float64), self.start_s, self.end_s)
        after = np.clip(np.searchsorted(self.times, times, side="left"), 1, max(len(self.times) - 1, 1))
        if len(self.times) == 1:
            return np.repeat(self.actions, len(times), axis=0)
        begin, end = self.times[after - 1], self.times[after]
        return layout.mix(self.actions[after - 1], self.actions[after], (times - begin) / (end - begin))

    def after(self, now_s: float, layout: ActionLayout) -> Trajectory | None:
        """What is left from ``now_s`` on, beginning exactly there if it has begun; ``None`` once it has ended."""
        if now_s <= self.start_s:
            return self
        if now_s >= self.end_s - _SAME_S:
            return None
        kept = self.times > now_s + _SAME_S
        times = np.concatenate([[now_s], self.times[kept]])
        return Trajectory(times, np.concatenate([self.at(times[:1], layout), self.actions[kept]]))

    def continued(self, until_s: float, layout: ActionLayout) -> Trajectory:
        """With an end at ``until_s``, if that is later, that is reached at the speed of the last two actions."""
        if len(self.times) == 1 or until_s <= self.end_s + _SAME_S:
            return self
        weight = (until_s - self.times[-2]) / (self.times[-1] - self.times[-2])
        last = layout.mix(self.actions[-2:-1], self.actions[-1:], np.array([weight]))
        return Trajectory(np.append(self.times, until_s), np.concatenate([self.actions, last]))


def stamped(chunk: np.ndarray, start_s: float, dt: float) -> Trajectory:
    """A chunk (T, A) whose action i is for ``start_s`` + i ``dt``: the time of the observation that it was decided from."""
    chunk = np.asarray(chunk)
    return Trajectory(start_s + dt * np.arange(len(chunk)), chunk)


def merge(
    old: Trajectory | None, new: Trajectory, now_s: float, *, blend_s: float, layout: ActionLayout
) -> Trajectory | None:
    """One trajectory from ``now_s`` on: from the old one over to the new one within ``blend_s``, then the new one.

    What of the new one lies before ``now_s`` came too late and is dropped. An old one that ends on the way over is continued at
    the speed that it ends with; one that has ended before stands at its last action, and the way leads from there: after a pause,
    too, nothing jumps. The way over takes at most half of what is left of the new one, so that its end is followed as it is.

    Args:
        old: what is followed at present, or the place where the arm stands; ``None`` if that is unknown: nothing is blended.

    Returns:
        ``None`` where all of the new one has passed already.
    """
    rest = new.after(now_s, layout)
    if rest is None:
        return None
    if old is None or blend_s <= 0:
        return rest
    blend = min(blend_s, 0.5 * (rest.end_s - now_s))
    over = now_s + blend
    old = old.continued(over, layout) if now_s < old.end_s else old
    knots = np.concatenate([[now_s, over], old.times[(old.times > now_s) & (old.times < over)], rest.times])
    knots = np.unique(knots[knots >= now_s])
    knots = knots[np.concatenate([[True], np.diff(knots) > _SAME_S])]
    weight = np.clip((knots - now_s) / blend, 0.0, 1.0)
    return Trajectory(knots, layout.mix(old.at(knots, layout), new.at(knots, layout), weight))


def _matrices(values: np.ndarray, kind: RotationKind) -> np.ndarray:
    return matrix_from_vector(values) if kind == "vector" else matrix_from_rot6d(values)


def rotation_between(first: np.ndarray, second: np.ndarray, layout: ActionLayout) -> tuple[np.ndarray, float]:
    """Which columns (A,) bool of an action turn, and by how much they do from ``first`` (A,) to ``second`` (A,), rad."""
    turning, angle = np.zeros(len(first), bool), 0.0
    for column, kind in layout.rotations:
        part = slice(column, column + _WIDTH[kind])
        turning[part] = True
        turn = vector_from_matrix(_matrices(first[part], kind).T @ _matrices(second[part], kind))
        angle = max(angle, float(np.linalg.norm(turn)))
    return turning, angle
