"""States of an episode on the twin as values, and what makes one fit an environment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from uva_agents.envs import states
from uva_agents.envs.arx_x5.arm.interface import ArmState
from uva_agents.envs.arx_x5.drivers.factory import TwinState
from uva_agents.envs.arx_x5.safety import SafetyConfig
from uva_agents.envs.arx_x5.safety.simulated import SafetyState
from uva_agents.envs.arx_x5.system.system import Snapshot
from uva_agents.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class ArxX5State:
    """A moment of an episode on the twin as a value: picklable, valid in every environment with the same settings.

    Attributes:
        twin: arm, objects, sensors, cameras, queue and clock.
        safety: what the safety layer sent, and what it is doing.
        history: the arm's newest measurements.
        snapshot: the newest one, without pictures.
        due_s: when the next step is due.
        start_s: when the episode began.
        allowed: the control rate and the limits of safety that all this was made with.
        stamp: which environment, task and version it is of, and a checksum.
    """

    twin: TwinState
    safety: SafetyState
    history: tuple[ArmState, ...]
    snapshot: Snapshot
    due_s: float
    start_s: float
    allowed: dict[str, Any]
    stamp: states.Stamp | None = field(default=None, kw_only=True)

    def stamped(self, environment: str, task: str) -> ArxX5State:
        """The same with its stamp."""
        values = [getattr(self, name) for name in _FIELDS]
        return ArxX5State(*values, stamp=states.stamp(environment, task, _simulator(), map(_packed, values)))


_FIELDS = tuple(name for name in ArxX5State.__dataclass_fields__ if name != "stamp")


def allowed_motion(control_hz: float, config: SafetyConfig) -> dict[str, Any]:
    """What the motion in a state depends on: the rate, and every limit."""
    limits = asdict(config)
    limits |= {name: tuple(map(float, limits[name])) for name in ("box_min", "box_max")}
    return {"control_hz": control_hz} | {f"safety.{name}": value for name, value in limits.items()}


def check_state(state: ArxX5State, *, environment: str, tasks: tuple[str, ...], allowed: dict[str, Any]) -> None:
    """That a state is whole, and of an environment with one of these tasks and the same limits.

    Raises:
        InputError: it is not.
    """
    states.check(
        state,
        ArxX5State,
        environment=environment,
        made_by=_simulator(),
        tasks=tasks,
        fix="; make it with that task, or give it to reset(options={'task': ...}) first",
        validate=_check_values,
        pack=_packed,
    )
    differ = [name for name in allowed if state.allowed.get(name) != allowed[name]]
    if differ:
        # What was sent there goes on here, and would break these limits.
        what = "; ".join(f"{name}={state.allowed.get(name)} there and {allowed[name]} here" for name in differ)
        raise InputError(
            f"this state is of an environment with other limits ({what}): make both with the same control_hz and safety"
        )


def _simulator() -> str:
    return states.simulator("mujoco")


def _check_values(state: ArxX5State) -> None:
    states.numbers((state.due_s, state.start_s, state.twin.clock_s), "times", size=3)
    states.numbers(state.twin.controller.plant.physics, "physics", low=-1e10, high=1e10)


def _packed(value: Any) -> Any:
    """The history as one piece: two hundred measurements, one by one, would take as long to sum up as half a step."""
    if not (isinstance(value, tuple) and value and isinstance(value[0], ArmState)):
        return value
    rows = [(s.joint_pos, s.joint_vel, s.joint_torque, s.eef_pose) for s in value]
    numbers = [(s.time_s, s.gripper_pos, s.gripper_vel, s.gripper_torque) for s in value]
    return np.array(rows), np.array(numbers)
