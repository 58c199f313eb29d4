"""What an ARX X5 can do and must not exceed: the numbers of the SDK's robot and controller configurations.

They are here, and not read from the SDK, because the twin and the safety layer have to work without it; a test compares them.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np

from uva_agents.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class ArmLimits:
    """Of one model of the arm. Arrays cannot be written to.

    Attributes:
        model: the SDK's name of it.
        joint_pos_min: (6,) rad.
        joint_pos_max: (6,) rad.
        joint_vel_max: (6,) rad/s.
        joint_torque_max: (6,) N m.
        gripper_width: largest opening, metres; 0 is closed.
        gripper_vel_max: m/s.
        gripper_torque_max: N m, of the gripper's motor.
        gripper_open_readout: rad, where that motor stands when the gripper is open.
        eef_vel_max: m/s. The SDK declares this and the next, and enforces neither.
        eef_turn_max: rad/s.
        default_kp: (6,) N m/rad.
        default_kd: (6,) N m s/rad.
        default_gripper_kp: N m/rad, of the gripper's motor.
        default_gripper_kd: N m s/rad, of the gripper's motor.
        over_current_cycles: control cycles above a torque limit that the arm accepts in a row.
        control_dt: seconds of one control cycle.
        home_joint_pos: (6,) rad.
        tool_offset: metres from joint 6 to the tool frame, forward.
    """

    model: str
    joint_pos_min: np.ndarray
    joint_pos_max: np.ndarray
    joint_vel_max: np.ndarray
    joint_torque_max: np.ndarray
    gripper_width: float
    gripper_vel_max: float
    gripper_torque_max: float
    gripper_open_readout: float
    eef_vel_max: float
    eef_turn_max: float
    default_kp: np.ndarray
    default_kd: np.ndarray
    default_gripper_kp: float
    default_gripper_kd: float
    over_current_cycles: int
    control_dt: float
    home_joint_pos: np.ndarray
    tool_offset: float


def _six(*values: float) -> np.ndarray:
    array = np.array(values)
    array.setflags(write=False)
    return array


def _x5(model: str, *, gripper_width: float, gripper_open_readout: float, tool_offset: float) -> ArmLimits:
    return ArmLimits(
        model=model,
        joint_pos_min=_six(-3.14, -0.05, -0.1, -1.6, -1.57, -2.0),
        joint_pos_max=_six(2.618, 3.5, 3.2, 1.55, 1.57, 2.0),
        joint_vel_max=_six(5.0, 5.0, 5.5, 5.5, 5.0, 5.0),
        joint_torque_max=_six(30.0, 40.0, 30.0, 15.0, 10.0, 10.0),
        gripper_width=gripper_width,
        gripper_vel_max=0.3,
        gripper_torque_max=1.5,
        gripper_open_readout=gripper_open_readout,
        eef_vel_max=0.6,
        eef_turn_max=1.8,
        default_kp=_six(80.0, 70.0, 70.0, 30.0, 30.0, 20.0),
        default_kd=_six(2.0, 2.0, 2.0, 1.0, 1.0, 0.7),
        default_gripper_kp=5.0,
        default_gripper_kd=0.2,
        over_current_cycles=20,
        control_dt=0.002,
        home_joint_pos=_six(0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        tool_offset=tool_offset,
    )


X5 = _x5("X5", gripper_width=0.088, gripper_open_readout=5.03, tool_offset=0.145)
"""With the gripper that it is sold with."""
X5_UMI = _x5("X5_umi", gripper_width=0.086, gripper_open_readout=4.90, tool_offset=0.225)
"""With the soft-fingered gripper of UMI."""

_MODELS = {limits.model: limits for limits in (X5, X5_UMI)}
MODELS = tuple(_MODELS)


def arm_limits(model: str) -> ArmLimits:
    """Limits by the model's name in the SDK, ``"X5"`` or ``"X5_umi"``.

    Raises:
        InputError: no such model here. A wrong one is dangerous: motors of other models answer differently.
    """
    try:
        return _MODELS[model]
    except (KeyError, TypeError):
        close = difflib.get_close_matches(str(model), MODELS, n=1, cutoff=0.3)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"model must be one of {', '.join(map(repr, MODELS))}, not {model!r}{hint}") from None
