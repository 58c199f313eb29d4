"""The command parser: from a command to a target trajectory. Numbers, times, limits of position, inverse kinematics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uva_agents.envs.arx_x5.arm.interface import N_JOINTS, Kinematics, Waypoint
from uva_agents.envs.arx_x5.safety.envelope import SafetyEnvelope, angle
from uva_agents.envs.arx_x5.safety.events import InterventionKind, number_text, numbers

Note = tuple[InterventionKind, str, tuple[float, ...] | None]
"""Why, in words, and what was commanded."""

_MAX_WAYPOINTS = 1000


class CommandRejected(Exception):
    """A command is rejected: nothing of it can be used.

    Args:
        kind: why.
        detail: in words.
        wanted: the row that shows it.
    """

    def __init__(self, kind: InterventionKind, detail: str, wanted: tuple[float, ...] | None = None) -> None:
        super().__init__(detail)
        self.note: Note = (kind, detail, wanted)


@dataclass(frozen=True, slots=True, eq=False)
class ParsedCommand:
    """A command as arrays of valid numbers and times.

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
class TargetTrajectory:
    """Where the joints shall be when: within every limit of position at its waypoints, but not yet of speed and acceleration.

    Attributes:
        times: (T,) rising, in the future.
        joints: (T, 6) rad.
        grippers: (T,) metres.
        commanded: (T, 7) what was commanded instead, joints or pose, and gripper.
        notes: what had to be changed.
    """

    times: np.ndarray
    joints: np.ndarray
    grippers: np.ndarray
    commanded: np.ndarray
    notes: tuple[Note, ...]


class CommandParser:
    """Makes target trajectories of commands.

    Args:
        envelope: the limits.
        kinematics: of the arm.
    """

    def __init__(self, envelope: SafetyEnvelope, kinematics: Kinematics) -> None:
        self._envelope, self._kinematics = envelope, kinematics

    def joints(self, waypoints: Sequence[Waypoint], *, now: float) -> TargetTrajectory:
        """Of waypoints.

        Raises:
            CommandRejected: nothing of them can be used.
        """
        try:
            times = [w.time_s for w in waypoints]
            rows, grippers = [w.joint_pos for w in waypoints], [w.gripper_pos for w in waypoints]
        except (TypeError, AttributeError) as error:
            raise CommandRejected(InterventionKind.NOT_FINITE, f"a command must be waypoints: {error}") from None
        return joint_targets(
            parse_command(times, rows, grippers, from_s=now, envelope=self._envelope),
            envelope=self._envelope,
            kinematics=self._kinematics,
        )

    def poses(
        self, times: Any, poses: Any, grippers: Any, *, now: float, here: np.ndarray, branch_s: float
    ) -> TargetTrajectory:
        """Of tool poses, for an arm that will be at joints ``here`` (6,) at ``branch_s``.

        Raises:
            CommandRejected: nothing of them can be used.
        """
        command = parse_command(times, poses, grippers, from_s=now, envelope=self._envelope)
        # From the branch point, or at once if that is later than the first waypoint.
        since = min(branch_s, float(command.times[0]))
        return pose_targets(command, envelope=self._envelope, kinematics=self._kinematics, seed=here, from_s=since)


def parse_command(times: Any, rows: Any, grippers: Any, *, from_s: float, envelope: SafetyEnvelope) -> ParsedCommand:
    """Check a command's form, drop what is past, and keep the gripper within its range.

    Args:
        times: (T,) seconds.
        rows: (T, 6).
        grippers: (T,) metres.
        from_s: earlier waypoints are past.
        envelope: for the gripper's range.

    Raises:
        CommandRejected: not numbers, not of one length, not finite, times that do not rise, or all of them past.
    """
    try:
        times_s, table, opening = (np.array(values, dtype=np.float64) for values in (times, rows, grippers))
    except (TypeError, ValueError) as error:
        raise CommandRejected(InterventionKind.NOT_FINITE, f"a command must be numbers: {error}") from None
    if not len(np.atleast_1d(times_s)):
        raise CommandRejected(InterventionKind.LATE, "the command has no waypoint")
    if times_s.ndim != 1 or table.shape != (len(times_s), N_JOINTS) or opening.shape != times_s.shape:
        shapes = f"times {times_s.shape}, rows {table.shape}, grippers {opening.shape}"
        raise CommandRejected(
            InterventionKind.NOT_FINITE, f"a command is times (T,), rows (T, 6) and grippers (T,); this has {shapes}"
        )
    if len(times_s) > _MAX_WAYPOINTS:
        raise CommandRejected(
            InterventionKind.BAD_TIMES, f"{len(times_s)} waypoints in one command: at most {_MAX_WAYPOINTS}"
        )
    bad = ~(np.isfinite(times_s) & np.isfinite(table).all(1) & np.isfinite(opening))
    if bad.any():
        first = int(bad.argmax())
        raise CommandRejected(
            InterventionKind.NOT_FINITE,
            f"waypoint {first} of {len(times_s)} has NaN or infinity in it; check the network's output and its normaliser",
            numbers(table[first], float(opening[first])),
        )
    if (np.diff(times_s) <= 0).any():
        raise CommandRejected(
            InterventionKind.BAD_TIMES, "the waypoints' times do not rise; sort them, and give each its own"
        )
    notes: list[Note] = []
    ahead = times_s > from_s
    if not ahead.any():
        raise CommandRejected(
            InterventionKind.LATE,
            f"all {len(times_s)} waypoints are past, the last by {number_text(from_s - times_s[-1])} s",
        )
    if not ahead.all():
        notes.append(
            (
                InterventionKind.LATE,
                f"{int((~ahead).sum())} of {len(times_s)} waypoints are past and were left out",
                None,
            )
        )
    times_s, table, opening = times_s[ahead], table[ahead], opening[ahead]
    inside = np.clip(opening, envelope.gripper_min, envelope.gripper_max)
    worst = int(np.abs(inside - opening).argmax())
    if abs(inside[worst] - opening[worst]) > 1e-6:
        detail = f"gripper {number_text(opening[worst], 4)} m is outside {envelope.gripper_min:.4f} to {envelope.gripper_max:.4f} m"
        notes.append((InterventionKind.GRIPPER, detail, numbers(table[worst], float(opening[worst]))))
    return ParsedCommand(times_s, table, inside, tuple(notes))


def joint_targets(command: ParsedCommand, *, envelope: SafetyEnvelope, kinematics: Kinematics) -> TargetTrajectory:
    """Joints, moved into their limits, and where the tool would leave the workspace, to the nearest joints where it does not.

    Raises:
        CommandRejected: there are none for the first waypoint.
    """
    notes = list(command.notes)
    # A number of this size is a mistake, and no angle: it has no nearest joints that would mean anything.
    joints = envelope.nearest_joints(command.rows)
    off = np.abs(joints - command.rows).max(1)
    worst = int(off.argmax())
    commanded = np.column_stack([command.rows, command.grippers])
    if off[worst] > 1e-3:
        detail = f"joint {int(np.abs(joints - command.rows)[worst].argmax()) + 1} beyond its limit by {number_text(off[worst])} rad"
        notes.append((InterventionKind.JOINT_LIMIT, detail, numbers(commanded[worst])))
    points, rotations = envelope.tool(joints)
    inside = (envelope.clearance(joints, points, rotations)[:, 12:] >= 0).all(1)
    for i in np.flatnonzero(~inside):
        moved, kind = envelope.nearest_pose(np.concatenate([points[i], _rpy(rotations[i])]))
        found = kinematics.inverse(moved, joints[i])
        if found is None or not _fits(found, envelope):
            return _truncated(
                command,
                joints,
                commanded,
                int(i),
                notes,
                InterventionKind.NO_IK,
                "outside the workspace, and nothing near is inside",
            )
        joints[i] = envelope.nearest_joints(found)
        if kind is not None and not any(n[0] is kind for n in notes):
            notes.append((kind, f"waypoint {i} would put the tool at {_point(points[i])}", numbers(commanded[i])))
    return TargetTrajectory(command.times, joints, command.grippers, commanded, tuple(notes))


def pose_targets(
    command: ParsedCommand, *, envelope: SafetyEnvelope, kinematics: Kinematics, seed: np.ndarray, from_s: float
) -> TargetTrajectory:
    """Tool poses, moved into the workspace, as joints, each solution near the one before.

    Args:
        seed: (6,) joints where the arm is at ``from_s``.

    Raises:
        CommandRejected: the first has no solution within the joints' limits, or only far away.
    """
    notes = list(command.notes)
    commanded = np.column_stack([command.rows, command.grippers])
    joints = np.empty_like(command.rows)
    before_s, c = from_s, envelope.config
    for i, pose in enumerate(command.rows):
        # Numbers that no arm is near to make solvers slow or wrong, and no clipping gives them a meaning.
        if np.abs(pose[:3]).max() > 100 or np.abs(pose[3:]).max() > 1000:
            return _truncated(
                command,
                joints,
                commanded,
                i,
                notes,
                InterventionKind.WORKSPACE,
                f"a tool pose at {_point(pose)} is no place for an arm",
            )
        # The middle of the arm's own foot: what a network or a parser gives that has failed.
        if not pose[:3].any():
            detail = (
                "a tool pose at exactly (0, 0, 0) is no place for an arm; check the network's output and its normaliser"
            )
            return _truncated(command, joints, commanded, i, notes, InterventionKind.NOT_FINITE, detail)
        moved, kind = envelope.nearest_pose(pose)
        if kind is not None and not any(n[0] is kind for n in notes):
            notes.append((kind, f"waypoint {i} would put the tool at {_point(pose)}", numbers(commanded[i])))
        found = kinematics.inverse(moved, seed)
        if found is None or not _fits(found, envelope):
            return _truncated(
                command,
                joints,
                commanded,
                i,
                notes,
                InterventionKind.NO_IK,
                f"no joints within their limits reach {_point(moved)}",
            )
        far = float(np.abs(found - seed).max())
        if far > c.ik_jump + c.joint_speed * (command.times[i] - before_s):
            detail = f"the joints for {_point(moved)} are {far:.2f} rad away: another posture of the arm"
            return _truncated(command, joints, commanded, i, notes, InterventionKind.NO_IK, detail)
        seed = joints[i] = envelope.nearest_joints(found)
        before_s = command.times[i]
    return TargetTrajectory(command.times, joints, command.grippers, commanded, tuple(notes))


def check_first(target: TargetTrajectory, here: np.ndarray, *, envelope: SafetyEnvelope) -> None:
    """After a halt, the first target has to be near.

    Raises:
        CommandRejected: it is not.
    """
    c = envelope.config
    (there, now), (rotation, rotation_now) = envelope.tool(np.stack([target.joints[0], here]))
    for name, value, most, unit in (
        ("the tool", float(np.linalg.norm(there - now)), c.first_jump, "m"),
        ("the tool's rotation", angle(rotation, rotation_now), c.first_turn, "rad"),
        ("a joint", float(np.abs(target.joints[0] - here).max()), c.first_joints, "rad"),
    ):
        if value > most:
            raise CommandRejected(
                InterventionKind.FIRST_JUMP,
                f"the first target moves {name} by {value:.3f} {unit}, more than {most} {unit}; begin where the arm is",
                numbers(target.commanded[0]),
            )


def _truncated(
    command: ParsedCommand,
    joints: np.ndarray,
    commanded: np.ndarray,
    i: int,
    notes: list[Note],
    kind: InterventionKind,
    detail: str,
) -> TargetTrajectory:
    """The target trajectory up to the waypoint before ``i``, where the arm then stays."""
    if i == 0:
        raise CommandRejected(kind, detail, numbers(commanded[0]))
    notes.append((kind, f"waypoint {i}: {detail}; the arm stays at the one before", numbers(commanded[i])))
    return TargetTrajectory(command.times[:i], joints[:i], command.grippers[:i], commanded[:i], tuple(notes))


def _fits(joints: np.ndarray, envelope: SafetyEnvelope) -> bool:
    """Whether a solution, put inside the joints' margins, still has the tool where it may be."""
    near = envelope.nearest_joints(joints)
    return bool(
        np.abs(near - joints).max() < envelope.config.joint_margin + 1e-3 and (envelope.clearance_at(near) >= 0).all()
    )


def _rpy(rotation: np.ndarray) -> np.ndarray:
    """(3, 3) -> roll, pitch, yaw."""
    across = np.hypot(rotation[0, 0], rotation[1, 0])
    pitch = np.arctan2(-rotation[2, 0], across)
    if across < 1e-9:
        return np.array([0.0, pitch, np.arctan2(-rotation[0, 1], rotation[1, 1])])
    return np.array([np.arctan2(rotation[2, 1], rotation[2, 2]), pitch, np.arctan2(rotation[1, 0], rotation[0, 0])])


def _point(values: np.ndarray) -> str:
    return f"({', '.join(map(number_text, values[:3]))}) m"
