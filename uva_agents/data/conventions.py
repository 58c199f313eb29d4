"""The conventions of robots that this package knows: one class each, see :mod:`uva_agents.data.transforms`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from uva_agents.data.libero import POSITION_SCALE, ROTATION_SCALE, absolute_actions, relative_actions
from uva_agents.data.transforms import ReferencePoses, Transform, register
from uva_agents.errors import InputError
from uva_agents.utils.rotations import (
    ROTATION_FORMS,
    pose9_from_matrix,
    pose_matrix,
    relative_to,
    rot6d_from_matrix,
)

RotationName = Literal["vector", "rot6d", "quaternion"]
"""One of :data:`~uva_agents.utils.rotations.ROTATION_FORMS`."""


@register
@dataclass(frozen=True)
class AbsolutePoses(Transform):
    """Position, rotation and gripper in one frame on both sides; only the rotation changes its form.

    Args:
        environment, network: forms of the rotation.
    """

    environment: RotationName = "vector"
    network: RotationName = "rot6d"
    kind: ClassVar[str] = "absolute-poses"

    def to_network(self, values: np.ndarray, references: ReferencePoses) -> np.ndarray:
        """(..., E) -> (..., N): the pose in the network's frame, its rotation in the network's form."""
        matrix = self._seen(references, self._matrix(values))
        return _with_rest(ROTATION_FORMS[self.network].pose(matrix), values, self.environment)

    def to_environment(self, values: np.ndarray, references: ReferencePoses) -> np.ndarray:
        """(..., N) -> (..., E): the inverse."""
        matrix = self._placed(references, ROTATION_FORMS[self.network].pose_matrix(values))
        return _with_rest(ROTATION_FORMS[self.environment].pose(matrix), values, self.network)

    def network_size(self, environment_size: int) -> int:
        """N: position, rotation in the network's form, gripper."""
        return 4 + ROTATION_FORMS[self.network].width

    def environment_size(self, network_size: int) -> int:
        """E: position, rotation in the environment's form, gripper."""
        return 4 + ROTATION_FORMS[self.environment].width

    def neutral(self) -> np.ndarray:
        """A tool at the origin, not turned, and the gripper's number 0."""
        return _at_origin(self.environment)

    def environment_limits(self) -> dict[int, tuple[float, float]]:
        """Of the rotation: what its form can reach."""
        return _rotation_limits(self.environment)

    def network_limits(self) -> dict[int, tuple[float, float]]:
        """Of the rotation: what its form can reach, as released; a wrist that hardly turns would be noise scaled up."""
        return _rotation_limits(self.network)

    def _matrix(self, values: np.ndarray) -> np.ndarray:
        form = ROTATION_FORMS[self.environment]
        if values.shape[-1] != 4 + form.width:
            raise InputError(
                f"pose actions are (..., {4 + form.width}): x, y, z, {form.words}, gripper; got {values.shape}"
            )
        return form.pose_matrix(values)

    def _seen(self, references: ReferencePoses, matrix: np.ndarray) -> np.ndarray:
        """Poses (..., 4, 4) in the environment's frame, in the network's."""
        return matrix

    def _placed(self, references: ReferencePoses, matrix: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`_seen`."""
        return matrix


@register
@dataclass(frozen=True)
class RelativePoses(AbsolutePoses):
    """Poses in the environment's frame outside, seen from the tool's pose at the decision inside (UMI).

    Args:
        reference: form of the rotation in the proprioception that says where the tool is: position, rotation, and anything after.
    """

    reference: RotationName = "vector"
    kind: ClassVar[str] = "relative-poses"
    needs: ClassVar[frozenset[str]] = frozenset({"now"})
    per_row: ClassVar[bool] = False

    def _seen(self, references: ReferencePoses, matrix: np.ndarray) -> np.ndarray:
        return relative_to(self._now(references), matrix)

    def _placed(self, references: ReferencePoses, matrix: np.ndarray) -> np.ndarray:
        placed: np.ndarray = self._now(references) @ matrix
        return placed

    def origin(self) -> np.ndarray:
        """At the origin, not turned, and the gripper's number 0."""
        return _at_origin(self.reference)

    def pose_after(self, action: np.ndarray) -> np.ndarray:
        """The pose that an action names, in the form of proprioception."""
        matrix = ROTATION_FORMS[self.environment].pose_matrix(action)
        return _with_rest(ROTATION_FORMS[self.reference].pose(matrix), action, self.environment)

    def _now(self, references: ReferencePoses) -> np.ndarray:
        return ROTATION_FORMS[self.reference].pose_matrix(references.need_now())


@register
@dataclass(frozen=True)
class RelativeProprio(Transform):
    """UMI's proprioception: rows up to now (K, 4 + rotation) outside, (K, 16) inside.

    Outside: position, rotation, gripper. Inside: position and rot6d seen from the pose now, gripper, and rot6d seen from the
    episode's start.

    Args:
        environment: form of the rotation outside.
    """

    environment: RotationName = "vector"
    kind: ClassVar[str] = "relative-proprio"
    needs: ClassVar[frozenset[str]] = frozenset({"now", "start"})
    per_row: ClassVar[bool] = False

    def to_network(self, values: np.ndarray, references: ReferencePoses) -> np.ndarray:
        """(..., K, E) -> (..., K, 16), seen from the pose now (the last row, unless told) and from the episode's start."""
        form = ROTATION_FORMS[self.environment]
        matrix, gripper = form.pose_matrix(values), values[..., 3 + form.width : 4 + form.width]
        start = form.pose_matrix(references.need_start())
        # In training the rows may be of steps before now alone, or after it.
        now = matrix[..., -1:, :, :] if references.now is None else form.pose_matrix(references.need_now())
        return relative_rows(matrix, gripper, now=now, start=start)

    def to_environment(self, values: np.ndarray, references: ReferencePoses) -> np.ndarray:
        """(..., K, 16) -> (..., K, E): the inverse."""
        form = self.environment
        return RelativePoses(environment=form, reference=form).to_environment(values[..., :10], references)

    def neutral(self) -> np.ndarray:
        """A tool at the origin, not turned, and the gripper's number 0."""
        return _at_origin(self.environment)

    def environment_limits(self) -> dict[int, tuple[float, float]]:
        """Of the rotation."""
        return _rotation_limits(self.environment)

    def network_limits(self) -> dict[int, tuple[float, float]]:
        """Of both rotations."""
        return _rotation_limits("rot6d") | _rotation_limits("rot6d", first=10)

    def network_size(self, environment_size: int) -> int:
        """Always 16."""
        return 16

    def environment_size(self, network_size: int) -> int:
        """Position, rotation, gripper."""
        return 4 + ROTATION_FORMS[self.environment].width


def relative_rows(matrix: np.ndarray, gripper: np.ndarray, *, now: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Poses (..., 4, 4) and openings (..., 1) -> (..., 16); see :class:`RelativeProprio`. ``now`` and ``start``: (..., 4, 4)."""
    seen = pose9_from_matrix(relative_to(now, matrix))
    from_start = rot6d_from_matrix(relative_to(start, matrix)[..., :3, :3])
    return np.concatenate([seen, gripper, from_start], axis=-1)


# -- changes of poses, grippers --------------------------------------------------------------------------------------


@register
@dataclass(frozen=True)
class DeltaActions(Transform):
    """Scaled changes of the tool's pose in [-1, 1] outside (7), as robosuite's OSC_POSE takes them; the goals they set inside (10).

    A change is added to where the tool is when it arrives. ``references.now`` (..., 6 or more: position and rotation vector of
    the controlled point) says where, for every action; of one row (P,) for a whole chunk, the pose at an action is taken to be
    the goal of the one before. See :mod:`uva_agents.data.libero`.

    Args:
        position_scale: metres of a change of 1.
        rotation_scale: radians of a change of 1.

    Raises:
        ValueError: a scale is not above 0, or not finite.
    """

    position_scale: float = POSITION_SCALE
    rotation_scale: float = ROTATION_SCALE
    kind: ClassVar[str] = "delta-actions"
    needs: ClassVar[frozenset[str]] = frozenset({"now"})

    def __post_init__(self) -> None:
        for name in ("position_scale", "rotation_scale"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")

    def to_network(self, values: np.ndarray, references: ReferencePoses) -> np.ndarray:
        """Changes (..., 7) in [-1, 1] -> goals (..., 10): position in metres, rot6d, gripper."""
        now = references.need_now()
        if now.ndim > 1 or values.ndim == 1:
            return self._goals(values, pose_matrix(now[..., :6]))
        pose = np.broadcast_to(pose_matrix(now[:6]), (*values.shape[:-2], 4, 4))
        goals = np.empty((*values.shape[:-1], 10), np.float32)
        for t in range(values.shape[-2]):
            goals[..., t, :] = self._goals(values[..., t, :], pose)
            pose = ROTATION_FORMS["rot6d"].pose_matrix(goals[..., t, :])
        return goals

    def to_environment(self, values: np.ndarray, references: ReferencePoses) -> np.ndarray:
        """Goals (..., 10) -> changes (..., 7), clipped to [-1, 1]."""
        pose = pose_matrix(references.need_now()[..., :6])
        if pose.ndim == 2 and values.ndim > 1:
            goals = ROTATION_FORMS["rot6d"].pose_matrix(values)
            first = np.broadcast_to(pose, (*values.shape[:-2], 1, 4, 4))
            pose = np.concatenate([first, goals[..., :-1, :, :]], axis=-3)
        return relative_actions(values, pose[..., :3, 3], pose[..., :3, :3], **self._scales())

    def network_limits(self) -> dict[int, tuple[float, float]]:
        """Of the goal's rotation."""
        return _rotation_limits("rot6d")

    def network_size(self, environment_size: int) -> int:
        """Always 10."""
        return 10

    def environment_size(self, network_size: int) -> int:
        """Always 7."""
        return 7

    def _goals(self, values: np.ndarray, pose: np.ndarray) -> np.ndarray:
        return absolute_actions(values, pose[..., :3, 3], pose[..., :3, :3], **self._scales())

    def _scales(self) -> dict[str, float]:
        return {"position_scale": self.position_scale, "rotation_scale": self.rotation_scale}


@register
@dataclass(frozen=True)
class GripperRange(Transform):
    """What the last number means: the gripper's values where it is closed and where it is open.

    Args:
        environment, network: (closed, open).

    Raises:
        ValueError: closed and open are the same, or not finite.
    """

    environment: tuple[float, float]
    network: tuple[float, float] = (0.0, 1.0)
    kind: ClassVar[str] = "gripper-range"
    averages: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("environment", "network"):
            closed, opened = getattr(self, name)
            if closed == opened or not np.isfinite([closed, opened]).all():
                raise ValueError(f"{name} must be two different finite numbers, got {closed} and {opened}")

    def to_network(self, values: np.ndarray, references: ReferencePoses) -> np.ndarray:
        """(..., E) -> (..., E), the last number in the network's range."""
        return self._last(values, self.environment, self.network)

    def to_environment(self, values: np.ndarray, references: ReferencePoses) -> np.ndarray:
        """(..., E) -> (..., E), the last number in the environment's range."""
        return self._last(values, self.network, self.environment)

    def network_size(self, environment_size: int) -> int:
        """N = E: the number of columns stays."""
        return environment_size

    def environment_size(self, network_size: int) -> int:
        """E = N: the number of columns stays."""
        return network_size

    @staticmethod
    def _last(values: np.ndarray, source: tuple[float, float], target: tuple[float, float]) -> np.ndarray:
        opened = (values[..., -1:] - source[0]) / (source[1] - source[0])
        return np.concatenate([values[..., :-1], target[0] + opened * (target[1] - target[0])], axis=-1)


def _at_origin(form: RotationName) -> np.ndarray:
    """(4 + rotation,) a tool at the origin, not turned, and the gripper's number 0."""
    return np.append(ROTATION_FORMS[form].pose(np.eye(4)), 0.0)


def _rotation_limits(form: RotationName, first: int = 3) -> dict[int, tuple[float, float]]:
    most = float(np.pi) if form == "vector" else 1.0
    return {first + i: (-most, most) for i in range(ROTATION_FORMS[form].width)}


def _with_rest(pose: np.ndarray, values: np.ndarray, form: RotationName) -> np.ndarray:
    """``pose`` and what follows the pose in ``values``, whose rotation has this form."""
    return np.concatenate([pose, values[..., 3 + ROTATION_FORMS[form].width :]], axis=-1)
