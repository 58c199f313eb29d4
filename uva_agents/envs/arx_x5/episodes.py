"""Episodes of the twin: their task, a script that does it, and moments that can be gone back to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from uva_agents.envs.arx_x5.control import ArmControl
from uva_agents.envs.arx_x5.state import ArxX5State, check_state
from uva_agents.envs.arx_x5.system.sessions import TwinSession
from uva_agents.envs.arx_x5.tasks.demonstrator import Demonstrator
from uva_agents.envs.arx_x5.tasks.disturbance import Disturbance


class TwinEpisodes(ArmControl):
    """What :class:`~uva_agents.envs.arx_x5.env.ArxX5Env` offers on the twin; its constructor sets the attributes."""

    _env_id: ClassVar[str]
    _model: str
    _allowed: dict[str, Any]

    @property
    def task(self) -> str:
        """Name of the present episode's task."""
        return self._session.task

    @property
    def task_description(self) -> str:
        """The same in words."""
        return self._instruction or self._session.task_description

    @property
    def instruction(self) -> str | None:
        """What to do, in words, where that is known: as the constructor was told, else of the twin's task."""
        own = self._session.task_description if isinstance(self._session, TwinSession) else None
        return self._instruction or own

    def demonstration(self) -> Iterator[np.ndarray]:
        """Actions (A,) of a script that knows where everything is, one for each step from now on, until it has no more to do.

        Raises:
            RuntimeError: this is not the twin: only in simulation that is known.
        """
        for wanted, _ in self.disturbed_demonstration(None):
            yield wanted

    def disturbed_demonstration(self, disturbance: Disturbance | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As :meth:`demonstration`, while something pushes the arm about: the good action (A,), and the one to execute (A,).

        Who learns the good ones from what is seen under the others learns to find back (DART, Laskey et al. 2017).

        Args:
            disturbance: what pushes; ``None`` for nothing.

        Raises:
            RuntimeError: as :meth:`demonstration`.
        """
        self._require_reset("demonstration()")
        session = self._session
        if not isinstance(session, TwinSession):
            raise RuntimeError(
                "demonstration() needs the twin (driver='sim'): nobody knows where things are before a real arm"
            )
        script = Demonstrator(session.truth, rate_hz=self.control_hz)
        while not script.done:
            target = script.act()
            pose, joints = target.eef_pose, target.joint_pos
            wanted = self._codec.action(pose, joints, target.gripper_pos, self._seen.state)
            if disturbance is None:
                yield wanted, wanted
                continue
            pushed = disturbance.push(pose, target.slack)
            solved = self._system.kinematics.inverse(pushed, joints)
            if solved is None:  # out of reach
                pushed, solved = pose, joints
            yield wanted, self._codec.action(pushed, solved, target.gripper_pos, self._seen.state)

    def get_state(self) -> ArxX5State:
        """The present moment of the twin, for :meth:`set_state` of this or any other environment with the same settings.

        Raises:
            RuntimeError: the environment has not been reset, or its clock cannot be put back: only ``driver="sim"`` without
                ``realtime`` can.
        """
        self._require_reset("get_state()")
        session = self._simulated("get_state()")
        state = ArxX5State(
            session.driver.get_state(),
            session.arm.get_state(),
            self._system.history.states,
            replace(self._seen, frames={}),
            self._pacer.due_s,
            self._start_s,
            self._allowed,
        )
        return state.stamped(self._env_id, self._kind(self.task))

    def set_state(self, state: ArxX5State) -> None:
        """Go to ``state``; what follows equals what followed there, bit for bit.

        The step limit of ``gymnasium.make`` is a wrapper and keeps its own count; so does ``info["timing"]``.

        Raises:
            InputError: ``state`` is no state, of another task, arm, version, rate or limits, or was
                changed; nothing has happened then.
            RuntimeError: as :meth:`get_state`.
        """
        self._require_open("set_state()")
        session = self._simulated("set_state()")
        kinds = {self._kind(name): name for name in (self.task, session.first_task)}
        check_state(state, environment=self._env_id, tasks=tuple(kinds), allowed=self._allowed)
        assert state.stamp is not None  # as checked
        session.select(kinds[state.stamp.task])
        session.driver.connect()
        session.driver.set_state(state.twin)
        session.arm.set_state(state.safety)
        self._system.history.states = state.history
        self._snapshot = state.snapshot
        self._pacer.due_s, self._start_s = state.due_s, state.start_s

    # -- inside ------------------------------------------------------------------------------------------------------

    def _simulated(self, what: str) -> TwinSession:
        session = self._session
        if not isinstance(session, TwinSession) or not session.repeats:
            raise RuntimeError(
                f"{what} needs the twin on its simulated clock (driver='sim'): real time does not go back"
            )
        return session

    @property
    def _present_task(self) -> str:
        """Of the twin; for copies."""
        return self.task

    @_present_task.setter
    def _present_task(self, name: str) -> None:
        if isinstance(self._session, TwinSession):
            self._session.select(name)

    def _kind(self, task: str) -> str:
        return f"{task} with {self._model}"
