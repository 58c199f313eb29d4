"""From what was asked for to a course that may be followed: numbers, times, limits of position, inverse kinematics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import N_JOINTS, Kinematics, Waypoint
from uva_agents.envs.arx_x5.safety.envelope import Fence, angle
from uva_agents.envs.arx_x5.safety.events import Kind, numbers, said

Note = tuple[Kind, str, tuple[float, ...] | None]
"""Why, in words, and what was wanted."""

_MOST_ROWS = 1000


class Refused(Exception):
    """Nothing of a command can be used.

    Args:
        kind: why.
        detail: in words.
        wanted: the row that shows it.
    """

    def __init__(self, kind: Kind, detail: str, wanted: tuple[float, ...] | None = None) -> None:
        super().__init__(detail)
        self.note: Note = (kind, detail, wanted)


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """A command as arrays, checked for sense.

    Attributes:
        times: (T,) rising, in the future.
        rows: (T, 6) joints or poses.
        grippers: (T,) metres, within their range.
        notes: what had to be changed.
    """

    times: np.ndarray
    rows: np.ndarray
    grippers: np.ndarray
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A course of joints that keeps every limit of position at its waypoints.

    Attributes:
        times: (T,) rising, in the future.
        joints: (T, 6) rad.
        grippers: (T,) metres.
        asked: (T, 7) what was asked for instead, joints or pose, and gripper.
        notes: what had to be changed.
    """

    times: np.ndarray
    joints: np.ndarray
    grippers: np.ndarray
    asked: np.ndarray
    notes: tuple[Note, ...]


class Reader:
    """Makes courses of commands.

    Args:
        fence: the limits.
        kinematics: of the arm.
    """

    def __init__(self, fence: Fence, kinematics: Kinematics) -> None:
        self._fence, self._kinematics = fence, kinematics

    def joints(self, waypoints: Sequence[Waypoint], *, now: float) -> Wanted:
        """Of waypoints.

        Raises:
            Refused: nothing of them can be used.
        """
        try:
            times = [w.time_s for w in waypoints]
            rows, grippers = [w.joint_pos for w in waypoints], [w.gripper_pos for w in waypoints]
        except (TypeError, AttributeError) as error:
            raise Refused(Kind.NOT_FINITE, f"a command must be waypoints: {error}") from None
        return from_joints(
            read_stream(times, rows, grippers, from_s=now, fence=self._fence),
            fence=self._fence,
            kinematics=self._kinematics,
        )

    def poses(self, times: Any, poses: Any, grippers: Any, *, now: float, here: np.ndarray, left_s: float) -> Wanted:
        """Of tool poses, for an arm that will be at joints ``here`` (6,) at ``left_s``.

        Raises:
            Refused: nothing of them can be used.
        """
        stream = read_stream(times, poses, grippers, from_s=now, fence=self._fence)
        # From where the path is left, or at once if that is later than the first waypoint.
        since = min(left_s, float(stream.times[0]))
        return from_poses(stream, fence=self._fence, kinematics=self._kinematics, seed=here, from_s=since)


def read_stream(times: Any, rows: Any, grippers: Any, *, from_s: float, fence: Fence) -> Stream:
    """Check a command's form, drop what is past, and keep the gripper within its range.

    Args:
        times: (T,) seconds.
        rows: (T, 6).
        grippers: (T,) metres.
        from_s: earlier waypoints are past.
        fence: for the gripper's range.

    Raises:
        Refused: not numbers, not of one length, not finite, times that do not rise, or all of them past.
    """
    try:
        when, table, opening = (np.array(values, dtype=np.float64) for values in (times, rows, grippers))
    except (TypeError, ValueError) as error:
        raise Refused(Kind.NOT_FINITE, f"a command must be numbers: {error}") from None
    if not len(np.atleast_1d(when)):
        raise Refused(Kind.LATE, "the command has no waypoint")
    if when.ndim != 1 or table.shape != (len(when), N_JOINTS) or opening.shape != when.shape:
        shapes = f"times {when.shape}, rows {table.shape}, grippers {opening.shape}"
        raise Refused(Kind.NOT_FINITE, f"a command is times (T,), rows (T, 6) and grippers (T,); this has {shapes}")
    if len(when) > _MOST_ROWS:
        raise Refused(Kind.BAD_TIMES, f"{len(when)} waypoints in one command: at most {_MOST_ROWS}")
    bad = ~(np.isfinite(when) & np.isfinite(table).all(1) & np.isfinite(opening))
    if bad.any():
        first = int(bad.argmax())
        raise Refused(
            Kind.NOT_FINITE,
            f"waypoint {first} of {len(when)} has NaN or infinity in it; check the network's output and its normaliser",
            numbers(table[first], float(opening[first])),
        )
    if (np.diff(when) <= 0).any():
        raise Refused(Kind.BAD_TIMES, "the waypoints' times do not rise; sort them, and give each its own")
    notes: list[Note] = []
    ahead = when > from_s
    if not ahead.any():
        raise Refused(Kind.LATE, f"all {len(when)} waypoints are past, the last by {said(from_s - when[-1])} s")
    if not ahead.all():
        notes.append((Kind.LATE, f"{int((~ahead).sum())} of {len(when)} waypoints are past and were left out", None))
    when, table, opening = when[ahead], table[ahead], opening[ahead]
    inside = np.clip(opening, fence.gripper_min, fence.gripper_max)
    worst = int(np.abs(inside - opening).argmax())
    if abs(inside[worst] - opening[worst]) > 1e-6:
        detail = f"gripper {said(opening[worst], 4)} m is outside {fence.gripper_min:.4f} to {fence.gripper_max:.4f} m"
        notes.append((Kind.GRIPPER, detail, numbers(table[worst], float(opening[worst]))))
    return Stream(when, table, inside, tuple(notes))


def from_joints(stream: Stream, *, fence: Fence, kinematics: Kinematics) -> Wanted:
    """Joints, moved into their limits, and where the tool would leave the workspace, to the nearest joints where it does not.

    Raises:
        Refused: there are none for the first waypoint.
    """
    notes = list(stream.notes)
    # A number of this size is a mistake, and no angle: it has no nearest joints that would mean anything.
    joints = fence.nearest_joints(stream.rows)
    off = np.abs(joints - stream.rows).max(1)
    worst = int(off.argmax())
    asked = np.column_stack([stream.rows, stream.grippers])
    if off[worst] > 1e-3:
        detail = (
            f"joint {int(np.abs(joints - stream.rows)[worst].argmax()) + 1} beyond its limit by {said(off[worst])} rad"
        )
        notes.append((Kind.JOINT_LIMIT, detail, numbers(asked[worst])))
    points, turned = fence.tool(joints)
    inside = (fence.room(joints, points, turned)[:, 12:] >= 0).all(1)
    for i in np.flatnonzero(~inside):
        moved, kind = fence.nearest_pose(np.concatenate([points[i], _angles(turned[i])]))
        found = kinematics.inverse(moved, joints[i])
        if found is None or not _fits(found, fence):
            return _cut(
                stream, joints, asked, int(i), notes, Kind.NO_IK, "outside the workspace, and nothing near is inside"
            )
        joints[i] = fence.nearest_joints(found)
        if kind is not None and not any(n[0] is kind for n in notes):
            notes.append((kind, f"waypoint {i} would put the tool at {_point(points[i])}", numbers(asked[i])))
    return Wanted(stream.times, joints, stream.grippers, asked, tuple(notes))


def from_poses(stream: Stream, *, fence: Fence, kinematics: Kinematics, seed: np.ndarray, from_s: float) -> Wanted:
    """Tool poses, moved into the workspace, as joints, each solution near the one before.

    Args:
        seed: (6,) joints where the arm is at ``from_s``.

    Raises:
        Refused: the first has no solution within the joints' limits, or only far away.
    """
    notes = list(stream.notes)
    asked = np.column_stack([stream.rows, stream.grippers])
    joints = np.empty_like(stream.rows)
    before_s, c = from_s, fence.config
    for i, pose in enumerate(stream.rows):
        # Numbers that no arm is near to make solvers slow or wrong, and no clipping gives them a meaning.
        if np.abs(pose[:3]).max() > 100 or np.abs(pose[3:]).max() > 1000:
            return _cut(
                stream, joints, asked, i, notes, Kind.WORKSPACE, f"a tool pose at {_point(pose)} is no place for an arm"
            )
        # The middle of the arm's own foot: what a network or a parser says that has nothing to say.
        if not pose[:3].any():
            detail = (
                "a tool pose at exactly (0, 0, 0) is no place for an arm; check the network's output and its normaliser"
            )
            return _cut(stream, joints, asked, i, notes, Kind.NOT_FINITE, detail)
        moved, kind = fence.nearest_pose(pose)
        if kind is not None and not any(n[0] is kind for n in notes):
            notes.append((kind, f"waypoint {i} would put the tool at {_point(pose)}", numbers(asked[i])))
        found = kinematics.inverse(moved, seed)
        if found is None or not _fits(found, fence):
            return _cut(
                stream, joints, asked, i, notes, Kind.NO_IK, f"no joints within their limits reach {_point(moved)}"
            )
        far = float(np.abs(found - seed).max())
        if far > c.ik_jump + c.joint_speed * (stream.times[i] - before_s):
            detail = f"the joints for {_point(moved)} are {far:.2f} rad away: another posture of the arm"
            return _cut(stream, joints, asked, i, notes, Kind.NO_IK, detail)
        seed = joints[i] = fence.nearest_joints(found)
        before_s = stream.times[i]
    return Wanted(stream.times, joints, stream.grippers, asked, tuple(notes))


def check_first(wanted: Wanted, here: np.ndarray, *, fence: Fence) -> None:
    """After a rest, the first target has to be near.

    Raises:
        Refused: it is not.
    """
    c = fence.config
    (there, now), (turned, was) = fence.tool(np.stack([wanted.joints[0], here]))
    for name, value, most, unit in (
        ("the tool", float(np.linalg.norm(there - now)), c.first_jump, "m"),
        ("the tool's rotation", angle(turned, was), c.first_turn, "rad"),
        ("a joint", float(np.abs(wanted.joints[0] - here).max()), c.first_joints, "rad"),
    ):
        if value > most:
            raise Refused(
                Kind.FIRST_JUMP,
                f"the first target moves {name} by {value:.3f} {unit}, more than {most} {unit}; begin where the arm is",
                numbers(wanted.asked[0]),
            )


def _cut(
    stream: Stream, joints: np.ndarray, asked: np.ndarray, i: int, notes: list[Note], kind: Kind, detail: str
) -> Wanted:
    """What comes before waypoint ``i``, where the arm then stays."""
    if i == 0:
        raise Refused(kind, detail, numbers(asked[0]))
    notes.append((kind, f"waypoint {i}: {detail}; the arm stays at the one before", numbers(asked[i])))
    return Wanted(stream.times[:i], joints[:i], stream.grippers[:i], asked[:i], tuple(notes))


def _fits(joints: np.ndarray, fence: Fence) -> bool:
    """Whether a solution, put inside the joints' margins, still has the tool where it may be."""
    near = fence.nearest_joints(joints)
    return bool(np.abs(near - joints).max() < fence.config.joint_margin + 1e-3 and (fence.room_at(near) >= 0).all())


def _angles(turned: np.ndarray) -> np.ndarray:
    """(3, 3) -> roll, pitch, yaw."""
    across = np.hypot(turned[0, 0], turned[1, 0])
    pitch = np.arctan2(-turned[2, 0], across)
    if across < 1e-9:
        return np.array([0.0, pitch, np.arctan2(-turned[0, 1], turned[1, 1])])
    return np.array([np.arctan2(turned[2, 1], turned[2, 2]), pitch, np.arctan2(turned[1, 0], turned[0, 0])])


def _point(values: np.ndarray) -> str:
    return f"({', '.join(map(said, values[:3]))}) m"
